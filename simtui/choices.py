"""The options by which a part of a study is chosen, once for every command that has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from engine.analysis.names import TABLE_USES
from engine.errors import StudyError
from engine.measures.table import MEASURES

if TYPE_CHECKING:
    from engine.analysis.options import TableOptions
    from engine.runs.study_folder import StudyFolder

_POOLINGS = click.Choice(["cls", "feat"])
_PROBES = click.Choice(["target", "origin"])
_BY = click.Choice(["backbone and method", "backbone", "method", "paradigm"])
_OVER = click.Choice(["runs", "runs and epochs"])
_OPTIONS: Mapping[str, dict[str, Any]] = {
    "run": {"help": "The run, by its name or a part that fits only one."},
    "epoch": {"type": click.IntRange(0), "help": "The epoch.  [default: the last]"},
    "layer": {"help": "One block, such as blocks.11.  [default: the mean of all; of attention the last]"},
    "pooling": {
        "type": _POOLINGS,
        "help": "CLS token, or mean of the patch tokens or of a map.  [default: cls; feat where a backbone has no CLS]",
    },
    "measure": {"metavar": "NAME", "help": f"{', '.join(MEASURES)}.  [default: the study's first]"},
    "probe": {"type": _PROBES, "default": "target", "help": "Whose images are compared."},
    "by": {"type": _BY, "default": "backbone and method", "help": "How runs are grouped."},
    "eta": {"type": float, "default": 0.8, "help": "Least similarity inside T_X(η, ε)."},
    "epsilon": {"type": float, "default": 0.02, "help": "Most accuracy divergence inside T_X(η, ε)."},
    "reference": {"metavar": "RUN|ACCURACY", "help": "What divergence is from.  [default: each backbone's best run]"},
    "metric": {"metavar": "NAME", "default": "test_ece", "help": "Which quality."},
    "over": {"type": _OVER, "default": "runs", "help": "One point a run at its end, or one an epoch."},
    "width": {"type": click.FloatRange(0, 2, min_open=True), "default": 0.05, "help": "Of intervals of similarity."},
    "min_count": {"type": click.IntRange(1), "default": 3, "help": "Points that an interval needs to have a mean."},
    "until": {"type": click.IntRange(1), "default": 3, "help": "The last epoch to look at."},
    "image": {"help": "An image of the set, by its id or a part of it, or any image file."},
    "head": {"type": click.IntRange(0), "help": "One head.  [default: the mean of all]"},
    "interval": {
        "is_flag": True,
        "help": "Add each cell's 95 % interval over images, and what unrelated layers score.",
    },
    "beside": {"metavar": "RUN", "help": "Add the map of a second run, and the first minus it."},
}


def choices(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Options of a command, in this order; all where none is named."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for name in reversed(names or tuple(_OPTIONS)):
            option = _OPTIONS[name]
            command = click.option(f"--{name.replace('_', '-')}", name, show_default="default" in option, **option)(
                command
            )
        return command

    return add


def complete(chosen: dict[str, Any], study: StudyFolder, *, is_of_run: bool = True) -> TableOptions:
    """What was chosen, with the defaults that are not the same for every study.

    Args:
        is_of_run: whether a run that is named, and one beside it, are all that is looked at.
    """
    from engine.analysis.estimators import pooling_of
    from engine.analysis.options import MEAN_OF_LAYERS, TableOptions

    named = [name for name in (chosen["run"], chosen.get("beside")) if name and is_of_run]
    records = study.listing().records
    looked_at = [each for each in records if any(name in each.run_id for name in named)] if named else records
    chosen = {**chosen, "layer": chosen["layer"] or MEAN_OF_LAYERS}
    return TableOptions(**{**chosen, "pooling": chosen["pooling"] or pooling_of(looked_at)})


def reading_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options by which images are read, whatever their labels."""
    for option in (
        click.option("--max-skipped", type=click.FloatRange(0, 1), help="Share of unusable images.  [default: 0.05]"),
        click.option("--follow-links", is_flag=True, default=None, help="Links may lead out of the folder."),
        click.option("--frame", type=click.IntRange(0), help="Which frame of several."),
        click.option("--window", metavar="LOW,HIGH", help='Black and white of deep images, or "auto".'),
    ):
        command = option(command)
    return command


def refuse_unused(context: click.Context, table: str) -> None:
    """What was asked for and does not change a table must not look as if it had.

    Raises:
        StudyError: names the first such option, and those that the table has.
    """
    given = click.core.ParameterSource.COMMANDLINE
    for name in _OPTIONS:
        if name not in TABLE_USES[table] and context.get_parameter_source(name) is given:
            known = ", ".join(_flag(each) for each in TABLE_USES[table]) or "none"
            raise StudyError(_flag(name), f"does not apply to the table {table}", f"leave it out; it takes {known}")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
