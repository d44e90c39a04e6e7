"""Owns the request: study.toml -> a frozen `Study` -> one `RunSpec` a run; knows nothing of models, images or results.

Every setting has its type, its range and its default here and nowhere else.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, field, fields, is_dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tomli_w
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError

from engine.data.options import DataOptions
from engine.errors import DamagedError, StudyError
from engine.executor_options import ExecutorKind, ExecutorSection, problem_of_executor
from engine.files import digest, read_small
from engine.finetune.methods import COMPARED, METHODS, is_imported, is_method, method_of
from engine.finetune.settings import LpFtSettings
from engine.measures.table import MEASURES
from engine.quality.table import QUALITY
from engine.sealed import is_changed, sealed_comment
from engine.study_messages import Sections, explained

_STRICT = ConfigDict(extra="forbid")
_Name = Annotated[str, Field(min_length=1, max_length=80)]
_Count = Annotated[int, Field(ge=1, strict=True)]


def _known_method(name: str) -> str:
    base, colon, _ = name.partition(":")
    if is_method(name):
        return name
    if colon and base in METHODS and METHODS[base].needs:
        example = f'"{base}" is a mixture of one half; name others as in "{base}:0.25", above 0 and below 1'
        raise PydanticCustomError("mixing", "need a mixing value: {example}", {"example": example})
    *others, last = map(repr, METHODS)
    raise PydanticCustomError("literal_error", "{expected}", {"expected": f"{', '.join(others)} or {last}"})


Method = Annotated[str, AfterValidator(_known_method)]
RunMethod = Annotated[
    str, AfterValidator(lambda name: name if name == COMPARED or is_imported(name) else _known_method(name))
]
MAX_IMPORTED_EPOCH = 10_000  # of each epoch there is a row in the results, be it empty
Precision = Literal["auto", "float32", "bfloat16"]
Keep = Literal["all", "ends", "none"]
if TYPE_CHECKING:
    SimilarityName = str
    QualityName = str
else:  # the tables are the one place that knows the names
    SimilarityName = Literal[tuple(MEASURES)]
    QualityName = Literal[tuple(QUALITY)]


@dataclass(frozen=True, config=_STRICT)
class StudySection:
    """What the study is called, and which activation files and checkpoints stay when a run has ended.

    `kind` is set where nothing is ever trained in the folder: it holds a comparison of two checkpoints, or checkpoints
    of the user's own training (`import`), which are then those of `Study.imported`.
    """

    name: _Name
    keep: Keep = "ends"
    kind: Literal["comparison", "import"] | None = None


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class DataSection(DataOptions):
    """The target domain: a folder of labelled images (or an `.npz` file), and how it is to be read."""

    path: str


@dataclass(frozen=True, config=_STRICT)
class ProbeSection:
    """How many test images have their activations compared, and how many of the origin set; 0 for none of those."""

    n: Annotated[int, Field(ge=4, strict=True)] = 2048
    origin_n: Annotated[int, Field(ge=0, strict=True)] = 512


@dataclass(frozen=True, config=_STRICT)
class AttentionSection:
    """How many test images, and how many of the origin set, have their attention maps kept before and after."""

    n: Annotated[int, Field(ge=0, le=1000, strict=True)] = 6


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class OriginSection(DataOptions):
    """The pre-training domain, for forgetting; `n` images of it are used."""

    path: str
    n: Annotated[int, Field(ge=21, strict=True)] = 5000


@dataclass(frozen=True, config=_STRICT)
class BackboneSection:
    """One pre-trained backbone: its name, and where its weights lie if not in the hub cache."""

    name: _Name
    weights: str | None = None
    input_size: Annotated[int, Field(ge=16, le=1024, strict=True)] | None = None


@dataclass(frozen=True, config=_STRICT)
class FinetuneSection:
    """How the backbones are fine-tuned. `learning_rate` is the peak, by method; what is left out keeps its default."""

    methods: Annotated[tuple[Method, ...], Field(min_length=1)] = ("full", "linear", "scratch")
    seeds: Annotated[int, Field(ge=1, le=1000, strict=True)] = 5
    epochs: Annotated[int, Field(ge=1, le=1000, strict=True)] = 20
    batch_size: _Count = 64
    learning_rate: dict[Method, Annotated[float, Field(gt=0, lt=10, strict=True)]] = field(default_factory=dict)
    weight_decay: Annotated[float, Field(ge=0, le=1, strict=True)] = 0.05
    warmup_epochs: Annotated[int, Field(ge=0, strict=True)] = 1
    layer_decay: Annotated[float, Field(gt=0, le=1, strict=True)] = 1.0
    gradient_clip: Annotated[float, Field(gt=0, strict=True)] = 1.0
    flips: Literal["none", "horizontal", "both"] = "horizontal"
    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0
    colour: Annotated[float, Field(ge=0, le=1)] = 0.0
    class_weights: Literal["none", "balanced"] = "none"
    sampling: Literal["shuffle", "balanced"] = "shuffle"
    precision: Precision = "auto"


# The table is the one place that knows which methods have settings.
_METHOD_SETTINGS = {method.name: method.settings for method in METHODS.values() if method.settings}
if TYPE_CHECKING:
    MethodSection = Any
else:
    MethodSection = dataclass(frozen=True, config=_STRICT)(
        type(
            "MethodSection",
            (),
            {
                "__doc__": "The settings of each method that has some.",
                "__annotations__": _METHOD_SETTINGS,
                **{name: settings() for name, settings in _METHOD_SETTINGS.items()},
            },
        )
    )


@dataclass(frozen=True, config=_STRICT)
class MeasureSection:
    """Which similarity measures and quality metrics are computed at every epoch."""

    similarity: Annotated[tuple[SimilarityName, ...], Field(min_length=1)] = ("linear_cka", "debiased_cka")
    quality: tuple[QualityName, ...] = ("ece", "knn")


@dataclass(frozen=True, config=_STRICT)
class MachineSection:
    """How the study uses the machine; changes when results come, not (up to rounding) what they are.

    `cache_gb` bounds the decoded images on disk at one input size; those beyond it are decoded in every epoch.
    `devices_per_run`: GPUs that train one run together, or processes on the CPU; the batch is shared among them.
    """

    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    workers: Annotated[int, Field(ge=1, le=64, strict=True)] | None = None
    cache_gb: Annotated[float, Field(ge=0)] = 64.0
    devices_per_run: Annotated[int, Field(ge=1, le=64, strict=True)] = 1


@dataclass(frozen=True, config=_STRICT)
class CheckpointSection:
    """The weights after an epoch of the user's own training: one file, or its shards.

    `epoch_said` is how the files' names give it, where they do.
    """

    epoch: Annotated[int, Field(ge=0, le=MAX_IMPORTED_EPOCH, strict=True)]
    files: Annotated[tuple[str, ...], Field(min_length=1)]
    kind: Literal["safetensors", "pickle"]
    epoch_said: float | None = None


@dataclass(frozen=True, config=_STRICT)
class TrainingSection:
    """One training of the user's own: what becomes one run. `name` is as it was found, the rest as the run has it.

    `mean` and `std` are those by which the training normalised images, where they are not its backbone's.
    """

    name: str
    backbone: str
    method: RunMethod
    seed: Annotated[int, Field(ge=0, strict=True)]
    checkpoints: Annotated[tuple[CheckpointSection, ...], Field(min_length=1)]
    layout: Literal["timm", "hugging_face", "open_clip", "lightning", "plain"] = "plain"
    class_names: tuple[str, ...] | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None


@dataclass(frozen=True, config=_STRICT)
class ImportSection:
    """Where checkpoints were imported from, and whether the images have labels; `part` as `foreign.fit` takes it."""

    folder: str
    training: Annotated[tuple[TrainingSection, ...], Field(min_length=1)]
    labels: bool = True
    part: str | None = None


@dataclass(frozen=True, config=_STRICT)
class Study:
    """A whole request, resolved: paths are absolute, defaults filled in."""

    study: StudySection
    data: DataSection
    backbone: Annotated[tuple[BackboneSection, ...], Field(min_length=1)]
    probe: ProbeSection = ProbeSection()
    attention: AttentionSection = AttentionSection()
    origin: OriginSection | None = None
    finetune: FinetuneSection = FinetuneSection()
    method: MethodSection = MethodSection()
    measure: MeasureSection = MeasureSection()
    machine: MachineSection = MachineSection()
    executor: ExecutorSection = ExecutorSection()
    imported: ImportSection | None = None


_SECTIONS: Sections = {
    "study": StudySection,
    "data": DataSection,
    "probe": ProbeSection,
    "attention": AttentionSection,
    "origin": OriginSection,
    "backbone": BackboneSection,
    "finetune": FinetuneSection,
    "method": MethodSection,
    **{f"method.{name}": settings for name, settings in _METHOD_SETTINGS.items()},
    "measure": MeasureSection,
    "machine": MachineSection,
    "executor": ExecutorSection,
    "imported": ImportSection,
    "imported.training": TrainingSection,
    "": Study,
}


# At these values a run is what it was before the setting existed, and keeps its name.
_LATER_SETTINGS = {
    "rotation": 0.0, "colour": 0.0, "class_weights": "none", "sampling": "shuffle",
    "origin_probe_n": ProbeSection.origin_n, "attention_n": AttentionSection.n,
}  # fmt: skip


@dataclass(frozen=True, config=_STRICT)
class RunSpec:
    """Everything that decides the result of one run, but for the images and weights that it will find.

    `settings` are those of its own method under `[method]`; none where the method has none. `checkpoints` are the
    epochs of which an imported training has any, in order; () where every epoch is trained.
    """

    study: str
    dataset: str
    backbone: BackboneSection
    method: RunMethod
    seed: int
    epochs: int
    probe_n: int
    origin_n: int | None
    finetune: FinetuneSection
    measure: MeasureSection
    keep: Keep
    origin_probe_n: int = ProbeSection.origin_n
    attention_n: int = AttentionSection.n
    settings: dict[str, Any] = field(default_factory=dict)
    checkpoints: tuple[int, ...] = ()

    @cached_property
    def spec_hash(self) -> str:
        """SHA-256 of the settings of this run; file locations, retention and its sister runs do not count."""
        value = asdict(self)
        value["backbone"].pop("weights")
        if value.pop("checkpoints"):
            value.pop("epochs")  # more checkpoints of a training are more of the same run
        for sister in ("methods", "seeds", "epochs"):
            value["finetune"].pop(sister)
        learning_rates = value["finetune"].pop("learning_rate")
        value["learning_rate"] = learning_rates.get(method_of(self.method).needs or self.method)
        if not self.settings:
            value.pop("settings")
        for other in ("keep", "study", "dataset"):
            value.pop(other)
        for setting, default in _LATER_SETTINGS.items():
            section = value["finetune"] if setting in value["finetune"] else value
            if section[setting] == default:
                section.pop(setting)
        return digest(value)

    @cached_property
    def run_id(self) -> str:
        """A folder name that a person can read and that the settings decide."""
        slug = re.sub(r"[^a-z0-9]+", "-", self.backbone.name.lower()).strip("-")
        # No colon: it parts host and path, or drive and folder, elsewhere.
        return f"{slug[:60]}_{self.method.replace(':', '-')}_seed{self.seed:02d}_{self.spec_hash[:8]}"


def needs_run(spec: RunSpec) -> str | None:
    """The run, of the same study, that must be done before this one can begin; None for nearly all.

    Whoever runs a study goes by this alone: such a run is made from the last weights of the one that it needs.
    """
    needed = method_of(spec.method).needs
    return replace(spec, method=needed, settings={}).run_id if needed else None


def n_probe_epochs(settings: LpFtSettings, epochs: int) -> int:
    """For how many of the epochs `lp_ft` trains the head alone."""
    return settings.probe_epochs or max(1, epochs // 2)


def load_study(path: Path) -> Study:
    """Reads a study file; paths in it are relative to its folder.

    Raises:
        DamagedError: a frozen file has been changed since.
        StudyError: the file is missing, is not TOML, or has an unknown key, a wrong type or a value out of range.
    """
    try:
        content = read_small(path)
    except FileNotFoundError as error:
        raise StudyError(
            str(path), "no such study file", "give the path of a study.toml, or try `simtui demo`"
        ) from error
    except OSError as error:
        raise StudyError(
            str(path), f"cannot be read ({error.strerror})", "check the path and its permissions"
        ) from error
    return parse_study(content, path)


def parse_study(content: bytes, path: Path) -> Study:
    """Reads what a study file holds, or is to hold.

    Args:
        path: where it lies or will lie: paths in it are relative to its folder.
    Raises:
        DamagedError, StudyError: as `load_study`.
    """
    try:
        if is_changed(content):
            raise DamagedError(
                str(path),
                "changed since it was frozen: its digest does not match",
                f"freeze it anew (simtui run STUDY.toml --out {path.parent}), or remove its first line to accept it",
            )
        text = content.decode("utf-8")
        raw = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StudyError(
            path.name, f"not a TOML file ({error})", "mend that line; the README has a complete example"
        ) from error
    try:
        study = TypeAdapter(Study).validate_python(raw)
    except ValidationError as error:
        raise explained(error, text, path, _SECTIONS) from error
    return _checked(_absolute(study, path.resolve().parent), path)


def freeze_study(study: Study) -> str:
    """The study as TOML text that `load_study` reads back to an equal `Study` from any folder, with its digest.

    Raises:
        StudyError: a path is not UTF-8, so TOML cannot hold it.
    """
    value = plain(study)
    # Of methods that are not asked for, only what was said: they may yet be added.
    said = {
        name: section
        for name, section in value["method"].items()
        if name in study.finetune.methods or section != plain(_METHOD_SETTINGS[name]())
    }
    text = tomli_w.dumps({**value, "method": said} if said else {k: v for k, v in value.items() if k != "method"})
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        where = next(path for path in _paths(study) if not _is_utf8(path))
        raise StudyError(where, "is not UTF-8, which a study file must be", "rename the folder") from error
    return sealed_comment(text)


def run_specs(study: Study) -> tuple[RunSpec, ...]:
    """Every run of the study, one seed of everything first, so that early results say the most."""
    if study.study.kind == "comparison":
        return ()
    if study.imported is not None:
        return tuple(_imported_spec(study, training) for training in study.imported.training)
    return tuple(
        _spec(study, backbone, method, seed, study.finetune.epochs, plain(getattr(study.method, method, None)) or {})
        for seed in range(study.finetune.seeds)
        for method in study.finetune.methods
        for backbone in study.backbone
    )


def _imported_spec(study: Study, training: TrainingSection) -> RunSpec:
    assert study.imported is not None
    said = {
        "training": training.name, "class_names": training.class_names, "mean": training.mean, "std": training.std,
        "part": study.imported.part, "labels": study.imported.labels,
    }  # fmt: skip
    epochs = tuple(sorted(each.epoch for each in training.checkpoints))
    backbone = next(each for each in study.backbone if each.name == training.backbone)
    settings = {name: plain(value) for name, value in said.items() if value is not None}
    return _spec(study, backbone, training.method, training.seed, epochs[-1], settings, epochs)


def _spec(
    study: Study,
    backbone: BackboneSection,
    method: str,
    seed: int,
    epochs: int,
    settings: dict[str, Any],
    checkpoints: tuple[int, ...] = (),
) -> RunSpec:
    return RunSpec(
        study=study.study.name,
        dataset=Path(study.data.path).name,
        backbone=backbone,
        method=method,
        seed=seed,
        epochs=epochs,
        probe_n=study.probe.n,
        origin_n=study.origin.n if study.origin else None,
        finetune=study.finetune,
        measure=study.measure,
        keep=study.study.keep,
        origin_probe_n=study.probe.origin_n,
        attention_n=study.attention.n,
        settings=settings,
        checkpoints=checkpoints,
    )


def placed(study: Study, kind: ExecutorKind | None = None, devices_per_run: int | None = None) -> Study:
    """The same study, placed by another executor, or each of its runs trained by another number of devices together.

    Raises:
        StudyError: its settings are not for that.
    """
    executor = replace(study.executor, kind=kind) if kind else study.executor
    n = devices_per_run or study.machine.devices_per_run
    changed = replace(study, executor=executor, machine=replace(study.machine, devices_per_run=n))
    _check_executor(executor, Path("study file"))
    _check_devices(changed, Path("study file"))
    return changed


def plain(value: Any) -> Any:
    """Nested dictionaries and lists without what is unset: TOML has no null."""
    if is_dataclass(value):
        return {each.name: plain(inner) for each in fields(value) if (inner := getattr(value, each.name)) is not None}
    if isinstance(value, tuple):
        return [plain(inner) for inner in value]
    return value


def _paths(study: Study) -> Iterator[str]:
    yield study.data.path
    yield from (study.origin.path,) if study.origin else ()
    yield from (each.weights for each in study.backbone if each.weights)
    for training in study.imported.training if study.imported else ():
        yield training.name
        yield from (file for each in training.checkpoints for file in each.files)


def _is_utf8(path: str) -> bool:
    return not any("\udc80" <= char <= "\udcff" for char in path)


def _absolute(study: Study, folder: Path) -> Study:
    def resolve(path: str) -> str:
        return str(folder / Path(path).expanduser())

    backbones = tuple(replace(each, weights=resolve(each.weights)) if each.weights else each for each in study.backbone)
    origin = replace(study.origin, path=resolve(study.origin.path)) if study.origin else None
    return replace(study, data=replace(study.data, path=resolve(study.data.path)), backbone=backbones, origin=origin)


def _check_probes(study: Study, path: Path) -> None:
    """Every measure needs enough images of both domains."""
    probes = {"probe.n": study.probe.n}
    if study.origin and study.probe.origin_n:
        which = "probe.origin_n" if study.probe.origin_n <= study.origin.n else "origin.n"
        probes[which] = min(study.probe.origin_n, study.origin.n)
    for name in study.measure.similarity:
        measure = MEASURES[name]
        need = max(measure.min_n, measure.options.get("k", 0) + 2)  # k neighbours, and one image that is none
        for which, n in probes.items():
            if n < need:
                raise StudyError(
                    path.name,
                    f'{which} = {n}: need at least {need} images for measure.similarity "{name}"',
                    f"raise {which} or leave the measure out",
                )


def _check_methods(study: Study, path: Path) -> None:
    """What a method needs of the rest of the study."""
    settings, methods = study.finetune, study.finetune.methods
    for name in settings.learning_rate:
        if not method_of(name).learning_rate:
            raise StudyError(path.name, f"finetune.learning_rate.{name}: {name} trains nothing", "remove it")
    for name in methods:
        needed = method_of(name).needs
        if needed and needed not in methods:
            problem = f'finetune.methods: "{name}" is made from the run of "{needed}", which is not among them'
            raise StudyError(path.name, problem, f'add "{needed}" to finetune.methods')
        if needed and study.study.keep == "none":
            problem = f'study.keep = "none": "{name}" is made from the last weights of "{needed}"'
            raise StudyError(path.name, problem, f'set study.keep = "ends", or leave "{name}" out')
    if "lp_ft" in methods:
        n_probe = n_probe_epochs(study.method.lp_ft, settings.epochs)
        if n_probe >= settings.epochs:
            raise StudyError(
                path.name,
                f"method.lp_ft.probe_epochs = {n_probe}: need fewer than finetune.epochs = {settings.epochs}",
                "lower it, or raise finetune.epochs",
            )
    need = MEASURES["debiased_cka"].min_n
    if "cka_penalty" in methods and settings.batch_size < need:
        raise StudyError(
            path.name,
            f'finetune.batch_size = {settings.batch_size}: "cka_penalty" needs at least {need} images in a batch',
            "raise it, or leave the method out",
        )


def _check_executor(executor: ExecutorSection, path: Path) -> None:
    if problem := problem_of_executor(executor):
        raise StudyError(path.name, f"executor.{problem}", "correct or remove the setting")


def _check_devices(study: Study, path: Path) -> None:
    """What shares a batch must be there for each run, and has something to do."""
    n, executor = study.machine.devices_per_run, study.executor
    if n == 1:
        return
    problem, fix = "", "set it to 1"
    if study.imported or not any(method_of(name).is_shareable for name in study.finetune.methods):
        problem = "no run of the study trains a backbone, which is all that devices share"
    elif n > study.finetune.batch_size:
        problem = f"more than finetune.batch_size = {study.finetune.batch_size} images"
        fix = "lower it"
    elif executor.kind != "local" and executor.gpus not in (0, n):
        problem = f"executor.gpus = {executor.gpus:g} is what {executor.kind} gives each run"
        fix = f"set executor.gpus = {n}, or 0 where there are none"
    if problem:
        raise StudyError(path.name, f"machine.devices_per_run = {n}: {problem}", fix)


def _check_imported(study: Study, path: Path) -> None:
    """A folder of imported checkpoints says what they are, and no other does."""
    if (study.study.kind == "import") != (study.imported is not None):
        raise StudyError(path.name, 'study.kind = "import" and [imported] need each other', "use simtui import")
    known = {each.name for each in study.backbone}
    for training in study.imported.training if study.imported else ():
        if training.backbone not in known:
            raise StudyError(path.name, f'"{training.backbone}" is no backbone of the study', "name it in [[backbone]]")
        epochs = [each.epoch for each in training.checkpoints]
        if len(set(epochs)) < len(epochs):
            raise StudyError(path.name, f'"{training.name}" has two checkpoints of one epoch', "leave one out")


def _checked(study: Study, path: Path) -> Study:
    """What no single setting shows."""
    lists: dict[str, Sequence[str]] = {
        "backbone.name": [each.name for each in study.backbone],
        "finetune.methods": study.finetune.methods,
        "measure.similarity": study.measure.similarity,
        "measure.quality": study.measure.quality,
    }
    for name, values in lists.items():
        twice = {value for value in values if values.count(value) > 1}
        if twice:
            raise StudyError(path.name, f'{name}: "{sorted(twice)[0]}" is named twice', "name each once")
    _check_probes(study, path)
    _check_methods(study, path)
    _check_imported(study, path)
    for section, options in (("data", study.data), ("origin", study.origin)):
        window = options.window if options else None
        if isinstance(window, tuple) and not window[0] < window[1]:
            raise StudyError(
                path.name,
                f"{section}.window = {list(window)}: need the low end below the high end",
                "correct the value",
            )
    _check_executor(study.executor, path)
    _check_devices(study, path)
    if study.finetune.warmup_epochs >= study.finetune.epochs > 1:
        raise StudyError(
            path.name,
            f"warmup_epochs = {study.finetune.warmup_epochs}: need fewer than epochs = {study.finetune.epochs}",
            "lower warmup_epochs or raise epochs",
        )
    return study
