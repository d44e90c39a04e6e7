"""The help: what the view shows, in words, and its keys, from the table of actions."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.binding import Binding
from textual.screen import ModalScreen

from simtui.actions import (
    ALL,
    ATTENTION,
    CORRELATION,
    DISTRIBUTIONS,
    FORGETTING,
    MAP,
    RUNS,
    SPACE,
    TRAJECTORIES,
    VIEWS,
    Action,
    actions_of,
)  # fmt: skip
from simtui.safe_text import fitted
from simtui.views import attention, correlation, curves, distributions, forgetting, layer_map, runs, space
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
}
_WIDTH = 72


class HelpScreen(ModalScreen[None]):
    """Lies over a view until any of its keys is pressed."""

    BINDINGS = [Binding("escape,question_mark,q,enter,space", "dismiss", "close", show=False)]  # noqa: RUF012

    def __init__(self, view: str) -> None:
        super().__init__()
        self._view = view

    def compose(self) -> ComposeResult:
        """One panel."""
        yield Lines(id="help")

    def on_mount(self) -> None:
        """Fills the panel."""
        lines = help_lines(self._view)
        panel = self.query_one(Lines)
        panel.styles.height = len(lines) + 2
        panel.show(lines)


def help_lines(view: str) -> tuple[Line, ...]:
    """What the view shows, then its own keys, then those that work everywhere, two columns of them."""
    own = [action for action in actions_of(view) if action.views != ALL]
    common = [action for action in actions_of(view) if action.views == ALL and not action.name.startswith("app.view")]
    common.insert(0, Action("", (), f"1-{len(VIEWS)}", "", "the other views"))
    return (
        (Span(VIEWS[view], STRONG),),
        *wrapped(EXPLANATIONS[view], _WIDTH, 6),
        (),
        *_columns(own),
        (Span("everywhere", DIM),),
        *_columns(common),
        (),
        (Span("? or esc closes", DIM),),
    )


def _columns(actions: list[Action]) -> list[Line]:
    """Long descriptions take a line of their own; short ones share it with the next."""
    half = _WIDTH // 2
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
