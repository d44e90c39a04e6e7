"""A study that is being put together: what was chosen -> the text of a study file; starts nothing, needs no torch.

The text goes through the loader of study files, so nothing passes here that `simtui run` would refuse.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import tomli_w

from engine.data.options import DataOptions
from engine.errors import SimtuiError, StudyError
from engine.executor_options import ExecutorSection
from engine.files import as_machine_error, atomic_write, read_small
from engine.finetune.methods import is_method, method_of
from engine.study import (
    AttentionSection,
    FinetuneSection,
    MachineSection,
    MeasureSection,
    OriginSection,
    ProbeSection,
    Study,
    StudySection,
    parse_study,
    plain,
)

_COMMENT_AT = 26


@dataclass(frozen=True)
class DraftBackbone:
    """A backbone that was chosen, and a local file of its weights if one was named."""

    name: str
    weights: str = ""


@dataclass(frozen=True)
class Draft:
    """What was chosen so far. Numbers that are none are kept as they were typed: the loader says what is wrong."""

    name: str
    data: str
    origin: str = ""
    backbones: tuple[DraftBackbone, ...] = ()
    methods: tuple[str, ...] = FinetuneSection.methods
    seeds: int | str = FinetuneSection.seeds
    epochs: int | str = FinetuneSection.epochs
    batch_size: int | str = FinetuneSection.batch_size

    @property
    def n_runs(self) -> int:
        """Backbones × methods × seeds; 0 while the seeds are no number."""
        return len(self.backbones) * len(self.methods) * (self.seeds if isinstance(self.seeds, int) else 0)


@dataclass(frozen=True)
class Place:
    """Where a study goes: the file in the folder, and the study's own folder as `simtui run FILE` makes it."""

    file_path: Path
    study_path: Path


def place_of(folder: Path, name: str) -> Place:
    """Where the study of this name goes.

    Raises:
        StudyError: no file can have this name.
    """
    if not name or name in (".", "..") or not name.isprintable() or re.search(r"[/\\\0]", name) or name[0] in ".-":
        raise StudyError("name", f'"{name}" cannot be the name of a folder', "give letters, digits, - and _")
    return Place(folder / f"{name}.toml", folder / "studies" / name)


def check(draft: Draft) -> None:
    """Refuses a draft that lacks what no default can stand for.

    Raises:
        StudyError: the first thing that is missing.
    """
    if not draft.data:
        raise StudyError("images", "no folder yet", "give the folder of your labelled images")
    if not draft.backbones:
        raise StudyError("backbones", "none chosen yet", "choose at least one with space")
    if not draft.methods:
        raise StudyError("methods", "none chosen", "choose at least one with space")


def draft_study(draft: Draft, place: Place) -> Study:
    """The study that the text stands for.

    Raises:
        StudyError: something is missing, or the loader of study files refuses it.
    """
    check(draft)
    return parse_study(draft_text(draft).encode(), place.file_path)


def draft_text(draft: Draft) -> str:
    """The study file: what was chosen, and every other setting as a comment that shows its default.

    Raises:
        StudyError: a path is not UTF-8, so TOML cannot hold it.
    """
    groups = [
        _section("study", [("name", draft.name)], [("keep", StudySection.keep, '"all", "ends" or "none"')]),
        _section("data", [("path", draft.data)], _DATA_DEFAULTS),
        _section("probe", [], _PROBE_DEFAULTS),
        _section("attention", [], [("n", AttentionSection.n, "images with attention maps")]),
        _section("origin", [("path", draft.origin)], _ORIGIN_DEFAULTS) if draft.origin else _NO_ORIGIN,
        *(
            ["[[backbone]]", *_given([("name", each.name), *([("weights", each.weights)] if each.weights else [])])]
            for each in draft.backbones
        ),
        _section(
            "finetune",
            [
                ("methods", draft.methods),
                ("seeds", draft.seeds),
                ("epochs", draft.epochs),
                ("batch_size", draft.batch_size),
            ],
            [("learning_rate", _learning_rates(draft.methods), ""), *_FINETUNE_DEFAULTS],
        ),
        *_method_sections(draft.methods),
        _section("measure", [("similarity", _SIMILARITY)], _MEASURE_DEFAULTS),
        _section("machine", [], [("device", MachineSection.device, ""), ("cache_gb", MachineSection.cache_gb, "")]),
        _section("executor", [], _EXECUTOR_DEFAULTS),
    ]
    text = "\n\n".join("\n".join(lines) for lines in [_HEAD, *groups]) + "\n"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        paths = (draft.data, draft.origin, *(each.weights for each in draft.backbones))
        where = next((path for path in paths if re.search("[\ud800-\udfff]", path)), "study file")
        raise StudyError(where, "is not UTF-8, which a study file must be", "rename the folder") from error
    return text


