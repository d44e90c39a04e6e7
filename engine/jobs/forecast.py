"""How much disk and time a study will take, part by part, from its settings and what is known of images and backbones.

An estimate before anything has run: sizes follow from shapes, times from what was measured on this machine. Needs no
torch.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.backbones.facts import BackboneFacts
from engine.finetune.methods import Method, method_of
from engine.study import Study

# Two states to resume from are kept, and a third is written before the oldest goes.
_N_RESUME_POINTS = 3
# What an HDF5 file holds beside its arrays, for each array; and `run.json`, `history.csv` and the like of a run.
_ARRAY_BYTES = 600
_RUN_BYTES = 10_000
_ITEM_BYTES = 170  # of a manifest, for each image


@dataclass(frozen=True)
class Images:
    """How many images there are, and how fast they were decoded in one process; `decode_per_s` is 0 where unknown."""

    n_train: int
    n_val: int
    n_test: int
    n_classes: int
    n_origin: int = 0
    decode_per_s: float = 0.0

    @property
    def n(self) -> int:
        """Images of the target domain."""
        return self.n_train + self.n_val + self.n_test


@dataclass(frozen=True)
class Speed:
    """What was measured of a backbone on this machine; `compare_s` is the similarity of one epoch on the probe images.

    `n_devices` share the runs; on a CPU all workers together are about as fast as the process that was measured.
    """

    device: str
    precision: str
    train_images_per_s: float
    evaluate_images_per_s: float
    head_images_per_s: float
    compare_s: float
    n_devices: int
    n_workers: int


@dataclass(frozen=True)
class Part:
    """One line of an estimate: what it is, how much, how it comes about."""

    name: str
    amount: float
    how: str


@dataclass(frozen=True)
class Forecast:
    """The estimate. `passing_bytes` are needed while the study runs, and freed at its end.

    `time_s` is None while the speed of a backbone is not known; `not_measured` are the names of those.
    """

    n_runs: int
    disk: tuple[Part, ...]
    passing: Part
    time: tuple[Part, ...]
    not_measured: tuple[str, ...]
    n_devices: int = 1

    @property
    def kept_bytes(self) -> float:
        """What the study takes when it has ended."""
        return sum(part.amount for part in self.disk)

    @property
    def peak_bytes(self) -> float:
        """The most that it takes."""
        return self.kept_bytes + self.passing.amount

    @property
    def time_s(self) -> float | None:
        """From start to end."""
        return None if self.not_measured or not self.time else sum(part.amount for part in self.time)


def free_bytes(path: Path) -> int:
    """Free space of the disk on which a folder lies or would lie."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free


