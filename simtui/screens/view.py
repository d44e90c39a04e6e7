"""What all views share: tabs, the summary in words, the progress of a running study, the footer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, cast

from rich.cells import cell_len
from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.geometry import Size
from textual.message import Message
from textual.screen import Screen
from textual.widget import Widget

from engine.analysis.options import TableOptions
from engine.analysis.table import Table
from engine.errors import SimtuiError
from simtui.actions import OF_APP, OF_COMPARISONS, SHORT_VIEWS, VIEWS, actions_of, footer_of
from simtui.safe_text import fitted, safe
from simtui.views.parts import ACCENT, DIM, ERROR, KEY, STRONG, Line, Span, line, line_width, wrapped
from simtui.views.progress import progress_line
from simtui.widgets.lines import Lines

if TYPE_CHECKING:
    from simtui.app import SimtuiApp

MIN_WIDTH, MIN_HEIGHT = 60, 20
_TABS_START, _SHORT_START = " simtui  ", " "
_MIN_NAME_WIDTH, _AROUND_NAME = 24, 2
_NO_TRAINING = "This is a comparison of two checkpoints: nothing was trained, so there is nothing to see here."


def is_small(size: Size) -> bool:
    """Whether a terminal is too small for the views and for what lies over them."""
    return size.width < MIN_WIDTH or size.height < MIN_HEIGHT


def small_lines(size: Size) -> tuple[Line, ...]:
    """What a terminal that is too small shows instead."""
    text = f"needs {MIN_WIDTH} × {MIN_HEIGHT}; this terminal is {size.width} × {size.height}"
    return wrapped(text, max(size.width, 1), max(size.height, 1), ACCENT)


def bindings_of(view: str) -> list[BindingType]:
    """The key bindings of a view, from the table of actions."""
    return [
        Binding(
            ",".join(action.keys),
            action.name,
            action.says,
            show=False,
            priority=action.name == "app.quit",
            id=action.id,
        )
        for action in actions_of(view)
        if action.name not in OF_APP
    ]


class Room(Vertical):
    """Where a view's data stands."""

    class Resized(Message):
        """It has another size, or has come back."""

    def on_resize(self) -> None:
        """Tells the view."""
        self.post_message(self.Resized())