def write_draft(draft: Draft, place: Place) -> None:
    """Writes the study file; one that is there already must say the same.

    Raises:
        StudyError: another file has this name.
        MachineError: it cannot be written.
    """
    text = draft_text(draft).encode()
    refuse_other_file(place.file_path, text)
    atomic_write(place.file_path, text)


def refuse_other_file(path: Path, content: bytes) -> None:
    """Refuses a name under which something else lies.

    Raises:
        StudyError: it is not this content.
        MachineError: it cannot be read.
    """
    try:
        if not os.path.lexists(path):
            return
        is_same = path.is_file() and read_small(path) == content
    except OSError as error:
        raise as_machine_error(error, path) from error
    if not is_same:
        raise StudyError(str(path), "is there already and says something else", "give the study another name")


def problem_of(draft: Draft, place: Place) -> SimtuiError | None:
    """Why this draft cannot be written; None where it can."""
    try:
        draft_study(draft, place)
        refuse_other_file(place.file_path, draft_text(draft).encode())
    except SimtuiError as error:
        return error
    return None


_HEAD = [
    "# A study for simtui. Lines with # show defaults:",
    "# remove the # to change one; see the README.",
]
_Default = tuple[str, object, str]
_DATA_DEFAULTS: list[_Default] = [
    ("max_skipped", DataOptions.max_skipped, "share of bad images allowed"),
]
_PROBE_DEFAULTS: list[_Default] = [
    ("n", ProbeSection.n, "test images compared"),
    ("origin_n", ProbeSection.origin_n, "origin images compared"),
]
_ORIGIN_DEFAULTS: list[_Default] = [("n", OriginSection.n, "images of it, at most")]
_NO_ORIGIN = ["# [origin]", '# path = "FOLDER"         # the pre-training domain']
_FINETUNE_DEFAULTS: list[_Default] = [
    ("weight_decay", FinetuneSection.weight_decay, ""),
    ("warmup_epochs", FinetuneSection.warmup_epochs, ""),
    ("layer_decay", FinetuneSection.layer_decay, ""),
    ("gradient_clip", FinetuneSection.gradient_clip, ""),
    ("flips", FinetuneSection.flips, '"none", "horizontal", "both"'),
    ("rotation", FinetuneSection.rotation, "degrees to either side"),
    ("colour", FinetuneSection.colour, "largest relative change"),
    ("class_weights", FinetuneSection.class_weights, 'or "balanced"'),
    ("sampling", FinetuneSection.sampling, 'or "balanced"'),
    ("precision", FinetuneSection.precision, ""),
]
# The first is what the app shows first: where images are few, biased CKA is high for any two models.
_SIMILARITY = ("debiased_cka", "linear_cka")
_MEASURE_DEFAULTS: list[_Default] = [
    ("quality", MeasureSection.quality, ""),
]
_EXECUTOR_DEFAULTS: list[_Default] = [
    ("kind", ExecutorSection.kind, '"local", "ray" or "slurm"'),
    ("gpus", ExecutorSection.gpus, "of a run; not for local"),
    ("cpus", ExecutorSection.cpus, "of a run; not for local"),
    ("max_retries", ExecutorSection.max_retries, "after its node was lost"),
    ("partition", ExecutorSection.partition, "of slurm"),
    ("time", ExecutorSection.time, "minutes, of slurm"),
]


def _learning_rates(methods: Sequence[str]) -> dict[str, float]:
    """The defaults of the chosen methods that train."""
    known = [method_of(name) for name in methods if is_method(name)]
    return {method.name: method.learning_rate for method in known if method.learning_rate}


def _method_sections(methods: Sequence[str]) -> Iterator[list[str]]:
    """A section for each chosen method that has settings, with those that have a default."""
    for name in methods:
        settings = method_of(name).settings if is_method(name) else None
        if settings:
            values = plain(settings())
            yield _section(f"method.{name}", [], [(each, value, "") for each, value in values.items()])


def _section(name: str, given: Sequence[tuple[str, object]], defaults: Sequence[_Default]) -> list[str]:
    """A section with what was chosen; one in which nothing was is a comment as a whole."""
    return [f"[{name}]" if given else f"# [{name}]", *_given(given), *_defaults(defaults)]


def _given(settings: Sequence[tuple[str, object]]) -> list[str]:
    return [f"{name} = {_toml(value)}" for name, value in settings]


def _defaults(settings: Sequence[_Default]) -> Iterator[str]:
    for name, value, says in settings:
        setting = f"# {name} = {_toml(value)}"
        yield f"{setting:<{_COMMENT_AT}}# {says}" if says else setting


def _toml(value: object) -> str:
    """A value as TOML on one line; characters that a terminal would obey are written as escapes."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {_toml(each)}" for name, each in value.items()) + " }"
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    text = tomli_w.dumps({"x": value}).removeprefix("x = ").rstrip("\n")
    return "".join(char if char.isprintable() or _is_surrogate(char) else _escape(char) for char in text)


def _is_surrogate(char: str) -> bool:
    return "\ud800" <= char <= "\udfff"


def _escape(char: str) -> str:
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"
