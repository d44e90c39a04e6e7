"""Shows what `verify` and `clean` find, in a terminal or a log; computes nothing."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from engine.cleaning import Group, free, groups_of, refuse_running
from engine.errors import StudyError
from engine.files import size_of
from engine.integrity import Report, verify
from engine.runs.study_folder import StudyFolder
from simtui.safe_text import safe

_DAMAGED = 3


def report_verify(folder: StudyFolder) -> int:
    """Checks a study, with a bar; returns the exit code."""
    bars = Progress(
        TextColumn("checking"), BarColumn(30), DownloadColumn(), TimeRemainingColumn(), transient=True,
        console=Console(stderr=True),
    )  # fmt: skip
    with bars:
        task = bars.add_task("checking", total=None)
        report = verify(folder, lambda done, total: bars.update(task, completed=done, total=total))
    _print_report(Console(), folder, report)
    return _DAMAGED if report.findings else 0


def report_clean(folder: StudyFolder, also: Sequence[str], *, asks: bool) -> int:
    """Lists what can be freed, asks, frees; returns the exit code.

    Raises:
        StudyError: `also` names a kind that is not there.
        LockedError: the study is running.
    """
    refuse_running(folder)
    groups = groups_of(folder)
    names = {group.name for group in groups}
    for name in also:
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            hint = f'; did you mean "{near[0]}"?' if near else ""
            known = ", ".join(sorted(names)) or "nothing"
            raise StudyError(f'--also "{safe(name)}"', f"there is no such kind here{hint}", f"choose from: {known}")
    chosen = [group for group in groups if group.is_free or group.name in also]
    console = Console()
    if not groups:
        console.print("Nothing can be freed.")
        return 0
    console.print(_groups_table(groups, chosen))
    if not chosen:
        console.print("Nothing is left over; --also KIND frees one of these.")
        return 0
    total = size_of(sum(group.n_bytes for group in chosen))
    if asks and not click.confirm(f"Free {total}?"):
        return 0
    freed = free(folder, {group.name for group in chosen})
    console.print(f"Freed {size_of(freed)}.")
    return 0


def _print_report(console: Console, folder: StudyFolder, report: Report) -> None:
    looked_at = f"{report.n_files} files, {size_of(report.n_bytes)}"
    if not report.findings:
        console.print(Text(f"{looked_at}: all as they were written", style="green"))
        return
    console.print(Text(f"{looked_at}: {len(report.findings)} damaged", style="red"))
    for finding in report.findings:
        path = finding.path
        shown = path.relative_to(folder.path) if path.is_relative_to(folder.path) else path
        console.print(Text(f"{safe(shown)}: {safe(finding.problem)}"), soft_wrap=True)
        console.print(Text(f"  fix: {safe(finding.command)}", style="dim"), soft_wrap=True)


def _groups_table(groups: Sequence[Group], chosen: Collection[Group]) -> Table:
    table = Table(box=None, header_style="dim")
    for name in ("", "what", "files", "size", "what it costs"):
        table.add_column(name, justify="right" if name in ("files", "size") else "left", no_wrap=name in ("", "size"))
    for group in groups:
        is_chosen = group in chosen
        what = Text(group.name, style="bold" if is_chosen else "")
        what.append(f" {group.words}", style="dim")
        mark = Text("✓" if is_chosen else "", style="green")
        table.add_row(mark, what, str(len(group.paths)), size_of(group.n_bytes), Text(group.cost, style="dim"))
    return table
