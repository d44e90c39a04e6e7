"""The one table of actions: key bindings, footer, help, command palette and the README's key table come from it.

An action's name is the method that does it: `action_<name>` of the view's screen, or of the app after `app.`.
"""

from __future__ import annotations

from dataclasses import dataclass

RUNS, MAP, TRAJECTORIES, SPACE = "runs", "map", "trajectories", "space"
DISTRIBUTIONS, CORRELATION, FORGETTING, ATTENTION = "distributions", "correlation", "forgetting", "attention"
LAYERS, PREDICTION = "layers", "prediction"  # parts of the trajectories view and of the space view
VIEWS = {
    RUNS: "Runs", MAP: "Map", TRAJECTORIES: "Trajectories", SPACE: "Space", DISTRIBUTIONS: "Distributions",
    CORRELATION: "Correlation", FORGETTING: "Forgetting", ATTENTION: "Attention",
}  # fmt: skip
# Where the names of all views do not fit beside each other.
SHORT_VIEWS = {
    RUNS: "Runs", MAP: "Map", TRAJECTORIES: "Traj", SPACE: "Space", DISTRIBUTIONS: "Dist", CORRELATION: "Corr",
    FORGETTING: "Forget", ATTENTION: "Attn",
}  # fmt: skip
ALL = tuple(VIEWS)
_SCATTERS = (SPACE, CORRELATION)
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


ACTIONS = (
    Action("open_map", ("enter",), "enter", "map", "map of this run", (RUNS, *_SCATTERS)),
    Action("open_trajectory", ("enter",), "enter", "curves", "trajectory of this layer", (MAP,)),
    Action("move('up')", ("up", "k"), "↑ k", "", "up"),
    Action("move('down')", ("down", "j"), "↓ j", "", "down"),
    Action("move('left')", ("left", "h"), "← h", "", "left", (MAP, *_SCATTERS, ATTENTION)),
    Action("move('right')", ("right", "l"), "→ l", "", "right", (MAP, *_SCATTERS, ATTENTION)),
    Action("move('page_up')", ("pageup",), "page up", "", "a page up", (RUNS, FORGETTING)),
    Action("move('page_down')", ("pagedown",), "page down", "", "a page down", (RUNS, FORGETTING)),
    Action("move('first')", ("home", "g"), "home g", "", "to the first", (RUNS, FORGETTING)),
    Action("move('last')", ("end", "G"), "end G", "", "to the last", (RUNS, FORGETTING)),
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
    Action("app.export", ("e",), "e", "csv", "export the view as CSV"),
    Action("step_image(-1)", ("left_square_bracket",), "[", "", "previous image", (ATTENTION,)),
    Action("step_image(1)", ("right_square_bracket",), "]", "", "next image", (ATTENTION,)),
    Action("open_image", ("i",), "i", "file", "attention on any image file", (ATTENTION,)),
    Action("step_run(1)", ("n",), "n", "next run", "next run", (MAP, ATTENTION)),
    Action("step_run(-1)", ("N",), "N", "", "previous run", (MAP, ATTENTION)),
    *(
        Action(f"app.view('{view}')", (str(i),), str(i), "", f"{title} view")
        for i, (view, title) in enumerate(VIEWS.items(), start=1)
    ),
    Action("app.next_study", ("w",), "w", "", "next of several studies"),
    Action("app.help", ("question_mark",), "?", "help", "this help"),
    Action("app.command_palette", ("ctrl+p",), "ctrl+p", "", "all actions by name"),
    Action("app.quit", ("q",), "q", "quit", "leave"),
)  # fmt: skip

_VIEWS_KEYS = (f"1-{len(VIEWS)}", "views")
# Keys that belong together are one entry at the start of the footer.
FOOTER_GROUPS = {
    RUNS: (("↑↓", "run"), _VIEWS_KEYS),
    MAP: (("↑↓←→", "layer"), ("[ ]", "epoch")),
    TRAJECTORIES: (("↑↓", "layer"), ("[ ]", "epoch")),
    SPACE: (("↑↓←→", "run"), ("[ ]", "η"), ("{ }", "ε")),
    DISTRIBUTIONS: (("↑↓", "group"), _VIEWS_KEYS),
    CORRELATION: (("↑↓←→", "point"),),
    ATTENTION: (("↑↓", "layer"), ("←→", "head"), ("[ ]", "image")),
    FORGETTING: (("↑↓", "row"), _VIEWS_KEYS),
}


def actions_of(view: str) -> tuple[Action, ...]:
    """The actions of a view, in the order of the table."""
    return tuple(action for action in ACTIONS if view in action.views)


def footer_of(view: str) -> tuple[tuple[str, str], ...]:
    """(keys, word) of each entry of a view's footer."""
    return FOOTER_GROUPS[view] + tuple((action.shown, action.footer) for action in actions_of(view) if action.footer)


def key_table_markdown() -> str:
    """The table of keys for the README."""
    rows = ["| key | what it does | where |", "|---|---|---|"]
    for action in ACTIONS:
        where = "everywhere" if action.views == ALL else ", ".join(VIEWS[view] for view in action.views)
        rows.append(f"| `{action.shown}` | {action.says} | {where} |")
    return "\n".join(rows) + "\n"
