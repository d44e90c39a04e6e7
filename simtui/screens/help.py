"""The help: what the view shows, in words, and its keys, from the table of actions."""

from __future__ import annotations

from collections.abc import Sequence

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import VerticalScroll

from simtui.actions import (
    ACTIONS,
    ALL,
    ATTENTION,
    CORRELATION,
    DISTRIBUTIONS,
    FORGETTING,
    JOBS,
    MAP,
    RUNS,
    SPACE,
    TRAJECTORIES,
    VIEWS,
    Action,
    actions_of,
)  # fmt: skip
from simtui.safe_text import fitted
from simtui.screens.over import OverScreen
from simtui.views import attention, correlation, curves, distributions, forgetting, jobs, layer_map, runs, space
from simtui.views.parts import ACCENT, DIM, STRONG, Line, Span, wrapped
from simtui.widgets.lines import Lines

EXPLANATIONS = {
    RUNS: runs.EXPLANATION,
    MAP: layer_map.EXPLANATION,
    TRAJECTORIES: curves.EXPLANATION,
    SPACE: space.EXPLANATION,
    DISTRIBUTIONS: distributions.EXPLANATION,
    CORRELATION: correlation.EXPLANATION,
    FORGETTING: forgetting.EXPLANATION,
    ATTENTION: attention.EXPLANATION,
    JOBS: jobs.EXPLANATION,
}
_WIDTH, _MARGINS = 72, 6


class HelpScreen(OverScreen[None]):
    """Lies over a view until one of its keys is pressed; what does not fit is scrolled to."""

    BINDINGS = [  # noqa: RUF012
        Binding("escape,question_mark,q,enter,space", "dismiss", "close", show=False),
        Binding("k", "scroll(-1)", "up", show=False),
        Binding("j", "scroll(1)", "down", show=False),
    ]

    def __init__(self, view: str, actions: Sequence[Action] = ACTIONS) -> None:
        super().__init__()
        self._view, self._actions = view, actions

    def compose(self) -> ComposeResult:
        """One panel."""
        with VerticalScroll(id="help-panel"):
            yield Lines(id="help")

    def on_resize(self, event: events.Resize) -> None:
        """Fills the panel as wide as it is."""
        lines = help_lines(self._view, self._actions, min(self.size.width - _MARGINS, _WIDTH))
        text = self.query_one(Lines)
        text.styles.height = len(lines)
        text.show(lines)
        self.query_one(VerticalScroll).focus()

    def action_scroll(self, step: int) -> None:
        """One line up or down."""
        self.query_one(VerticalScroll).scroll_relative(y=step, animate=False)


def help_lines(view: str, actions: Sequence[Action] = ACTIONS, width: int = _WIDTH) -> tuple[Line, ...]:
    """What the view shows, then its own keys, then those that work everywhere, two columns of them."""
    there = actions_of(view, actions)
    own = [action for action in there if action.views != ALL]
    common = [action for action in there if action.views == ALL and not action.name.startswith("app.view")]
    common.insert(0, Action("", (), f"1-{len(VIEWS)}", "", "the other views"))
    return (
        (Span(VIEWS[view], STRONG),),
        *wrapped(EXPLANATIONS[view], width, 9),
        (),
        *_columns(own, width),
        (Span("everywhere", DIM),),
        *_columns(common, width),
        (),
        (Span("? or esc closes, ↑↓ scroll", DIM),),
    )


def _columns(actions: list[Action], width: int) -> list[Line]:
    """Long descriptions take a line of their own; short ones share it with the next."""
    half = width // 2
    lines: list[Line] = []
    waiting: tuple[Span, ...] = ()
    for action in actions:
        spans = (Span(f"{action.shown:>9}  ", ACCENT), Span(action.says))
        is_short = len(action.says) + 11 < half
        if is_short and not waiting:
            waiting = (spans[0], Span(fitted(action.says, half - 11)))
            continue
        if is_short:
            lines.append((*waiting, *spans))
        else:
            lines += [waiting, spans] if waiting else [spans]
        waiting = ()
    return [*lines, waiting] if waiting else lines