class ViewScreen(Screen[None]):
    """One view. A subclass says what stands in the middle (`compose_data`) and fills it (`show`)."""

    VIEW: ClassVar[str]

    @property
    def simtui(self) -> SimtuiApp:
        """The app, which holds what all views share."""
        return cast("SimtuiApp", self.app)

    @property
    def slot(self) -> str:
        """What the reader is asked for while this view is in front."""
        return self.VIEW

    def compose(self) -> ComposeResult:
        """The frame around the data."""
        yield Lines(id="tabs")
        yield Lines(id="summary")
        with Vertical(id="body"):
            yield Lines(id="nothing")
            with Room(id="data"):
                yield from self.compose_data()
        yield Lines(id="progress")
        yield Lines(id="footer")
        yield Lines(id="small")

    def compose_data(self) -> ComposeResult:
        """The widgets between the summary and the footer."""
        raise NotImplementedError

    def show_data(self) -> str | None:
        """Fills the widgets from what the app holds, or says with `nothing` or `failed` why it cannot.

        Returns:
            The summary in words; None to leave everything as it is while an answer is on its way.
        """
        raise NotImplementedError

    def table(self) -> Table | None:
        """What is on the screen, as it is exported; None where there is nothing."""
        raise NotImplementedError

    def export_note(self) -> str:
        """What must be said of an export, because it is not quite what is on the screen; empty where it is."""
        return ""

    def footer_words(self) -> Mapping[str, str]:
        """By the id of an action: its word in the footer, where it does something else than elsewhere in this view."""
        return {}

    def table_options(self) -> TableOptions:
        """What the table on the screen was asked for."""
        return self.simtui.options(self.slot)

    def show(self) -> None:
        """Brings everything in sight up to date; what has not changed is not drawn again."""
        # Not composed yet, or closing: there is nothing to fill.
        if not self.query("#tabs") or not self.query("#small") or self.size.width == 0:
            return
        width = self.size.width
        self.set_class(is_small(self.size), "-small")
        if is_small(self.size):
            self.lines("small").show(small_lines(self.size))
            return
        self.lines("tabs").show([self._tabs(width)])
        self.lines("footer").show([self._footer(width)])
        self._show_progress(width)
        snapshot = self.simtui.snapshot
        summary: str | None
        if snapshot is None:
            summary = self.nothing("reading …")
        elif snapshot.error is not None:
            summary = self.failed(snapshot.error)
        elif self.VIEW not in OF_COMPARISONS and snapshot.is_comparison:
            summary = self.nothing(_NO_TRAINING, "Its similarities are in the map (2); simtui compare makes another.")
        else:
            summary = self.show_data()
        if summary is None:
            return
        self.set_class(not summary, "-empty")
        sentence = [(Span(" "), *each) for each in wrapped(summary, width - 2, 3)]
        self.lines("summary").styles.height = max(len(sentence), 2)
        self.lines("summary").show(sentence)

    def nothing(self, what: str, why: str = "") -> str:
        """Says that there is nothing to show yet, and why; returns the summary for that, an empty one."""
        width = max(self.size.width - 6, 10)
        self.lines("nothing").show((*wrapped(what, width, 3, STRONG), *(wrapped(why, width, 4, DIM) if why else ())))
        return ""

    def failed(self, error: SimtuiError) -> str:
        """Shows an expected failure in the place of the data: where, what is wrong, one action that mends it."""
        width = max(self.size.width - 6, 10)
        self.lines("nothing").show(
            (
                *wrapped(safe(error.where), width, 3, STRONG),
                *wrapped(safe(error.problem), width, 4, ERROR),
                (),
                *wrapped(f"fix: {safe(error.fix)}", width, 4),
            )
        )
        return ""

    def lines(self, name: str) -> Lines:
        """One of the text areas of this view."""
        return self.query_one(f"#{name}", Lines)

    def on_mount(self) -> None:
        """Shows what there is."""
        self.call_after_refresh(self.show)

    def on_screen_resume(self, event: events.ScreenResume) -> None:
        """What changed while another view was in front; styles did not: what changes them applies them at once."""
        event.refresh_styles = False
        self.call_after_refresh(self.show)

    def on_resize(self, event: events.Resize) -> None:
        """Words are wrapped for a width."""
        self.call_after_refresh(self.show)

    def on_click(self, event: events.Click) -> None:
        """A click on a tab opens its view."""
        if isinstance(event.widget, Widget) and event.widget.id == "tabs":
            for view, (start, end) in self._tab_places().items():
                if start <= event.x < end:
                    self.simtui.action_view(view)

    def _tab_titles(self) -> tuple[str, dict[str, str]]:
        """What stands in front, and what is written for each view.

        Its name; a short one where not all names fit beside that of the study; else its number alone, and the name of
        the view in front. The study's own name gives way last: down to `_MIN_NAME_WIDTH`, and never what must stay.
        """
        numbers = {view: i for i, view in enumerate(VIEWS, start=1)}
        name, mark = self.simtui.study_title
        room = self.size.width - min(cell_len(name), _MIN_NAME_WIDTH) - cell_len(mark) - _AROUND_NAME
        for start, names, padding in (
            (_TABS_START, VIEWS, " "),
            (_SHORT_START, VIEWS, ""),
            (_SHORT_START, SHORT_VIEWS, ""),
        ):
            titles = {view: f" {i} {names[view]}{padding}" for view, i in numbers.items()}
            if len(start) + sum(map(len, titles.values())) <= room:
                return start, titles
        return _SHORT_START, {
            view: f" {i} {VIEWS[view]} " if view == self.VIEW else f" {i} " for view, i in numbers.items()
        }

    def _tab_places(self) -> dict[str, tuple[int, int]]:
        start, titles = self._tab_titles()
        places, x = {}, len(start)
        for view, title in titles.items():
            places[view] = (x, x + len(title))
            x += len(title)
        return places

    def _tabs(self, width: int) -> Line:
        start, titles = self._tab_titles()
        spans = [Span(start, STRONG)]
        spans += [Span(title, KEY if view == self.VIEW else DIM) for view, title in titles.items()]
        name, mark = self.simtui.study_title
        room = max(width - line_width(spans) - _AROUND_NAME, 0)
        shown = name if cell_len(name) <= room - len(mark) else fitted(name, max(room - len(mark), 0))
        spans.append(Span(fitted(shown + mark, room + 1, "right"), DIM))
        return tuple(spans)

    def _footer(self, width: int) -> Line:
        """As many entries as fit; help and quit always do."""
        entries = list(footer_of(self.VIEW, self.simtui.actions, self.footer_words()))
        while len(entries) > 2 and sum(cell_len(f"{keys} {word}") + 2 for keys, word in entries) > width:
            entries.pop(-3)
        spans: list[Span] = []
        for keys, word in entries:
            spans += [Span(f" {keys}", ACCENT), Span(f" {word} ", DIM)]
        return tuple(spans)

    def _show_progress(self, width: int) -> None:
        snapshot = self.simtui.snapshot
        spans = progress_line(snapshot.progress if snapshot else None, width)
        self.lines("progress").set_class(bool(spans), "-shown")
        self.lines("progress").show([line(*spans)] if spans else [])
