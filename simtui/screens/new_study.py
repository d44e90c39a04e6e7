"""The screen of a new study: fields to fill in, what the study would take, the file that it would be, and its start."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

from textual import events, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.screen import Screen
from textual.timer import Timer
from textual.widgets import Input

from engine.backbones.facts import BackboneFacts, weights_place
from engine.backbones.names import parse_name
from engine.errors import SimtuiError, StudyError
from engine.files import as_machine_error
from engine.finetune.methods import METHODS
from engine.jobs.begin import begin
from engine.jobs.forecast import Speed
from engine.study_draft import write_draft
from simtui.completion import absolute, shown
from simtui.safe_text import fitted, safe
from simtui.screens.asked import Answer, Asked, describe_child, look_child, measure_child
from simtui.screens.over import lay_over
from simtui.screens.study_file import StudyFileScreen
from simtui.screens.view import is_small, small_lines
from simtui.study_form import Dataset, Entry, Form, Look, first_entries
from simtui.views import new_study
from simtui.views.parts import ACCENT, DIM, STRONG, Line, Span, line_width
from simtui.widgets.choices import Choice, Choices
from simtui.widgets.lines import Lines
from simtui.widgets.path_input import PathInput
from simtui.widgets.study_fields import StudyFields

if TYPE_CHECKING:
    from simtui.app import SimtuiApp

_LOOK_AFTER_S = 0.7
_WIDE = 130
_FORM_WIDTH = 80  # of a wide terminal; the file takes the rest
_FOOTER = (
    ("↑↓", "field"), ("tab", "complete, next"), ("space", "choose"), ("t", "measure"), ("esc", "leave")
)  # fmt: skip
_FIELDS = {
    "images": "images", "origin": "origin", "name": "typed_name", "folder": "folder", "seeds": "seeds",
    "epochs": "epochs", "batch": "batch_size",
}  # fmt: skip


class NewStudyScreen(Screen[None]):
    """Fills in a `Form`; what was typed stays for as long as the app is open.

    Args:
        images: what stands in the first field at first.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", show=False),
        Binding("up", "app.focus_previous", show=False),
        Binding("down", "app.focus_next", show=False),
        Binding("t", "measure", show=False),
    ]

    def __init__(self, images: str = "") -> None:
        super().__init__()
        self._form = Form(images=images, entries=first_entries())
        self._asked = Asked(self)
        self._pauses: dict[str, Timer] = {}
        self._said: SimtuiError | None = None
        self._measuring = ""
        self._measured_since_s = 0.0

    @property
    def form(self) -> Form:
        """What is filled in."""
        return self._form

    def compose(self) -> ComposeResult:
        """The fields from top to bottom, the panel about the one that has the keys, the file beside them."""
        yield Lines(id="title")
        with Horizontal(id="new"):
            yield StudyFields(id="form")
            yield Lines(id="file")
        yield Lines(id="footer")
        yield Lines(id="small")

    def on_mount(self) -> None:
        """Puts the keys into the first field."""
        self.query_one("#images", Input).value = self._form.images
        self.query_one("#folder", Input).value = shown(str(Path.cwd()))
        self.query_one("#images").focus()
        self.set_interval(1.0, self._tick)
        self.call_after_refresh(self.show)

    def on_unmount(self) -> None:
        """Ends what is being asked."""
        self._asked.end_all()

    def on_resize(self, event: events.Resize) -> None:
        """Words are wrapped for a width."""
        self.call_after_refresh(self.show)

    def on_descendant_focus(self) -> None:
        """The panel is about what has the keys."""
        self.call_after_refresh(self.show)

    def _tick(self) -> None:
        if self._measuring or any(look.is_under_way for look in self._form.looks.values()):
            self.show()

    def show(self) -> None:
        """Brings everything up to date with the form."""
        width, height = self.size
        self.set_class(is_small(self.size), "-small")
        if is_small(self.size):
            self._lines("small").show(small_lines(self.size))
            return
        self.set_class(width >= _WIDE, "-wide")
        room = (_FORM_WIDTH if width >= _WIDE else width) - 2
        form = self._form
        right = self._measuring_words() or new_study.runs_words(form)
        self._lines("title").show([(Span(" simtui  New study", STRONG), Span(fitted(right, width - 19, "right"), DIM))])
        for which in ("images", "origin"):
            self._lines(f"{which}-state").show([new_study.look_line(which, form.look(which), room - 10)])
        backbones = self.query_one("#backbones", Choices)
        backbones.show(new_study.backbone_choices(form.entries, room - 10))
        backbones.styles.height = min(len(form.entries), max(3, height - 18))
        self.query_one("#methods", Choices).show(
            [Choice(name, (Span(name),), name in form.methods) for name in METHODS]
        )  # fmt: skip
        self.query_one("#name", Input).placeholder = form.name
        self._show_buttons()
        self._lines("message").show(new_study.message_lines(form, self._said, room))
        self._lines("panel").show(self._panel(room))
        self._lines("file").show(new_study.file_lines(form, width - _FORM_WIDTH - 2) if width >= _WIDE else [])
        self._lines("footer").show([self._footer(width)])

    def _show_buttons(self) -> None:
        is_wide = self.size.width >= 80
        measure = ("Cancel measuring" if is_wide else "Cancel") if self._measuring else "Measure"
        names = {"start": "Start", "write": "Write only" if is_wide else "Write", "measure": measure}
        names["preview"] = "Preview"
        self.query_one("#buttons", Choices).show(
            [Choice(key, (Span(f"[ {name} ]" if is_wide else f"[{name}]"),)) for key, name in names.items()]
        )  # fmt: skip

    def _panel(self, width: int) -> list[Line]:
        """About what has the keys, then what the study takes, if there is room for both."""
        height = max(self._lines("panel").size.height, 4)
        first = self._about_focused(width, height)
        room = height - len(first) - 1 if first else height
        if first and room < 4:
            return first
        takes = new_study.takes_panel(self._form, self._measuring_words(), width, room)
        return [*first, (), *takes] if first else takes

    def _measuring_words(self) -> str:
        since_s = time.monotonic() - self._measured_since_s
        return f"{self._measuring} … {since_s:.0f} s" if self._measuring else ""

    def _about_focused(self, width: int, height: int) -> list[Line]:
        focused = self.focused
        if isinstance(focused, PathInput):
            which = focused.id or ""
            look = self._form.look(which) if which in ("images", "origin") else Look()
            return new_study.look_panel(look, focused.names, width, height)
        if isinstance(focused, Choices) and focused.id == "backbones":
            entry = next((each for each in self._form.entries if each.facts.name == focused.key), None)
            return new_study.backbone_panel(entry, width)
        return []

    def _footer(self, width: int) -> Line:
        spans: list[Span] = []
        for keys, word in _FOOTER:
            if len(keys) == 1 and isinstance(self.focused, Input):  # a letter there is a letter
                continue
            more = [Span(f" {keys}", ACCENT), Span(f" {word} ", DIM)]
            if line_width(spans) + line_width(more) <= width:
                spans += more
        return tuple(spans)

    def _lines(self, name: str) -> Lines:
        return self.query_one(f"#{name}", Lines)

    # --- what is typed and chosen

    def on_input_changed(self, message: Input.Changed) -> None:
        """Takes what was typed; a folder is looked at when the typing has paused."""
        which = message.input.id or ""
        self._said = None
        if field := _FIELDS.get(which):
            self._form = replace(self._form, **{field: message.value})  # type: ignore[arg-type]
        if which in ("images", "origin"):
            self._look_soon(which)
        self.show()

    def on_input_submitted(self, message: Input.Submitted) -> None:
        """Enter goes on; behind the name of another backbone, it adds that."""
        if message.input.id in ("add", "weights") and self.query_one("#add", Input).value.strip():
            self._add()
        else:
            self.focus_next()

    def on_path_input_listed(self, message: PathInput.Listed) -> None:
        """Candidates are shown while a path is typed."""
        self.show()

    def on_choices_moved(self, message: Choices.Moved) -> None:
        """The panel is about what the cursor is on."""
        self.show()

    def on_choices_chosen(self, message: Choices.Chosen) -> None:
        """Chooses, or does what a button says."""
        self._said = None
        if message.choices.id == "backbones":
            self._form = self._form.toggled(message.key)
        elif message.choices.id == "methods":
            self._form = self._form.toggled_method(message.key)
        else:
            getattr(self, f"action_{message.key}")()
        self.show()

    # --- looking at folders

    def _look_soon(self, which: str) -> None:
        if timer := self._pauses.pop(which, None):
            timer.stop()
        self._asked.end(which)
        path = absolute(getattr(self._form, which))
        if path and self._form.look(which).path != path:
            self._pauses[which] = self.set_timer(_LOOK_AFTER_S, partial(self._look, which, path))

    def _look(self, which: str, path: str) -> None:
        if path in ("/", str(Path.home())):  # on the way to a dataset: nobody wants all files of a machine read
            self._take_look(which, Look(path, error=StudyError(path, "is more than a dataset", "go on to its folder")))
            return
        self._take_look(which, Look(path, time.monotonic()))
        self._asked.ask(which, look_child(path, is_origin=which == "origin"), partial(self._looked, which, path))

    def _looked(self, which: str, path: str, answer: Answer) -> None:
        if isinstance(answer, SimtuiError):
            self._take_look(which, Look(path, error=answer))
        else:
            self._take_look(which, Look(path, dataset=Dataset.of(answer)))

    def _take_look(self, which: str, look: Look) -> None:
        self._form = replace(self._form, looks={**self._form.looks, which: look})
        self.show()

    # --- other backbones

    def _add(self) -> None:
        """Asks the libraries whether there is such a backbone, and whether the weights are its own."""
        name = self.query_one("#add", Input).value.strip()
        weights = absolute(self.query_one("#weights", Input).value)
        try:
            parse_name(name)
        except StudyError as error:
            self._say(error)
            return
        self._said = None
        self.query_one("#add", Input).disabled = True
        self._asked.ask("add", describe_child(name, weights), partial(self._added, weights))

    def _added(self, weights: str, answer: Answer) -> None:
        add = self.query_one("#add", Input)
        add.disabled = False
        if isinstance(answer, SimtuiError):
            self._say(answer)
            add.focus()
            return
        facts = BackboneFacts.of(answer)
        place = weights_place(facts, Path(weights) if weights else None)
        self._form = self._form.with_entry(Entry(facts, place, True, weights))
        add.value = self.query_one("#weights", Input).value = ""
        add.focus()
        self.show()

    # --- measuring

    def action_measure(self) -> None:
        """Measures the chosen backbones one after another; a second time, it stops."""
        if self._measuring:
            self._asked.end("measure")
            self._measuring = ""
            self.show()
            return
        n_probe = self._form.n_probe()
        if not n_probe:
            self._say(
                self._form.start_problem() or StudyError("images", "none to measure for", "give the images first")
            )
            return
        self._measure_next(n_probe)

    def _measure_next(self, n_probe: int) -> None:
        names = [each.facts.name for each in self._form.chosen]
        missing = [name for name in names if (name, n_probe) not in self._form.speeds]
        if not missing:
            self._measuring = ""
            self.show()
            return
        name = missing[0]
        place = f"{names.index(name) + 1} of {len(names)}"
        self._measuring, self._measured_since_s = f"measuring {safe(name)} ({place})", time.monotonic()
        self._asked.ask("measure", measure_child(name, n_probe), partial(self._measured, name, n_probe))
        self.show()

    def _measured(self, name: str, n_probe: int, answer: Answer) -> None:
        if not self._measuring:
            return
        if isinstance(answer, SimtuiError):
            self._measuring = ""
            self._say(answer)
            return
        answer.pop("input_size")
        self._form = replace(self._form, speeds={**self._form.speeds, (name, n_probe): Speed(**answer)})
        self._measure_next(n_probe)

    def _say(self, error: SimtuiError) -> None:
        self._said = error
        self.show()

    # --- the end

    def action_leave(self) -> None:
        """Back to the views; what was filled in stays."""
        if self.app.screen is self:  # not a second time, before the first has closed it
            self.app.pop_screen()

    def action_preview(self) -> None:
        """The whole study file, to scroll through."""
        lay_over(self, StudyFileScreen(new_study.file_lines(self._form, min(self.size.width, 90) - 4)))

    def action_write(self) -> None:
        """Writes the study file and starts nothing."""
        if error := self._form.problem():
            self._say(error)
        else:
            self._finish(starts=False)

    def action_start(self) -> None:
        """Writes the study file and starts the study, away from this terminal."""
        if error := self._form.start_problem():
            self._say(error)
        else:
            self._finish(starts=True)

    @work(thread=True, exclusive=True, group="finish")
    def _finish(self, *, starts: bool) -> None:
        """On a thread of its own: the disk and the new process take their time."""
        draft, place = self._form.draft(), self._form.place()
        said: SimtuiError | None = None
        try:
            if starts:
                begin(draft, place)
            else:
                write_draft(draft, place)
        except SimtuiError as error:
            said = error
        except OSError as error:
            said = as_machine_error(error, place.file_path)
        if not self.is_attached:
            return
        if said is not None:
            self.app.call_from_thread(self._say, said)
        elif starts:
            self.app.call_from_thread(cast("SimtuiApp", self.app).open_study, place.study_path)
        else:
            words = f"wrote {safe(place.file_path)}\nstart it with: simtui run {safe(place.file_path)}"
            self.app.call_from_thread(partial(self.notify, words, timeout=15, markup=False))
