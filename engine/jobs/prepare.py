"""What comes before the first run: read the images, decode them, look at every pre-trained model once.

Everything is content-addressed, so a second time costs only the look-up.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from engine.activations.extract import Progress
from engine.activations.store import ActivationStore
from engine.backbones.backbone import Backbone
from engine.data.manifest import SPLITS, Item, Manifest, read_manifest, refuse_many_skipped, write_manifest
from engine.data.pixels import CacheOptions, PixelCache, cache_bytes, chosen, pixel_cache, probe_items
from engine.data.read import read_dataset, read_held_out, read_images, read_origin
from engine.errors import DataError, DeviceMemoryError, MachineError
from engine.finetune.evaluate import check_computable
from engine.finetune.inputs import Inputs
from engine.finetune.recipes import check_recipes
from engine.finetune.reference import Reference, load_reference_backbone, take_reference
from engine.finetune.shared_batch import check_shareable
from engine.jobs.machine_load import n_cpus
from engine.jobs.plan import PLAN_FILE, Plan, write_plan
from engine.jobs.stage import Stage, Throttled
from engine.runs.study_folder import StudyFolder
from engine.study import Study, run_specs

_MAX_CPU_WORKERS = 4


class Preparation:
    """Prepares a study, and gives every worker what was prepared."""

    def __init__(self, folder: StudyFolder, *, reports: bool) -> None:
        """`reports`: this process prepares for all, so it says what it does and reads every byte of old caches."""
        self._folder = folder
        self._study = folder.study
        self._stage = Throttled(folder.stage_path) if reports else None
        self._checks = reports

    def prepare(self) -> None:
        """Reads, decodes and extracts what is not there yet; writes the plan last."""
        study = self._study
        self._say("reading the dataset", 0, 0)
        manifest = _read_target(study)
        _refuse_other_images(self._folder, manifest)
        origin = None
        if study.origin:
            self._say("reading the origin set", 0, 0)
            origin = read_origin(Path(study.origin.path), study.origin)
        plan = make_plan(study, self._keep_manifest(manifest), self._keep_manifest(origin) if origin else None)
        device = torch.device(plan.devices[0])
        # Every core: the other workers start only when this is done.
        torch.set_num_threads(n_cpus())
        notes: dict[str, None] = {}  # each once: most are the same for every backbone
        for section in study.backbone:
            try:
                backbone = load_reference_backbone(section, device)
                inputs = self.inputs(plan, backbone.info.input_size)
                reference = self.reference(backbone, inputs)
            except torch.OutOfMemoryError as error:
                raise DeviceMemoryError(
                    section.name,
                    f"{device} is out of memory before any training",
                    "free the device and run the study again",
                ) from error
            if study.imported is None:
                specs = [spec for spec in run_specs(study) if spec.backbone == section]
                check_recipes(specs, backbone)
                if study.machine.devices_per_run > 1:
                    check_shareable(specs, backbone)
            check_computable(reference.probe.pooled, study.measure)
            if reference.origin_probe:
                check_computable(reference.origin_probe.pooled, study.measure, "origin")
            notes |= dict.fromkeys((*_notes(inputs), *reference.notes))
            del backbone
        plan = replace(plan, notes=tuple(notes))
        self._say("running", 0, 0, n_workers=plan.n_workers)
        write_plan(self._folder.path / PLAN_FILE, plan)

    def inputs(self, plan: Plan, input_size: int) -> Inputs:
        """The decoded images at one input size; decodes what is not decoded yet."""
        manifest = read_manifest(self._folder.path / plan.manifest)
        folder = (self._folder.path / plan.manifest).parent
        room = study_room = self._study.machine.cache_gb * 1e9
        splits: dict[str, PixelCache] = {}
        # What is read in every epoch and never shuffled first; the rest is shared by chance among the training images.
        for split in reversed(SPLITS) if self._study.imported is None else ("test",):
            items = manifest.of_split(split)
            splits[split] = self._decode(f"{split} images", manifest, items, input_size, folder, room, max_skipped=1.0)
            room = max(0.0, room - cache_bytes(len(items), input_size))
        _refuse_many_skipped(manifest, splits, self._study.data.max_skipped)
        in_probe = {item.id for item in probe_items(splits["test"].items, self._study.probe.n, len(manifest.classes))}
        rows = np.array([row for row, item in enumerate(splits["test"].items) if item.id in in_probe])
        n_attention = self._study.attention.n
        attention = {"target": _chosen(splits["test"], n_attention, manifest)} if n_attention else {}
        if plan.origin_manifest is None or self._study.origin is None:
            return Inputs(manifest, splits, rows, attention=attention)
        origin = read_manifest(self._folder.path / plan.origin_manifest)
        items = probe_items(origin.items, self._study.origin.n, len(origin.classes))
        origin_folder = (self._folder.path / plan.origin_manifest).parent
        limit = self._study.origin.max_skipped
        cache = self._decode("origin images", origin, items, input_size, origin_folder, study_room, max_skipped=limit)
        n_probe = self._study.probe.origin_n
        if n_attention:
            attention["origin"] = _chosen(cache, n_attention, origin)
        return Inputs(
            manifest, splits, rows, origin, cache, _chosen(cache, n_probe, origin) if n_probe else None, attention
        )

    def reference(self, backbone: Backbone, inputs: Inputs) -> Reference:
        """What θ* makes of the images: from the store, or extracted now."""
        name = backbone.info.name
        store = ActivationStore(self._folder.activations_path)
        return take_reference(backbone, inputs, store, lambda what: self._counter(f"{name}: {what}"))

    def _keep_manifest(self, manifest: Manifest) -> str:
        path = self._folder.probes_path / manifest.digest[:16] / "manifest.json"
        write_manifest(path, manifest)
        return str(path.relative_to(self._folder.path))

    def _decode(
        self,
        what: str,
        manifest: Manifest,
        items: tuple[Item, ...],
        size: int,
        folder: Path,
        max_bytes: float,
        *,
        max_skipped: float,
    ) -> PixelCache:
        options = CacheOptions(
            manifest.decoding, max_bytes, max_skipped, siblings=self._folder.path.parent, checks=self._checks
        )
        progress = self._counter(f"decoding {what}")
        return pixel_cache(manifest.root, items, size, folder, progress=progress, options=options)

    def _counter(self, name: str) -> Progress:
        return lambda done, total: self._say(name, done, total)

    def _say(self, name: str, done: int, total: int, n_workers: int = 1) -> None:
        if self._stage:
            self._stage.write(Stage(name, done, total, n_workers), is_last=total == 0)


def _read_target(study: Study) -> Manifest:
    path = Path(study.data.path)
    if study.imported is None:
        return read_dataset(path, study.data)
    return read_held_out(path, study.data) if study.imported.labels else read_images(path, study.data)


def make_plan(study: Study, manifest: str, origin_manifest: str | None) -> Plan:
    """Finds the devices and shares the machine among workers: one a GPU, or a few on the CPU with threads each.

    Raises:
        MachineError: the study names a device that is not there.
    """
    devices, n = devices_of(study.machine.device), study.machine.devices_per_run
    if study.executor.kind == "local":
        refuse_other_number(devices, n)
    n_workers = study.machine.workers or max(1, n_workers_of(devices) // n)
    precision = precision_of(study.finetune.precision, torch.device(devices[0]))
    threads = max(1, n_cpus() // (n_workers * n))
    return Plan(devices, n_workers, threads, precision, manifest, origin_manifest, devices_per_run=n)


def refuse_other_number(devices: tuple[str, ...], n: int) -> None:
    """All devices are to be shared out evenly among runs; on a CPU, processes of at least one processor each.

    Raises:
        MachineError: there are fewer than a run is to have, or some would be left over.
    """
    where, n_there = f"machine.devices_per_run = {n}", len(devices)
    if devices[0] == "cpu":
        if n > n_cpus():
            problem = f"there is no GPU, and {n_cpus()} {'processor' if n_cpus() == 1 else 'processors'}"
            raise MachineError(where, problem, f"set it to {n_cpus()} or less")
    elif n > n_there:
        problem = f"there {'is 1 GPU' if n_there == 1 else f'are {n_there} GPUs'} to choose from ({', '.join(devices)})"
        raise MachineError(where, problem, f'set it to {n_there} or less, and machine.device to "auto"')
    elif n_there % n:
        fitting = " or ".join(str(each) for each in range(1, n_there + 1) if n_there % each == 0)
        problem = f"leaves {n_there % n} of {n_there} GPUs over"
        raise MachineError(where, problem, f"set it to {fitting}, or choose GPUs with CUDA_VISIBLE_DEVICES")


def devices_of(wanted: str) -> tuple[str, ...]:
    """The devices that this process sees, or the one that is wanted.

    Raises:
        MachineError: the one that is wanted is not there.
    """
    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted.startswith("cuda") and int(wanted.partition(":")[2] or 0) >= n_gpus:
        raise MachineError(
            f'machine.device = "{wanted}"',
            f"this machine has {n_gpus} CUDA devices",
            'set device = "auto", or see "simtui doctor"',
        )
    found = tuple(f"cuda:{i}" for i in range(n_gpus)) or ("cpu",)
    return found if wanted == "auto" else (wanted,)


def n_workers_of(devices: tuple[str, ...]) -> int:
    """How many processes share these devices where the study does not say."""
    if devices[0] != "cpu":
        return len(devices)
    # On a CPU two processes of one thread train small models faster than one of two; memory bounds their number.
    cores = n_cpus()
    return min(_MAX_CPU_WORKERS, max(min(2, cores), cores // 4))


def precision_of(wanted: str, device: torch.device) -> str:
    """bf16 autocast where the device computes it natively: elsewhere it is emulated, and slower."""
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    has_bf16: Callable[[], bool] | None = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return "bfloat16" if has_bf16 and has_bf16() else "float32"


def _chosen(cache: PixelCache, n: int, manifest: Manifest) -> PixelCache:
    """`n` images of a cache, each class by its share; chosen by content."""
    return chosen(cache, probe_items(cache.items, n, len(manifest.classes)))


def _refuse_many_skipped(manifest: Manifest, splits: dict[str, PixelCache], limit: float) -> None:
    """Counts over all splits, and what was left out on reading: a rare split must not decide."""
    skipped = [*manifest.skipped, *(one for cache in splits.values() for one in cache.skipped)]
    refuse_many_skipped(str(manifest.root), skipped, len(manifest.items) + len(manifest.skipped), limit)
    for split, cache in splits.items():
        if not cache.items:
            problem = f"none of the {len(cache.skipped)} images of {split} can be used"
            raise DataError(str(manifest.root), problem, "mend these images")


def _notes(inputs: Inputs) -> tuple[str, ...]:
    """What reading and decoding had to say, of the dataset and of the origin set."""
    found = [*_notes_on(inputs.manifest, list(inputs.splits.values()))]
    if inputs.origin_manifest and inputs.origin:
        found += [f"origin: {note}" for note in _notes_on(inputs.origin_manifest, [inputs.origin])]
    return tuple(found)


def _notes_on(manifest: Manifest, caches: list[PixelCache]) -> Iterator[str]:
    problems: dict[str, list[str]] = {}
    for one in [*manifest.skipped, *(each for cache in caches for each in cache.skipped)]:
        problems.setdefault(re.sub(r"line \d+: ", "", one.problem), []).append(one.path)
    for problem, paths in problems.items():
        first = f"first: {paths[0]}" if len(paths) > 1 else paths[0]
        yield f"{len(paths)} left out: {problem} ({first})"
    yield from manifest.warnings
    yield from dict.fromkeys(warning for cache in caches for warning in cache.warnings)


def _refuse_other_images(folder: StudyFolder, manifest: Manifest) -> None:
    """Results of other images must not be mixed into a study."""
    for record in folder.listing().records:
        was = record.provenance.manifest_digest
        if was and was != manifest.digest:
            raise DataError(
                str(manifest.root),
                "holds other images, labels or splits than when the study began "
                f"(digest {manifest.digest[:12]}, was {was[:12]})",
                "put the images back, or start a new study with --out",
            )
