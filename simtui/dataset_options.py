"""Turns the options of `simtui data`, or a section of a study file, into a path and `DataOptions`; reads no dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from engine.data.options import DataOptions, Window
from engine.errors import StudyError
from engine.study import load_study


def options_of(path: Path, given: Mapping[str, Any], *, is_origin: bool) -> tuple[Path, DataOptions]:
    """The dataset that is meant, and how it is to be read; what is given on the command line comes first.

    Raises:
        StudyError: a study file that is none or has no such section, or a window that is none.
    """
    said = {name: value for name, value in given.items() if value is not None and value != ()}
    if "label" in said:
        said["label"] = said["label"][0] if len(said["label"]) == 1 else tuple(said["label"])
    if "window" in said:
        said["window"] = window_of(said["window"])
    if path.suffix != ".toml":
        return path, DataOptions(**said)
    study = load_study(path)
    section = study.origin if is_origin else study.data
    if section is None:
        raise StudyError(str(path), "has no [origin] section", "leave --origin out, or add the section")
    known = {each.name: getattr(section, each.name) for each in fields(DataOptions)}
    return Path(section.path), DataOptions(**{**known, **said})


def window_of(text: str) -> Window:
    """`auto`, or two numbers divided by a comma.

    Raises:
        StudyError: anything else, or a low end that is not below the high end.
    """
    if text == "auto":
        return "auto"
    try:
        low, high = (float(part) for part in text.strip("[] ").split(","))
    except ValueError as error:
        raise StudyError(f"--window {text}", "is no window", 'give "auto" or two numbers, as in 0,4095') from error
    if not low < high:
        raise StudyError(f"--window {text}", "need the low end below the high end", "give the lower number first")
    return low, high
