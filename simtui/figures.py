"""Says which figures of a study were written and which were skipped, and why; draws nothing."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import click

from engine.analysis.options import TableOptions
from engine.figures.write import write_figures
from engine.runs.study_folder import StudyFolder
from simtui.safe_text import safe

_NOTHING_DRAWN = 2


def report_figures(
    folder: StudyFolder, to: Path, options: TableOptions, only: Collection[str] = (),
    formats: Sequence[str] = ("pdf", "png"), dpi: int = 300,
) -> int:  # fmt: skip
    """Writes the figures and tables of a study, one line each; returns the exit code.

    Raises:
        MachineError: matplotlib is not installed, or a file cannot be written.
    """
    is_any = False
    for each in write_figures(folder, to, options, only, formats or ("pdf", "png"), dpi):
        if each.reason is None:
            is_any = True
            click.echo(f"wrote {safe(each.paths[0])}" + "".join(f", {path.suffix}" for path in each.paths[1:]))
        else:
            reason = each.reason
            click.echo(
                f"skipped {each.name}: {safe(reason.where)}: {safe(reason.problem)}; fix: {safe(reason.fix)}", err=True
            )
    return 0 if is_any else _NOTHING_DRAWN
