"""Studies for tests, written by the engine's own writers, with made-up figures whose answers are known.

The CLS similarity of block i (from 0) to block j at epoch e is `similarity(method, seed, e, i, j)`: 1 on the diagonal
for `linear`, falling with depth and epoch for `full`, and unrelated for `scratch`.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from engine.files import atomic_write, sha256_file
from engine.runs.attention_maps import ATTENTION_FILE, AttentionMaps, write_attention
from engine.runs.record import Provenance, RunRecord, State, read_record, write_record
from engine.runs.results import Results, SimilarityKey, write_results
from engine.study import (
    BackboneSection,
    DataSection,
    FinetuneSection,
    MeasureSection,
    OriginSection,
    RunSpec,
    Study,
    StudySection,
    freeze_study,
    run_specs,
)

PARADIGMS = {
    "bundled:supervised": "supervised",
    "bundled:image-text": "image-text",
    "bundled:self-supervised": "self-supervised",
}


def study_of(
    backbones: tuple[str, ...] = tuple(PARADIGMS), seeds: int = 5, epochs: int = 10, name: str = "sample_study",
    has_origin: bool = True, dataset: str = "dermoscopy", methods: tuple[str, ...] = FinetuneSection.methods,
    measures: tuple[str, ...] = ("linear_cka", "debiased_cka"),
) -> Study:  # fmt: skip
    """A request as a user would write it."""
    return Study(
        study=StudySection(name=name),
        data=DataSection(path=f"/data/{dataset}"),
        backbone=tuple(BackboneSection(name=each) for each in backbones),
        origin=OriginSection(path="/data/scenes", n=500) if has_origin else None,
        finetune=FinetuneSection(methods=methods, seeds=seeds, epochs=epochs),
        measure=MeasureSection(similarity=measures),
    )


def write_study(path: Path, study: Study | None = None, n_layers: int = 6, epochs_done: int | None = None) -> Path:
    """A study folder with every run done, or stopped short at `epochs_done` as running ones would stand."""
    study = study or study_of()
    atomic_write(path / "study.toml", freeze_study(study))
    for spec in run_specs(study):
        write_run(path, spec, n_layers=n_layers, epochs_done=epochs_done)
    return path


def write_run(
    path: Path, spec: RunSpec, n_layers: int = 6, epochs_done: int | None = None, **changes: object
) -> RunRecord:
    """One run with its results up to an epoch; -1 writes no results."""
    done = spec.epochs if epochs_done is None else epochs_done
    results = made_results(spec, n_layers, done + 1) if done >= 0 else None
    record = made_record(spec, results, done, n_layers)
    record = replace(record, **changes)  # type: ignore[arg-type]
    if results is not None:
        write_results(path / "runs" / spec.run_id, results)
    write_record(path / "runs" / spec.run_id, record)
    return record


CNN = "timm:resnet10t.c3_in1k"


def write_mixed_study(path: Path, seeds: int = 3, epochs: int = 4) -> Path:
    """A study of a ViT and of a CNN, which has other layers, fewer of them, and no CLS token."""
    study = study_of(("bundled:supervised", CNN), seeds, epochs, name="mixed")
    write_study(path, study)
    for spec in run_specs(study):
        if spec.backbone.name != CNN:
            continue
        made = made_results(spec, 4, epochs + 1)
        similarity = {key: maps for key, maps in made.similarity.items() if key.pooling == "feat"}
        stages = tuple(f"layer{i + 1}" for i in range(4))
        results = replace(made, layers=stages, similarity=similarity)
        base = made_record(spec, results, epochs, 4)
        provenance = replace(base.provenance, layers=stages, poolings=("feat",), layer_kind="stages")
        write_results(path / "runs" / spec.run_id, results)
        write_record(path / "runs" / spec.run_id, replace(base, provenance=provenance))
    return path


def similarity(method: str, seed: int, epoch: int, i: int, j: int, n_layers: int = 6) -> float:
    """What the test studies hold, in closed form."""
    near = math.exp(-abs(i - j) / (0.45 * n_layers))
    depth = (j + 1) / n_layers
    if method == "linear":
        return near
    if method == "scratch":
        return near * (0.35 - 0.2 * depth) + 0.05 + 0.004 * seed
    return near * (1 - 0.62 * depth**2 * (1 - math.exp(-epoch / 3))) * (1 - 0.01 * seed * (epoch > 0))


def accuracy(method: str, seed: int, epoch: int) -> float:
    """Test accuracy of the test studies."""
    ceiling = {"full": 0.81, "linear": 0.69, "scratch": 0.62}.get(method, 0.76)
    return 0.14 + (ceiling - 0.14) * (1 - math.exp(-epoch / 2)) + 0.008 * (seed - 2) * (epoch > 0)


def origin_knn(method: str, seed: int, epoch: int, last: int) -> float | None:
    """k-NN accuracy on the origin domain; measured at both ends only."""
    if epoch not in (0, last):
        return None
    before = 0.21 if method == "scratch" else 0.64
    drop = {"full": 0.22, "linear": 0.0, "scratch": -0.02}.get(method, 0.12)
    return before - (drop + 0.01 * (seed - 2) * (method == "full")) * (epoch > 0)


def made_results(spec: RunSpec, n_layers: int, n_epochs: int) -> Results:
    """Results in closed form for `n_epochs` epochs, epoch 0 among them."""
    layers = tuple(f"block {i + 1}" for i in range(n_layers))
    results = Results(layers)
    for epoch in range(n_epochs):
        cls = np.array(
            [
                [similarity(spec.method, spec.seed, epoch, i, j, n_layers) for j in range(n_layers)]
                for i in range(n_layers)
            ]
        )
        maps = {
            SimilarityKey("target", pooling, measure): np.clip(
                cls * share - (0.08 if measure == "debiased_cka" else 0), -1, 1
            )
            for pooling, share in (("cls", 1.0), ("feat", 0.9))
            for measure in spec.measure.similarity
        }
        reached = accuracy(spec.method, spec.seed, epoch)
        quality = {
            "test_accuracy": reached,
            "test_balanced_accuracy": reached - 0.05,
            "test_auroc": min(0.5 + reached / 2, 1.0),
            "test_ece": 0.1 - reached / 12,
            "origin_knn": origin_knn(spec.method, spec.seed, epoch, spec.epochs) if spec.origin_n else None,
        }
        results = results.with_epoch(maps, quality)
    return results


def made_record(spec: RunSpec, results: Results | None, epochs_done: int, n_layers: int = 6) -> RunRecord:
    """The record that belongs to the results."""
    base = RunRecord(
        spec.run_id,
        spec,
        provenance=Provenance(
            paradigm=PARADIGMS.get(spec.backbone.name, "unknown"),
            layers=tuple(f"block {i + 1}" for i in range(n_layers)),
            poolings=("cls", "feat"),
            n_features=128,
            n_probe=512,
            dataset_is_synthetic=True,
            origin_is_synthetic=True,
        ),
    )
    if results is None:
        return base
    state = State.DONE if epochs_done == spec.epochs else State.STOPPED
    return base.with_(
        state=state,
        epochs_done=epochs_done,
        first=_figures(results, 0),
        last=_figures(results, epochs_done),
        epoch_seconds=tuple([1.0] * max(epochs_done, 0)),
    )


def _figures(results: Results, epoch: int) -> dict[str, float | None]:
    found: dict[str, float | None] = {
        name: None if np.isnan(values[epoch]) else float(values[epoch]) for name, values in results.quality.items()
    }
    for key, values in results.similarity.items():
        found[f"{key.measure}_{key.pooling}"] = float(np.diagonal(values[epoch]).mean())
    return found


def write_attention_maps(path: Path, seed: int = 0, side: int = 4) -> None:
    """Attention maps for every run of a study folder that is done: θ*'s look at one patch, the runs' at the next."""
    for run_path in sorted((path / "runs").iterdir()):
        record = read_record(run_path)
        key = record.spec.backbone.name.encode().hex().ljust(64, "0")[:64]
        (path / "activations").mkdir(exist_ok=True)
        write_attention(path / "activations" / f"{key}.h5", made_maps(record.provenance.layers, side, at=0))
        files = dict(record.files)
        if record.spec.method != "linear":
            write_attention(run_path / ATTENTION_FILE, made_maps(record.provenance.layers, side, at=1, pixels=False))
            files[ATTENTION_FILE] = sha256_file(run_path / ATTENTION_FILE)
        provenance = replace(record.provenance, attention_reference=key)
        write_record(run_path, record.with_(provenance=provenance, files=files, activations={key: "reference"}))


def made_maps(layers: tuple[str, ...], side: int, at: int, pixels: bool = True) -> AttentionMaps:
    """Two heads, two images of each domain: head h of layer l puts half of its attention on patch `at + l + h`."""
    images = ("one", "two", "one", "three")
    maps = np.full((len(images), len(layers), 2, side**2), 0.5 / side**2, np.float16)
    for layer in range(len(layers)):
        for head in range(2):
            maps[:, layer, head, (at + layer + head) % side**2] += 0.5
    flat = np.full((len(images), len(layers), 2), 1.0 + at, np.float32)
    shown = np.random.default_rng(0).integers(0, 256, (len(images), 32, 32, 3), np.uint8) if pixels else None
    domains = ("target", "target", "origin", "origin")
    both = {"cls": maps, "feat": maps[:, :, ::-1].copy()}
    return AttentionMaps(images, domains, layers, both, {"cls": flat, "feat": flat}, flat * 10, shown)
