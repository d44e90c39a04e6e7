"""From the trainings that were found in a folder to a study of them; reads no weights, needs no torch.

Runs keep their names as trainings and checkpoints are added: what is in the study already keeps its method and seed.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from engine.backbones.names import parse_name
from engine.errors import StudyError, WeightsError
from engine.finetune.methods import IMPORTED
from engine.foreign.find import FoundTraining
from engine.foreign.identity import content_of, stamps_of
from engine.runs.record import RunRecord, State, remake_run
from engine.runs.study_folder import StudyFolder
from engine.study import (
    MAX_IMPORTED_EPOCH,
    BackboneSection,
    CheckpointSection,
    DataSection,
    FinetuneSection,
    ImportSection,
    MachineSection,
    MeasureSection,
    OriginSection,
    ProbeSection,
    Study,
    StudySection,
    TrainingSection,
    load_study,
    run_specs,
)

_SEED = re.compile(r"(?i)(^|[-_/ .])(seed|run)[-_ ]?\d+(?![0-9])")
_PIXELS = tuple[float, float, float]


@dataclass(frozen=True)
class ImportRequest:
    """What is asked of the checkpoints in a folder; what is None is taken as their files say.

    Attributes:
        backbone: what the training started from, with a local file of its weights where `weights` is given.
        labels: whether the images are labelled; without, nothing is said of accuracy and calibration.
        converts: whether pickles may be opened, in a process that can do nothing else.
        part: which of several networks in a checkpoint, as `foreign.fit.fit_to_backbone` takes it.
    """

    folder: Path
    data: DataSection
    origin: OriginSection | None = None
    backbone: str | None = None
    weights: Path | None = None
    input_size: int | None = None
    mean: _PIXELS | None = None
    std: _PIXELS | None = None
    labels: bool = True
    converts: bool = False
    part: str | None = None
    n: int = ProbeSection.n
    measure: MeasureSection = field(default_factory=MeasureSection)
    keep_all: bool = False
    device: str = "auto"


def import_study(found: Sequence[FoundTraining], request: ImportRequest, out: Path) -> Study:
    """The study that the folder becomes, or goes on as where `out` holds one already.

    Raises:
        StudyError: no file says what the backbone is, trainings of one backbone see images at different sizes, pickles
            are not to be opened, or the study has begun otherwise.
        WeightsError: an epoch is beyond what a study can hold.
    """
    _refuse_pickles(found, request)
    before = _frozen(out)
    known = {each.name: each for each in before.imported.training} if before and before.imported else {}
    measured = _measured(out) if known else defaultdict(set)
    trainings = dict(known)
    for each in found:
        name = each.name.encode("utf-8", "backslashreplace").decode()
        held = known.get(name)
        if held:
            _refuse_other_settings(held, each, request, out)
        checkpoints = {one.epoch: one for one in held.checkpoints if one.epoch in measured[name]} if held else {}
        checkpoints |= {one.epoch: one for one in _checkpoints_of(each)}
        _refuse_renumbered(checkpoints.values(), out)
        method, seed = (held.method, held.seed) if held else _place_of(name, each.seed, found, trainings)
        mean, std = (held.mean, held.std) if held else (request.mean or each.mean, request.std or each.std)
        trainings[name] = TrainingSection(
            name, _backbone_of(each, request), method, seed,
            tuple(checkpoints[epoch] for epoch in sorted(checkpoints)), each.layout, each.class_names, mean, std,
        )  # fmt: skip
    return Study(
        study=StudySection(request.folder.resolve().name[:80] or "imported", "all" if request.keep_all else "ends",
                           "import"),
        data=request.data,
        backbone=_backbones(found, request, before),
        probe=ProbeSection(request.n),
        origin=request.origin,
        finetune=FinetuneSection(precision="float32"),
        measure=request.measure,
        machine=MachineSection(request.device),
        imported=ImportSection(str(request.folder.resolve()), tuple(trainings.values()), request.labels, request.part),
    )  # fmt: skip


def refuse_changed(folder: StudyFolder) -> None:
    """What was measured must still be what the folder holds; files that are gone are of no matter.

    Raises:
        StudyError: names the first checkpoint that has become another since.
    """
    imported = folder.study.imported
    files = {
        (training.name, one.epoch): one.files
        for training in (imported.training if imported else ())
        for one in training.checkpoints
    }
    for record in folder.listing().records:
        for epoch, measured in record.checkpoints.items():
            paths = files.get((str(record.spec.settings.get("training")), int(epoch)), ())
            if paths and all(Path(each).is_file() for each in paths) and stamps_of(paths) != measured.stamp:
                _refuse_other(paths, measured.sha256, folder.run_path(record.run_id))


def is_up_to_date(folder: StudyFolder) -> bool:
    """Whether every checkpoint that the study names is measured."""
    records = {record.run_id: record for record in folder.listing().records}
    return all(_is_done(records.get(spec.run_id), spec.checkpoints) for spec in run_specs(folder.study))


def _is_done(record: RunRecord | None, epochs: Sequence[int]) -> bool:
    return record is not None and record.state is State.DONE and set(map(str, epochs)) <= set(record.checkpoints)


def _refuse_other(paths: Sequence[str], sha256: str, run_path: Path) -> None:
    if content_of(paths) != sha256:
        problem = "is another file than when it was measured"
        raise StudyError(paths[0], problem, f"give another study with --out, or measure anew: {remake_run(run_path)}")


def _refuse_pickles(found: Sequence[FoundTraining], request: ImportRequest) -> None:
    pickles = [one.files[0] for each in found for one in each.checkpoints if one.kind == "pickle"]
    if pickles and not request.converts:
        problem = (
            f"{len(pickles)} checkpoints are pickles, first {pickles[0].name}: opening one can run code that is in it"
        )
        fix = "where you trust them add --convert: their tensors are taken in a process of its own; or save safetensors"
        raise StudyError(str(request.folder), problem, fix)


def _measured(out: Path) -> dict[str, set[int]]:
    """The epochs of each training that are measured; of the others the files may still change, go or be renumbered."""
    found: dict[str, set[int]] = defaultdict(set)
    for record in StudyFolder(out).listing().records if (out / "runs").is_dir() else ():
        found[str(record.spec.settings.get("training"))] |= set(map(int, record.checkpoints))
    return found


def _refuse_other_settings(held: TrainingSection, found: FoundTraining, request: ImportRequest, out: Path) -> None:
    """What a training is measured with stays: another θ* or normalisation would be a second run of the same seed."""
    asked = (
        ("--backbone", request.backbone or found.backbone, held.backbone),
        ("--mean", request.mean or found.mean, held.mean),
        ("--std", request.std or found.std, held.std),
    )
    for flag, now, was in asked:
        if now is not None and now != was:
            problem = f"holds {found.name or 'the training'} with {flag} {was or 'of the backbone'}, now it is {now}"
            raise StudyError(str(out), problem, "give another study with --out, or the setting as it was")


def _refuse_renumbered(checkpoints: Iterable[CheckpointSection], out: Path) -> None:
    """A file is of one epoch, also where it is counted or ordered otherwise than when it was imported first."""
    epochs: dict[str, int] = {}
    for each in checkpoints:
        if (known := epochs.setdefault(each.files[0], each.epoch)) != each.epoch:
            problem = f"is epoch {known} and epoch {each.epoch}: {out} holds it under another than is asked for now"
            raise StudyError(each.files[0], problem, f"give another study with --out, or remove {out}")


def _frozen(out: Path) -> Study | None:
    path = out / "study.toml"
    return load_study(path) if path.is_file() else None


def _checkpoints_of(training: FoundTraining) -> list[CheckpointSection]:
    for each in training.checkpoints:
        if each.epoch > MAX_IMPORTED_EPOCH:
            problem = f"epoch {each.epoch}: need at most {MAX_IMPORTED_EPOCH}"
            raise WeightsError(str(each.files[0]), problem, "give --order name to number the checkpoints 1, 2, …")
    return [
        CheckpointSection(each.epoch, tuple(str(file.absolute()) for file in each.files), each.kind, each.epoch_said)
        for each in training.checkpoints
    ]


def _backbone_of(training: FoundTraining, request: ImportRequest) -> str:
    name = request.backbone or training.backbone
    if name is None:
        said = f" (they say {training.model_said!r})" if training.model_said else ""
        problem = f"no file says which pre-trained backbone {training.name or 'the training'} started from{said}"
        fix = "add --backbone NAME, as timm:vit_base_patch16_224.augreg_in21k, or NAME=FILE.safetensors"
        raise StudyError(str(request.folder), problem, fix)
    parse_name(name)
    return name


def _backbones(
    found: Sequence[FoundTraining], request: ImportRequest, before: Study | None
) -> tuple[BackboneSection, ...]:
    sections = {each.name: each for each in before.backbone} if before else {}
    sizes: dict[str, int | None] = {}
    for each in found:
        name, size = _backbone_of(each, request), request.input_size or each.input_size
        if name in sizes and sizes[name] != size:
            problem = f"trainings of {name} saw images at {sizes[name]} and at {size} pixels"
            raise StudyError(str(request.folder), problem, "import them one by one, or say --input-size")
        sizes[name] = size
        weights = str(request.weights.resolve()) if request.weights else None
        held = sections.setdefault(name, BackboneSection(name, weights, size))
        for what, now, was in (("weights", weights, held.weights), ("an input size", size, held.input_size)):
            if now is not None and now != was:
                problem = (
                    f"the study was begun with {what} of {was or 'the backbone itself'} for {name}, now it is {now}"
                )
                raise StudyError(str(request.folder), problem, "give another study with --out, or what it was before")
    return tuple(sections.values())


def _place_of(
    name: str, seed: int | None, found: Sequence[FoundTraining], trainings: dict[str, TrainingSection]
) -> tuple[str, int]:
    """The method and the seed of a training that is new: seeds of one recipe share a method."""
    recipe, held = _recipe(name), list(trainings.values())
    method = next((each.method for each in held if _recipe(each.name) == recipe), None)
    if method is None:
        is_alone = not held and len({_recipe(each.name) for each in found}) == 1
        method = IMPORTED if is_alone else _labelled(recipe, {each.method for each in held})
    taken = {each.seed for each in held if each.method == method}
    free = next(number for number in range(len(taken) + 1) if number not in taken)
    return method, seed if seed is not None and seed not in taken and seed >= 0 else free


def _recipe(name: str) -> str:
    """What trainings that differ in their seed alone have in common."""
    return _SEED.sub("", name).strip("-_/ .")


def _labelled(recipe: str, taken: set[str]) -> str:
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", recipe).strip("-.")[:32] or "top"
    names = (f"{IMPORTED}:{slug}{end}" for end in ("", *(f"-{number}" for number in range(2, 10_000))))
    return next(each for each in names if each not in taken)
