"""The one table of actions: key bindings, footer, help, command palette and the README's key table come from it.

An action's name is the method that does it: `action_<name>` of the view's screen, or of the app after `app.`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

RUNS, MAP, TRAJECTORIES, SPACE = "runs", "map", "trajectories", "space"
DISTRIBUTIONS, CORRELATION, FORGETTING, ATTENTION = "distributions", "correlation", "forgetting", "attention"
JOBS = "jobs"
LAYERS, PREDICTION = "layers", "prediction"  # parts of the trajectories view and of the space view
PINNED = "pinned"  # the second run of the map view
VIEWS = {
    RUNS: "Runs", MAP: "Map", TRAJECTORIES: "Trajectories", SPACE: "Space", DISTRIBUTIONS: "Distributions",
    CORRELATION: "Correlation", FORGETTING: "Forgetting", ATTENTION: "Attention", JOBS: "Jobs",
}  # fmt: skip
# Where the names of all views do not fit beside each other.
SHORT_VIEWS = {
    RUNS: "Runs", MAP: "Map", TRAJECTORIES: "Traj", SPACE: "Space", DISTRIBUTIONS: "Dist", CORRELATION: "Corr",
    FORGETTING: "Forget", ATTENTION: "Attn", JOBS: "Jobs",
}  # fmt: skip
ALL = tuple(VIEWS)
OF_COMPARISONS = (RUNS, MAP)  # the views that have something to say of two checkpoints
_SCATTERS = (SPACE, CORRELATION)
_TABLES = (RUNS, FORGETTING, JOBS)
GROUPED = (SPACE, DISTRIBUTIONS, FORGETTING)  # the views whose groups can be chosen
_ANALYSES = (TRAJECTORIES, SPACE, DISTRIBUTIONS, CORRELATION)


@dataclass(frozen=True)
class Action:
    """One thing a user can do.

    `shown` is how the keys are written for people; `footer` is the word in the footer, empty where it has no place
    there. A view's footer lists its actions in the order of the table, as many as fit.
    """

    name: str
    keys: tuple[str, ...]
    shown: str
    footer: str
    says: str
    views: tuple[str, ...] = ALL

    @property
    def id(self) -> str:
        """What the action is called in a file of keys: `step-epoch-on`, `view-runs`."""
        name, _, argument = self.name.removeprefix("app.").partition("(")
        end = {"1)": "-on", "-1)": "-back"}.get(argument, f"-{argument[1:-2]}" if argument else "")
        return re.sub("_", "-", name + end)


ACTIONS = (
    Action("open_map", ("enter",), "enter", "map", "map of this run", (RUNS, *_SCATTERS, JOBS)),
    Action("open_trajectory", ("enter",), "enter", "curves", "trajectory of this layer", (MAP,)),
    Action("pin", ("c",), "c", "pin", "pin this run; again: unpin", (MAP,)),
    Action("move('up')", ("up", "k"), "↑ k", "", "up"),
    Action("move('down')", ("down", "j"), "↓ j", "", "down"),
    Action("move('left')", ("left", "h"), "← h", "", "left", (MAP, *_SCATTERS, ATTENTION)),
    Action("move('right')", ("right", "l"), "→ l", "", "right", (MAP, *_SCATTERS, ATTENTION)),
    Action("move('page_up')", ("pageup",), "page up", "", "a page up", _TABLES),
    Action("move('page_down')", ("pagedown",), "page down", "", "a page down", _TABLES),
    Action("move('first')", ("home", "g"), "home g", "", "to the first", _TABLES),
    Action("move('last')", ("end", "G"), "end G", "", "to the last", _TABLES),
    Action("filter", ("slash",), "/", "filter", "filter the runs", (RUNS,)),
    Action("clear_filter", ("escape",), "esc", "", "clear the filter", (RUNS,)),
    Action("order(1)", ("o",), "o", "sort", "sort by the next column", (RUNS, FORGETTING)),
    Action("order(-1)", ("O",), "O", "", "sort by the one before", (RUNS, FORGETTING)),
    Action("reverse", ("r",), "r", "", "reverse the order", (RUNS, FORGETTING)),
    Action("average", ("b",), "b", "means", "means over the seeds", (RUNS,)),
    Action("mark", ("space",), "space", "mark", "mark this run, go on", (RUNS,)),
    Action("unmark", ("u",), "u", "", "unmark all runs", (RUNS,)),
    Action("step_epoch(-1)", ("left_square_bracket",), "[", "", "one epoch back", (MAP, TRAJECTORIES)),
    Action("step_epoch(1)", ("right_square_bracket",), "]", "", "one epoch on", (MAP, TRAJECTORIES)),
    Action("step_eta(-1)", ("left_square_bracket",), "[", "", "lower η", (SPACE,)),
    Action("step_eta(1)", ("right_square_bracket",), "]", "", "raise η", (SPACE,)),
    Action("step_epsilon(-1)", ("left_curly_bracket",), "{", "", "lower ε", (SPACE,)),
    Action("step_epsilon(1)", ("right_curly_bracket",), "}", "", "raise ε", (SPACE,)),
    Action("forecast", ("t",), "t", "forecast", "forecast who ends inside", (SPACE,)),
    Action("step_until(-1)", ("less_than_sign",), "<", "", "forecast: fewer epochs", (SPACE,)),
    Action("step_until(1)", ("greater_than_sign",), ">", "", "forecast: more epochs", (SPACE,)),
    Action("overlay", ("v",), "v", "group", "overlay methods, backbones or all", (TRAJECTORIES,)),
    Action("profile", ("d",), "d", "layers", "layer profile", (TRAJECTORIES,)),
    Action("band", ("b",), "b", "band", "sd, 95 % or single runs", (TRAJECTORIES,)),
    Action("step_group(1)", ("n",), "n", "next", "next backbone (or method)", (TRAJECTORIES,)),
    Action("step_group(-1)", ("N",), "N", "", "previous backbone (or method)", (TRAJECTORIES,)),
    Action("metric", ("M",), "M", "metric", "quality metric", (CORRELATION,)),
    Action("over", ("v",), "v", "points", "points: runs or epochs", (CORRELATION,)),
    Action("comparison", ("t",), "t", "tests", "test the differences", (DISTRIBUTIONS,)),
    Action("group", ("b",), "b", "by", "another grouping", GROUPED),
    Action("step_layer(-1)", ("comma",), ",", "", "previous layer", _ANALYSES[1:]),
    Action("step_layer(1)", ("full_stop",), ".", "layer", "next layer", _ANALYSES[1:]),
    Action("pooling", ("p",), "p", "pool", "pooling: CLS or Feat", (MAP, *_ANALYSES, ATTENTION)),
    Action("measure", ("m",), "m", "measure", "similarity measure", (MAP, *_ANALYSES)),
    Action("probe", ("o",), "o", "origin", "target or origin images", (MAP, *_ANALYSES)),
    Action("difference", ("x",), "x", "", "difference to the pinned run", (MAP,)),
    Action("play", ("space",), "space", "play", "play the epochs; again: stop", (MAP,)),
    Action("row_and_column", ("d",), "d", "profile", "row and column of this cell", (MAP,)),
    Action("uncertainty", ("i",), "i", "", "interval and null level of cells", (MAP,)),
    Action("stop", ("x",), "x", "stop", "stop at the next epoch", (JOBS,)),
    Action("stop_now", ("X",), "X", "stop now", "stop at once", (JOBS,)),
    Action("go_on", ("c",), "c", "continue", "start or continue it", (JOBS,)),
    Action("app.export", ("e",), "e", "csv", "export the view as CSV"),
    Action("app.picture", ("s",), "s", "", "save as SVG and PNG"),
    Action("app.copy", ("y",), "y", "", "copy the view's table"),
    Action("step_image(-1)", ("left_square_bracket",), "[", "", "previous image", (ATTENTION,)),
    Action("step_image(1)", ("right_square_bracket",), "]", "", "next image", (ATTENTION,)),
    *(
        Action(f"move_patch('{where}')", (key, f"shift+{where}"), key, "", f"patch {where}", (ATTENTION,))
        for key, where in zip("KJHL", ("up", "down", "left", "right"), strict=True)
    ),
    Action("open_image", ("i",), "i", "file", "attention on any image file", (ATTENTION,)),
    Action("step_run(1)", ("n",), "n", "next run", "next run", (MAP, ATTENTION)),
    Action("step_run(-1)", ("N",), "N", "", "previous run", (MAP, ATTENTION)),
    *(
        Action(f"app.view('{view}')", (str(i),), str(i), "", f"{title} view")
        for i, (view, title) in enumerate(VIEWS.items(), start=1)
    ),
    Action("app.new_study", ("n",), "n", "new", "set up and start a new study", (RUNS,)),
    Action("app.theme", ("T",), "T", "", "another theme"),
    Action("app.next_study", ("w",), "w", "", "next of several studies"),
    Action("app.help", ("question_mark",), "?", "help", "this help"),
    Action("app.command_palette", ("ctrl+p",), "ctrl+p", "", "all actions by name"),
    Action("app.redraw", ("ctrl+l",), "ctrl+l", "", "draw the screen anew"),
    Action("app.quit", ("q",), "q", "quit", "leave"),
)  # fmt: skip

# The actions whose keys are the app's own: they work over whatever lies over a view, too.
OF_APP = ("app.command_palette", "app.redraw")

# Keys that belong together are one entry at the start of the footer: the ids of their actions, and their word.
_VERTICAL, _HORIZONTAL = ("move-up", "move-down"), ("move-left", "move-right")
_VIEW_KEYS = (tuple(f"view-{view}" for view in VIEWS), "views")
_EPOCH = (("step-epoch-back", "step-epoch-on"), "epoch")
FOOTER_GROUPS: dict[str, tuple[tuple[tuple[str, ...], str], ...]] = {
    RUNS: ((_VERTICAL, "run"), _VIEW_KEYS),
    MAP: ((_VERTICAL + _HORIZONTAL, "layer"), _EPOCH),
    TRAJECTORIES: ((_VERTICAL, "layer"), _EPOCH),
    SPACE: (
        (_VERTICAL + _HORIZONTAL, "run"),
        (("step-eta-back", "step-eta-on"), "η"), (("step-epsilon-back", "step-epsilon-on"), "ε"),
    ),
    DISTRIBUTIONS: ((_VERTICAL, "group"), _VIEW_KEYS),
    CORRELATION: ((_VERTICAL + _HORIZONTAL, "point"),),
    ATTENTION: ((_VERTICAL, "layer"), (_HORIZONTAL, "head"), (("step-image-back", "step-image-on"), "image")),
    FORGETTING: ((_VERTICAL, "row"), _VIEW_KEYS),
    JOBS: ((_VERTICAL, "run"), _VIEW_KEYS),
}  # fmt: skip


def actions_of(view: str, actions: Sequence[Action] = ACTIONS) -> tuple[Action, ...]:
    """The actions of a view, in the order of the table; of the table with a user's keys where that is given."""
    return tuple(action for action in actions if view in action.views)


