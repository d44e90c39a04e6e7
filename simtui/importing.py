"""Says what checkpoints were found in a folder and what becomes of each, and starts the study; reads no weights."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from engine.errors import StudyError
from engine.foreign.find import FoundTraining, find_trainings
from engine.jobs.imports import ImportRequest, import_study, is_up_to_date, refuse_changed
from engine.jobs.launch import detach_study, make_study_folder, start_study
from engine.jobs.progress import study_progress
from engine.measures.table import MEASURES
from engine.quality.table import QUALITY
from engine.runs.study_folder import StudyFolder
from engine.study import DataSection, MeasureSection, OriginSection, Study
from simtui.dataset_options import options_of
from simtui.safe_text import safe

_MAX_EPOCHS = 12


_READING = ("window", "frame", "follow_links", "max_skipped")


def import_checkpoints(
    directory: Path, images: Path | None, out: Path | None, *, dry_run: bool, waits: bool, asked: Mapping[str, Any]
) -> None:
    """What `simtui import` does; see its help for what is asked.

    Raises:
        StudyError: something that is needed is not said, or is said wrongly.
        SimtuiError: as `find_trainings`, `import_study`, `make_study_folder` and `start_study`.
    """
    found = find_trainings(
        directory,
        follow_links=bool(asked["follow_links"]),
        order=asked["order"],
        counted_from=0 if asked["counted_from"] == "0" else 1,
    )
    place = out or Path("studies") / (directory.resolve().name or "imported")
    if dry_run or images is None:
        for line in found_lines(found):
            click.echo(line)
    if dry_run:
        return
    if images is None:
        problem = "which images are the checkpoints to be looked at with?"
        fix = (
            "add --images PATH: labelled images that the training has not seen; with --no-labels any images, which "
            "leaves out accuracy and calibration"
        )
        raise StudyError("--images", problem, fix)
    if place.resolve().is_relative_to(directory.resolve()):
        raise StudyError(str(place), f"lies in {directory}, where nothing is to be written", "give another --out")
    study = import_study(found, _request(directory, images, asked), place)
    for line in found_lines(found, study):
        click.echo(line)
    folder = make_study_folder(study, place)
    refuse_changed(folder)
    if is_up_to_date(folder):
        click.echo(f"Up to date: {safe(place)} holds every one of these checkpoints.")
        return
    _start(folder, waits)


def _start(folder: StudyFolder, waits: bool) -> None:
    if waits:
        from simtui.follow import follow

        sys.exit(follow(folder, start_study(folder)))
    detach_study(folder)
    if failure := study_progress(folder).failure:
        raise failure.as_error()
    click.echo(f"Started in the background: {safe(folder.path)}")
    click.echo(f"  simtui status {safe(folder.path)}    how far it is")
    click.echo(f"  simtui {safe(folder.path)}           look at it while it runs")


def _request(directory: Path, images: Path, asked: Mapping[str, Any]) -> ImportRequest:
    given = {name: asked[name] for name in _READING}
    path, options = options_of(images, given, is_origin=False)
    origin = None
    if asked["origin"]:
        origin_path, origin_options = options_of(asked["origin"], given, is_origin=True)
        origin = OriginSection(path=str(origin_path.resolve()), **asdict(origin_options))
    name, separator, file = (asked["backbone"] or "").partition("=")
    if separator and not Path(file).expanduser().is_file():
        raise StudyError(f"--backbone {asked['backbone']}", "there is no such file", "give a .safetensors file")
    for flag, table, names in (("--measure", MEASURES, asked["measures"]), ("--quality", QUALITY, asked["quality"])):
        for each in names:
            if each not in table:
                raise StudyError(f"{flag} {each}", "no such name", f"choose of {', '.join(table)}")
    defaults = MeasureSection()
    return ImportRequest(
        directory,
        DataSection(path=str(path.resolve()), **asdict(options)),
        origin,
        name or None,
        Path(file).expanduser() if separator else None,
        asked["input_size"],
        _pixels("--mean", asked["mean"]),
        _pixels("--std", asked["std"]),
        asked["labels"],
        asked["convert"],
        asked["part"],
        asked["n"],
        MeasureSection(asked["measures"] or defaults.similarity, asked["quality"] or defaults.quality),
        asked["keep_all"],
    )


def _pixels(flag: str, text: str | None) -> tuple[float, float, float] | None:
    """Three numbers divided by commas.

    Raises:
        StudyError: anything else; a deviation that is not above 0.
    """
    if text is None:
        return None
    try:
        red, green, blue = (float(part) for part in text.split(","))
    except ValueError as error:
        raise StudyError(f"{flag} {text}", "need three numbers", "write them as in 0.485,0.456,0.406") from error
    least = 0.0 if flag == "--std" else -math.inf
    if not all(math.isfinite(each) and each > least for each in (red, green, blue)):
        raise StudyError(f"{flag} {text}", "need finite numbers, deviations above 0", "correct the numbers")
    return red, green, blue


def found_lines(found: Sequence[FoundTraining], study: Study | None = None) -> Iterator[str]:
    """One paragraph a training: its layout, epochs, seed, backbone and who says it, and what was left aside.

    Args:
        study: that it becomes; says of each training what it is there.
    """
    known = {each.name: each for each in study.imported.training} if study and study.imported else {}
    for training in found:
        pickles = sum(each.kind == "pickle" for each in training.checkpoints)
        kinds = f", {pickles} of them pickles" if pickles else ""
        yield f"{safe(training.name) or '(the folder itself)'}: {safe(training.layout.replace('_', ' '))}"
        yield f"  {len(training.checkpoints)} checkpoints{kinds}: epochs {_epochs(training)}"
        said_by = f" (said by {safe(training.said_by.name)})" if training.said_by else ""
        yield f"  backbone {safe(training.backbone or training.model_said or 'not said')}{said_by}"
        section = known.get(training.name.encode("utf-8", "backslashreplace").decode())
        seed = "not said" if training.seed is None else str(training.seed)
        becomes = f"; becomes {section.method}, seed {section.seed}, of {safe(section.backbone)}" if section else ""
        yield f"  seed {seed}{becomes}"
        yield from (f"  · {safe(note)}" for note in training.notes)


def _epochs(training: FoundTraining) -> str:
    numbers = [
        f"{each.epoch}" if each.epoch_said in (None, each.epoch) else f"{each.epoch} ({each.epoch_said:g})"
        for each in training.checkpoints
    ]
    if len(numbers) <= _MAX_EPOCHS:
        return ", ".join(numbers)
    return f"{', '.join(numbers[: _MAX_EPOCHS - 2])}, …, {numbers[-1]}"
