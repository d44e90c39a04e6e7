"""Two checkpoints that are compared without a study: what is asked, and what was computed before; needs no torch.

`engine.jobs.compare_child` computes. A comparison is kept in the user's cache as the folder of a study with one run,
under the digest of all that decides it: the weights of both, how they see images, the images and the measures.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from platformdirs import user_cache_path

from engine.backbones.bundled_places import bundled_places
from engine.backbones.names import parse_name
from engine.data.options import DataOptions
from engine.errors import DamagedError, SimtuiError, StudyError, WeightsError
from engine.files import digest
from engine.finetune.methods import method_of
from engine.measures.table import MEASURES
from engine.runs.catalog import file_stamp
from engine.runs.record import RUN_FILE, RunRecord, read_record
from engine.runs.study_folder import StudyFolder
from engine.sealed import read_sealed_json, write_sealed_json

DEFAULT_N = 2048
READING = ("window", "frame", "follow_links", "max_skipped")  # of `DataOptions`, what is not of labels
DEFAULT_MEASURES = ("linear_cka", "debiased_cka")
_PROTOCOL = "comparison of two checkpoints; v1"
_EPOCH_FILE = re.compile(r"epoch-(\d+)\.safetensors")
_SYNTAX = (
    "write NAME, NAME=FILE.safetensors, a run's folder, or a checkpoint in it; NAME as timm:vit_base_patch16_224.…"
)
Stamp = tuple[object, ...]


@dataclass(frozen=True)
class Checkpoint:
    """One of the two models.

    Attributes:
        text: as it was asked for.
        name: of its backbone.
        weights: file of the pre-trained weights, instead of the hub cache.
        input_size: in pixels; None for that of the pre-training.
        trained: the checkpoint of a run, whose weights are put into the backbone.
    """

    text: str
    name: str
    weights: Path | None = None
    input_size: int | None = None
    trained: Path | None = None


@dataclass(frozen=True)
class ComparisonRequest:
    """Two checkpoints, the images on which they are compared, and by which measures; no images: generated ones.

    `reading` says how the images are read: what it says of labels is of no matter.
    """

    first: Checkpoint
    second: Checkpoint
    images: Path | None = None
    n: int = DEFAULT_N
    measures: tuple[str, ...] = DEFAULT_MEASURES
    reading: DataOptions = field(default_factory=DataOptions)


def parse_checkpoint(text: str) -> Checkpoint:
    """Takes what the user wrote for a checkpoint apart, and finds the files that it names.

    Raises:
        StudyError: a backbone's name is malformed or unknown to its grammar, or no run says whose weights a file holds.
        WeightsError: there is no such file.
        DamagedError: the record of the run is damaged.
    """
    name, separator, file = text.partition("=")
    if separator:
        parse_name(name)
        return Checkpoint(text, name, weights=_existing(file))
    path = Path(text).expanduser()
    if path.exists() or path.suffix == ".safetensors" or text.startswith((".", "/", "~")):
        return _of_path(text, path)
    try:
        parse_name(text)
    except StudyError as error:
        raise StudyError(
            error.where.replace("backbone", "checkpoint", 1), error.problem, f"{error.fix}; {_SYNTAX}"
        ) from error
    return Checkpoint(text, text)


def refuse_request(request: ComparisonRequest) -> None:
    """Says what can be told to be wrong before anything is loaded.

    Raises:
        StudyError: a measure is unknown, named twice, or needs more images than are asked for.
    """
    for name in request.measures:
        if name not in MEASURES:
            raise StudyError(f'--measure "{name}"', "no such measure", f"choose one of {', '.join(MEASURES)}")
        if request.measures.count(name) > 1:
            raise StudyError(f'--measure "{name}"', "is named twice", "name each once")
        if request.n < n_needed(name):
            problem = f"--n {request.n}: {MEASURES[name].label} needs {n_needed(name)} images at least"
            raise StudyError(f'--measure "{name}"', problem, f"set --n {n_needed(name)} or more")


def n_needed(measure: str) -> int:
    """The fewest images for a measure: k neighbours, and one image that is none."""
    return max(4, MEASURES[measure].min_n, MEASURES[measure].options.get("k", 0) + 2)


def cache_path() -> Path:
    """Where comparisons, and what they are made from, are kept."""
    return user_cache_path("simtui") / "compare"


def result_path(key: str) -> Path:
    """The folder of a comparison."""
    return cache_path() / "results" / key[:32]


def key_of(models: Sequence[Sequence[object]], images_digest: str, measures: Sequence[str]) -> str:
    """The name of a comparison: all that decides its figures.

    Args:
        models: of each checkpoint what it is and how it sees images, the digest of its weights among it.
    """
    return digest([_PROTOCOL, [list(each) for each in models], images_digest, list(measures)])


def whole_comparison(path: Path) -> StudyFolder | None:
    """A comparison that can be read; None where there is none, or something in it is not what was written."""
    try:
        folder = StudyFolder(path)
        _ = folder.study
        (record,) = folder.listing().records
        folder.results(record.run_id)
    except (SimtuiError, ValueError):
        return None
    return folder if record.is_comparison else None


def known_comparison(request: ComparisonRequest) -> StudyFolder | None:
    """What was computed before for this request, where no file that it was made from has changed since."""
    try:
        hint = read_sealed_json(_hint_path(request), "compare again")
    except DamagedError:
        return None
    if hint.get("stamps") != _plain(stamps_of(request, hint.get("weights", ()))):
        return None
    return whole_comparison(result_path(str(hint.get("key"))))


def remember_comparison(request: ComparisonRequest, weights: Sequence[str], key: str) -> None:
    """Notes what a request led to, so that it need not be asked again; not being able to is no reason to fail.

    Args:
        weights: `weights_source` of both models.
    """
    with contextlib.suppress(SimtuiError, OSError):
        hint = {"stamps": _plain(stamps_of(request, weights)), "weights": list(weights), "key": key}
        write_sealed_json(_hint_path(request), hint)


def stamps_of(request: ComparisonRequest, weights: Sequence[str]) -> list[Stamp]:
    """What changes with any file that a comparison is made from: of the weights, and of everything under the images."""
    found = [_weights_stamp(source) for source in weights]
    for each in (request.first, request.second):
        found.append((str(each.trained), file_stamp(each.trained)) if each.trained else ())
    return [*found, _images_stamp(request.images)]


def last_checkpoint(run_path: Path, record: RunRecord) -> Path | None:
    """The weights after the last epoch of which a run kept any; None where its method trains no backbone.

    Raises:
        StudyError: it kept none.
    """
    if not method_of(record.spec.method).trains_backbone:
        return None
    folder = run_path / "checkpoints"
    kept = sorted(path for path in folder.glob("*.safetensors") if _EPOCH_FILE.fullmatch(path.name))
    if not kept:
        raise StudyError(str(run_path), f"this run ({record.state}) has kept no weights", 'set study.keep = "ends"')
    return kept[-1]


def _of_path(text: str, path: Path) -> Checkpoint:
    run_path = path if path.is_dir() else path.parent.parent
    if not path.exists():
        _existing(text)
    if not (run_path / RUN_FILE).is_file():
        problem = "no run of simtui says which backbone it holds"
        raise StudyError(text, problem, f"write NAME={text}, NAME as timm:vit_base_patch16_224.augreg_in21k")
    record = read_record(run_path)
    if record.is_comparison:
        raise StudyError(text, "is a comparison, not a checkpoint", "name one of the two checkpoints that it compares")
    trained = last_checkpoint(run_path, record) if path.is_dir() else path
    section, provenance = record.spec.backbone, record.provenance
    if trained and not path.is_dir() and not method_of(record.spec.method).trains_backbone:
        trained = None  # a head alone: the backbone is the pre-trained one
    weights = _existing(section.weights) if section.weights and trained is None else None
    size = section.input_size or provenance.input_size or None
    return Checkpoint(text, section.name, weights, size, trained.resolve() if trained else None)


def _existing(file: str) -> Path:
    path = Path(file).expanduser()
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "no such file"
        raise WeightsError(file, problem, "give the path of a .safetensors file")
    return path.resolve()


def _hint_path(request: ComparisonRequest) -> Path:
    models = [
        [str(part) for part in (m.name, m.weights, m.input_size, m.trained)] for m in (request.first, request.second)
    ]
    texts = [request.first.text, request.second.text]
    images = str(request.images.resolve()) if request.images else ""
    reading = [getattr(request.reading, name) for name in READING]
    name = digest([_PROTOCOL, models, texts, images, request.n, list(request.measures), reading])
    return cache_path() / "requests" / f"{name[:32]}.json"


def _weights_stamp(source: str) -> Stamp:
    kind, _, rest = source.partition(":")
    path: Path | None = Path(rest)
    if kind == "hub":
        from huggingface_hub import try_to_load_from_cache

        *_, filename = (named := rest.rpartition("@")[0]).split("/", 2)
        found = try_to_load_from_cache(named.removesuffix(f"/{filename}"), filename)
        path = Path(found) if isinstance(found, str) else None
    elif kind == "bundled":
        path = next((each for each in bundled_places(rest) if each.is_file()), None)
    return (str(path), file_stamp(path) if path else None)


def _images_stamp(path: Path | None) -> Stamp:
    """Of every file under a folder its name and stamp."""
    if path is None:
        return ()
    if not path.is_dir():
        return (str(path), file_stamp(path))
    files = sorted(f"{folder}/{name}" for folder, _, names in os.walk(path) for name in names)
    return (str(path.resolve()), digest([[each, list(file_stamp(each) or ())] for each in files]))


def _plain(stamps: Sequence[Stamp]) -> list[object]:
    """As JSON gives it back."""
    return [[list(part) if isinstance(part, tuple) else part for part in each] for each in stamps]