def footer_of(
    view: str, actions: Sequence[Action] = ACTIONS, words: Mapping[str, str] | None = None
) -> tuple[tuple[str, str], ...]:
    """(keys, word) of each entry of a view's footer; `words` by the id of an action that does something else now."""
    there = actions_of(view, actions)
    shown = {action.id: action.shown.split(" ")[0] for action in there}
    groups = tuple(
        (_together([shown[each] for each in ids if each in shown]), word) for ids, word in FOOTER_GROUPS[view]
    )
    now = words or {}
    return groups + tuple((action.shown, now.get(action.id, action.footer)) for action in there if action.footer)


def _together(keys: Sequence[str]) -> str:
    """`↑↓`, `[ ]`, `1-8`: arrows need no space, a long row only its ends."""
    if len(keys) > 4:
        return f"{keys[0]}-{keys[-1]}"
    return ("" if all(key in "↑↓←→" for key in keys) else " ").join(keys)


def key_table_markdown() -> str:
    """The table of keys for the README."""
    rows = ["| key | what it does | where |", "|---|---|---|"]
    for action in ACTIONS:
        where = "everywhere" if action.views == ALL else ", ".join(VIEWS[view] for view in action.views)
        rows.append(f"| `{action.shown}` | {action.says} | {where} |")
    return "\n".join(rows) + "\n"