def forecast(
    study: Study,
    images: Images,
    facts: Mapping[str, BackboneFacts],
    speeds: Mapping[str, Speed],
) -> Forecast:
    """The estimate for a study whose backbones are all known.

    Args:
        facts: by the name of the backbone.
        speeds: by the name of the backbone, as far as they were measured.
    """
    known = [facts[each.name] for each in study.backbone]
    missing = tuple(each.name for each in known if each.name not in speeds)
    n_workers = max(1, max((each.n_workers for each in speeds.values()), default=1) // study.machine.devices_per_run)
    disk = (
        _decoded(study, images, known),
        _of_all("checkpoints", f"{_kept_epochs(study)}", known, lambda each: _checkpoint_bytes(study, images, each)),
        _of_all("activations", "of θ* and of what is kept", known, lambda each: _activation_bytes(study, images, each)),
        _of_all("results", "similarity of all epochs, maps", known, lambda each: _result_bytes(study, images, each)),
    )
    resume = max(method.resume if method.trains_backbone else 0.0 for method in _methods(study))
    largest = max(each.n_parameters for each in known) * 4 * resume
    passing = Part(
        "while it runs",
        float(largest * _N_RESUME_POINTS * n_workers),
        f"states to resume from, of {n_workers} {'worker' if n_workers == 1 else 'workers'}",
    )
    if missing:
        return Forecast(len(known) * _n_runs(study), disk, passing, (), missing)
    n_devices = max(speeds[each.name].n_devices for each in known)
    return Forecast(
        len(known) * _n_runs(study), disk, passing, _times(study, images, known, speeds), (), n_devices
    )  # fmt: skip


def n_probe(study: Study, images: Images) -> int:
    """Test images whose activations are compared."""
    return min(study.probe.n, images.n_test)


def _n_runs(study: Study) -> int:
    return len(study.finetune.methods) * study.finetune.seeds


def _n_origin(study: Study, images: Images) -> int:
    return min(study.origin.n, images.n_origin) if study.origin else 0


def _n_origin_probe(study: Study, images: Images) -> int:
    return min(study.probe.origin_n, _n_origin(study, images))


def _methods(study: Study) -> list[Method]:
    return [method_of(name) for name in study.finetune.methods]


def _of_all(name: str, how: str, known: Sequence[BackboneFacts], bytes_of) -> Part:  # type: ignore[no-untyped-def]
    return Part(name, float(sum(bytes_of(each) for each in known)), how)


def _decoded(study: Study, images: Images, known: Sequence[BackboneFacts]) -> Part:
    """Pixels at every input size, those of each domain within the limit of the cache; and the manifests."""
    from engine.data.pixels import cache_bytes  # loads Pillow

    limit = study.machine.cache_gb * 1e9
    sizes = sorted({each.input_size for each in known})
    domains = (images.n, _n_origin(study, images))
    amount = sum(min(cache_bytes(n, size), limit) for size in sizes for n in domains)
    at = ", ".join(map(str, sizes))
    return Part("decoded images", amount + _ITEM_BYTES * (images.n + images.n_origin), f"at {at} pixels")


def _kept_epochs(study: Study) -> str:
    return {"all": "of all epochs", "ends": "of the last epoch; of a random start", "none": "none kept"}[
        study.study.keep
    ]


def _n_kept(study: Study, method: Method) -> int:
    """Epochs whose weights and activations stay; the pre-trained model's own are not written again."""
    first = 0 if method.starts_pretrained else 1
    return {"all": study.finetune.epochs + first, "ends": 1 + first, "none": 0}[study.study.keep]


def _checkpoint_bytes(study: Study, images: Images, each: BackboneFacts) -> int:
    head = 4 * (each.n_features + 1) * images.n_classes
    model = 4 * each.n_parameters
    a_seed = sum(_n_kept(study, m) * (head + (model if m.trains_backbone else 0)) for m in _methods(study))
    return study.finetune.seeds * a_seed


def _activation_bytes(study: Study, images: Images, each: BackboneFacts) -> int:
    probes = [n for n in (n_probe(study, images), _n_origin_probe(study, images)) if n]
    n_arrays = each.n_blocks * each.n_poolings
    an_image = 2 * each.n_values * each.n_poolings + 4 * each.n_features  # layers in float16, the embedding in float32
    one = sum(n * an_image + n_arrays * _ARRAY_BYTES for n in probes)
    reference = one + 4 * (images.n + _n_origin(study, images)) * each.n_features
    n_kept = sum(_n_kept(study, method) for method in _methods(study) if method.trains_backbone)
    return reference + study.finetune.seeds * n_kept * one


def _result_bytes(study: Study, images: Images, each: BackboneFacts) -> int:
    n_domains = 1 + bool(_n_origin_probe(study, images))
    n_maps = study.attention.n * n_domains
    heads = each.n_blocks * each.n_heads * each.n_poolings
    maps = n_maps * heads * (2 * each.n_patches + 8)
    pixels = n_maps * each.input_size**2 * 3 if each.n_heads else 0
    n_matrices = len(study.measure.similarity) * each.n_poolings * n_domains
    similarity = n_matrices * ((study.finetune.epochs + 1) * 4 * each.n_blocks**2 + _ARRAY_BYTES)
    quality = 40 * (_ARRAY_BYTES + 8 * study.finetune.epochs)
    n_with_maps = sum(method.trains_backbone for method in _methods(study))
    runs = _n_runs(study) * (_RUN_BYTES + similarity + quality) + study.finetune.seeds * n_with_maps * maps
    return runs + maps + pixels


def _times(
    study: Study, images: Images, known: Sequence[BackboneFacts], speeds: Mapping[str, Speed]
) -> tuple[Part, ...]:
    """Reading and decoding once, a look at each pre-trained model, then the runs of each method."""
    parts = []
    if images.decode_per_s:
        n_sizes = len({each.input_size for each in known})
        n = images.n + _n_origin(study, images)
        parts.append(Part("decoding", n_sizes * n / images.decode_per_s, "once, at the speed seen here"))
    looked_at = images.n + images.n_test + _n_origin(study, images) + _n_origin_probe(study, images)
    looks = sum(looked_at / speeds[each.name].evaluate_images_per_s for each in known)
    parts.append(Part("pre-trained models", looks, "one look at all images, for all runs"))
    for method in _methods(study):
        a_seed = sum(_run_s(study, images, method, speeds[each.name]) for each in known)
        n_at_once = max(1, max(speeds[each.name].n_devices for each in known) // study.machine.devices_per_run)
        how = "a pass over all images an epoch" if method.trains_backbone else "on the features of that look"
        how = f"made from the runs of {method.needs}" if method.needs else how
        n = max(_n_shared_by(study, method, speeds[each.name]) for each in known)
        how += f", were {n} devices {n} times as fast" if n > 1 else ""
        parts.append(Part(method.name, study.finetune.seeds * a_seed / n_at_once, how))
    return tuple(parts)


def _run_s(study: Study, images: Images, method: Method, speed: Speed) -> float:
    """Seconds of one run: training, a look at validation, test and origin images, and the comparison, every epoch."""
    epochs = study.finetune.epochs
    n_domains = 1 + bool(_n_origin_probe(study, images))
    compared = (epochs + 1) * speed.compare_s * n_domains
    if not method.trains_backbone:
        return epochs * images.n_train / speed.head_images_per_s + compared
    seen = images.n_val + images.n_test + _n_origin_probe(study, images)
    # Before training the training images are looked at too; the origin set is, before and after.
    looks = (epochs + 1) * seen + images.n_train + 2 * _n_origin(study, images)
    trained = epochs * images.n_train * method.cost / speed.train_images_per_s
    return (trained + looks / speed.evaluate_images_per_s) / _n_shared_by(study, method, speed) + compared


def _n_shared_by(study: Study, method: Method, speed: Speed) -> int:
    """Devices that train a run together; on a CPU its processes are about as fast as one."""
    return study.machine.devices_per_run if method.is_shareable and speed.n_devices > 1 else 1
