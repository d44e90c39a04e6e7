"""Compares two checkpoints in a process that loads torch: `python -m engine.jobs.compare_child A B …`.

Prints where it is, a JSON object a line, and last the folder of the comparison or an expected error.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import shlex
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
import torch

from engine.activations.extract import Progress, extract
from engine.activations.store import Activations
from engine.backbones import load_backbone
from engine.backbones.backbone import Backbone, BackboneInfo
from engine.backbones.names import FAMILIES, parse_name
from engine.data.manifest import Manifest, refuse_many_skipped
from engine.data.options import DataOptions
from engine.data.pixels import CacheOptions, PixelCache, pixel_cache, probe_items
from engine.data.read import SYNTHETIC_MARK, read_images
from engine.data.synthetic import dermoscopy
from engine.errors import DataError, StudyError
from engine.files import as_machine_error, atomic_write, digest, sha256_file
from engine.finetune.learner import restore_backbone
from engine.finetune.methods import COMPARED
from engine.jobs.child import answer_for
from engine.jobs.compare import (
    Checkpoint,
    ComparisonRequest,
    cache_path,
    key_of,
    n_needed,
    parse_checkpoint,
    refuse_request,
    remember_comparison,
    result_path,
    whole_comparison,
)
from engine.jobs.device import on_device, study_device
from engine.jobs.machine_load import n_cpus
from engine.measures import MEASURES, Comparison
from engine.measures.check import as_layer
from engine.runs.record import Provenance, Reference, RunRecord, Session, State, write_record
from engine.runs.results import HISTORY_FILE, RESULTS_FILE, Results, SimilarityKey, write_results
from engine.sealed import sealed_comment
from engine.study import BackboneSection, FinetuneSection, MeasureSection, RunSpec

_PACKAGES = ("simtui", "torch", "timm", "open_clip_torch", "numpy", "h5py", "pillow")
_N_RESULTS, _N_PIXELS = 200, 4  # kept in the cache: some 50 kB each; 400 MB of 2,048 images at 224 pixels each
_SAY_S = 0.1


def compare(request: ComparisonRequest) -> Path:
    """The folder of the comparison, computed where it is not there yet.

    Raises:
        SimtuiError: a checkpoint cannot be loaded, or the images cannot be read, are too few, or suit no measure.
    """
    torch.set_num_threads(n_cpus())
    torch.backends.cudnn.allow_tf32 = False  # it must never decide a digit
    say = _Said()
    say("loading the checkpoints", 0, 0)
    models = [_load(each) for each in (request.first, request.second)]
    infos = [model.info for model in models]
    _refuse_widths(request, infos)
    manifest = _manifest(request, say)
    n_readable = len(manifest.items)
    manifest = replace(manifest, items=probe_items(manifest.items, request.n, len(manifest.classes)))
    caches = {size: _pixels(request, manifest, size, say) for size in dict.fromkeys(info.input_size for info in infos)}
    _refuse_few(request, manifest, list(caches.values()))
    notes = _notes(request, manifest, next(iter(caches.values())), n_readable)
    images_digest = digest([(item.id, item.sha256) for item in next(iter(caches.values())).items])
    decoding = [manifest.decoding.window, manifest.decoding.frame]
    models_as_asked = [
        (each.text, *_identity(info)) for each, info in zip((request.first, request.second), infos, strict=True)
    ]
    # Where nothing is to be said, the key is that of a comparison of before there were notes.
    key = key_of(models_as_asked, digest([images_digest, decoding, *notes]), request.measures)
    place = result_path(key)
    if whole_comparison(place) is None:
        device = study_device("auto")
        seen = [on_device(device, partial(_seen, each, caches[each.info.input_size], say)) for each in _once(models)]
        say("comparing", 0, 0)
        results = _results(infos, seen[0], seen[-1], request.measures)
        record = _record(request, infos, manifest, images_digest, len(seen[0].ids), key, device, notes)
        _write(place, request, record, results)
    remember_comparison(request, [info.weights_source for info in infos], key)
    return place


class _Said:
    """Prints where the work is, not too often."""

    def __init__(self) -> None:
        self._last_s = 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        now_s = time.monotonic()
        if done in (0, total) or now_s - self._last_s > _SAY_S:
            self._last_s = now_s
            print(json.dumps({"stage": stage, "done": done, "total": total}), flush=True)

    def counter(self, stage: str) -> Progress:
        """A progress for one stage."""
        return lambda done, total: self(stage, done, total)


def _load(checkpoint: Checkpoint) -> Backbone:
    """A checkpoint of a run needs no pre-trained weights: all of its own are in it."""
    if checkpoint.trained is None:
        return load_backbone(checkpoint.name, weights=checkpoint.weights, input_size=checkpoint.input_size)
    name = parse_name(checkpoint.name)
    family = import_module(FAMILIES[name.family].module)
    backbone: Backbone = family.without_weights(name, "cpu", checkpoint.input_size)[0]
    restore_backbone(backbone, checkpoint.trained)
    source, sha256 = f"file:{checkpoint.trained}", sha256_file(checkpoint.trained)
    backbone.info = replace(backbone.info, weights_source=source, weights_sha256=sha256)
    return backbone.eval()


def _once(models: list[Backbone]) -> list[Backbone]:
    """One model where both are the same."""
    return models[:1] if _identity(models[0].info) == _identity(models[1].info) else models


def _identity(info: BackboneInfo) -> tuple[object, ...]:
    return info.name, info.input_size, info.mean, info.std, info.weights_sha256


def _refuse_widths(request: ComparisonRequest, infos: list[BackboneInfo]) -> None:
    widths = sorted({width for info in infos for width in info.widths})
    for name in request.measures:
        if MEASURES[name].needs_equal_widths and len(widths) > 1:
            problem = f"matches features one by one, and the layers have {', '.join(map(str, widths))}"
            raise StudyError(f'--measure "{name}"', problem, "leave it out")


def _manifest(request: ComparisonRequest, say: _Said) -> Manifest:
    """What images there are; generated ones lie in the cache."""
    if request.images is not None:
        say("reading the images", 0, 0)
        return read_images(request.images, request.reading)
    n = max(request.n, dermoscopy.MIN_IMAGES)
    path = cache_path() / "images" / f"dermoscopy-{n}"
    if not (path / SYNTHETIC_MARK).exists():
        shutil.rmtree(path, ignore_errors=True)
        dermoscopy.generate(path, n, progress=say.counter("generating images"))
    return read_images(path)


def _pixels(request: ComparisonRequest, manifest: Manifest, size: int, say: _Said) -> PixelCache:
    folder = cache_path() / "pixels"
    _free(folder, _N_PIXELS, "*.npy")
    options = CacheOptions(manifest.decoding, max_skipped=request.reading.max_skipped, checks=True)
    progress = say.counter(f"decoding the images for {size} pixels")
    return pixel_cache(manifest.root, manifest.items, size, folder, progress=progress, options=options)


def _free(folder: Path, n_kept: int, pattern: str) -> None:
    """Makes room: the oldest go."""
    try:
        found = sorted(folder.glob(pattern), key=lambda path: path.stat().st_mtime, reverse=True)
    except OSError:
        return
    for path in found[n_kept - 1 :]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _refuse_few(request: ComparisonRequest, manifest: Manifest, caches: list[PixelCache]) -> None:
    ids = [tuple(item.id for item in cache.items) for cache in caches]
    if len(set(ids)) > 1:
        raise DataError(str(manifest.root), "some images decode at one size only", "remove them, or mend them")
    for name in request.measures:
        if len(ids[0]) < n_needed(name):
            problem = f"{len(ids[0])} images can be used: {MEASURES[name].label} needs {n_needed(name)} at least"
            raise DataError(str(manifest.root), problem, "give more images")


def _notes(request: ComparisonRequest, manifest: Manifest, cache: PixelCache, n_readable: int) -> tuple[str, ...]:
    """What must be said of the images: why they have no labels, and how many cannot be used.

    Raises:
        DataError: those that cannot be read and those that cannot be decoded are too many together.
    """
    left_out = (*manifest.skipped, *cache.skipped)
    n = n_readable + len(manifest.skipped)
    refuse_many_skipped(str(manifest.root), left_out, n, request.reading.max_skipped)
    if not left_out:
        return manifest.warnings
    first = f"{left_out[0].path}: {left_out[0].problem}"
    return (*manifest.warnings, f"left out: {len(left_out)} of {n} images, which cannot be used; first {first}")


def _seen(model: Backbone, cache: PixelCache, say: _Said, device: torch.device) -> Activations:
    progress = say.counter(f"looking with {model.info.name}")
    rows = np.arange(len(cache.items))
    return extract(model.to(device), cache, layer_rows=rows, progress=progress, as_computed=True)


def _results(infos: list[BackboneInfo], first: Activations, second: Activations, measures: tuple[str, ...]) -> Results:
    """Every pair of layers, by every pooling that both have."""
    similarity = {}
    for pooling in (each for each in first.pooled if each in second.pooled):
        xs, ys = (
            [
                as_layer(values, f"{layer} ({pooling}) of {info.name}")
                for layer, values in zip(seen.layers, seen.pooled[pooling], strict=True)
            ]
            for info, seen in zip(infos, (first, second), strict=True)
        )
        for measure, matrix in Comparison(xs, measures).heatmaps(ys).items():
            similarity[SimilarityKey("target", pooling, measure)] = np.asarray(matrix)
    rows = () if first.layers == second.layers else first.layers
    return Results(second.layers, layers_ref=rows).with_epoch(similarity, {})


def _record(
    request: ComparisonRequest,
    infos: list[BackboneInfo],
    manifest: Manifest,
    images_digest: str,
    n: int,
    key: str,
    device: torch.device,
    notes: tuple[str, ...],
) -> RunRecord:
    first, second = infos
    poolings = tuple(each for each in first.poolings if each in second.poolings)
    name = f"{_slug(first.name)}_vs_{_slug(second.name)}_{key[:8]}"
    spec = RunSpec(
        study=f"{first.name} × {second.name}"[:80], dataset=manifest.root.name,
        backbone=BackboneSection(second.name, input_size=request.second.input_size), method=COMPARED, seed=0,
        epochs=0, probe_n=request.n, origin_n=None, finetune=FinetuneSection(),
        measure=MeasureSection(request.measures, ()), keep="none", attention_n=0,
    )  # fmt: skip
    provenance = Provenance(
        weights_checkpoint=request.second.text, manifest_digest=manifest.digest, probe_digest=images_digest,
        n_test=n, n_probe=n, dataset_is_synthetic=manifest.synthetic, dataset_path=str(manifest.root),
        command=_command(request), notes=notes, **{**_facts(second), "poolings": poolings},
    )  # fmt: skip
    session = Session(
        0, socket.gethostname(), f"{device} {platform.machine()}", "float32", torch.get_num_threads(),
        {package: version(package) for package in _PACKAGES} | {"python": platform.python_version()},
        datetime.now(UTC).isoformat(timespec="seconds"),
    )  # fmt: skip
    reference = Reference(request.first.text, first.name, **_facts(first))
    return RunRecord(
        name, spec, State.DONE, epochs_done=0, sessions=(session,), provenance=provenance, reference=reference
    )


def _facts(info: BackboneInfo) -> dict[str, Any]:
    return {
        "paradigm": info.paradigm, "input_size": info.input_size, "layers": info.layers, "layer_kind": info.layer_kind,
        "poolings": info.poolings, "n_features": max(info.widths), "weights_source": info.weights_source,
        "weights_sha256": info.weights_sha256 or "",
    }  # fmt: skip


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40]


def _command(request: ComparisonRequest) -> str:
    words = ["simtui", "compare", request.first.text, request.second.text, "--n", str(request.n)]
    words += ["--images", str(request.images.resolve())] if request.images else []
    words += [word for measure in request.measures for word in ("--measure", measure)]
    return shlex.join(words)


def _write(place: Path, request: ComparisonRequest, record: RunRecord, results: Results) -> None:
    """The folder appears whole, in the place of one that was not."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        _free(place.parent, _N_RESULTS, "*")
        with tempfile.TemporaryDirectory(prefix=".making-", dir=place.parent) as temporary:
            made = Path(temporary) / "study"
            run_path = made / "runs" / record.run_id
            run_path.mkdir(parents=True)
            write_results(run_path, results)
            files = {name: sha256_file(run_path / name) for name in (RESULTS_FILE, HISTORY_FILE)}
            write_record(run_path, record.with_(files=files))
            atomic_write(made / "study.toml", sealed_comment(tomli_w.dumps(_study(request, record))))
            if place.exists():
                shutil.rmtree(place)
            made.rename(place)
    except OSError as error:
        raise as_machine_error(error, place) from error


def _study(request: ComparisonRequest, record: RunRecord) -> Mapping[str, Any]:
    """What was asked for, as a study file; nothing in it is to be trained."""
    assert record.reference is not None
    names = dict.fromkeys((record.reference.name, record.spec.backbone.name))
    return {
        "study": {"name": record.spec.study, "kind": "comparison", "keep": "none"},
        "data": {"path": record.provenance.dataset_path},
        "probe": {"n": request.n},
        "attention": {"n": 0},
        "backbone": [{"name": name} for name in names],
        "measure": {"similarity": list(request.measures), "quality": []},
    }


def main(arguments: list[str]) -> int:
    """Prints the folder, or the error; returns the exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("first")
    parser.add_argument("second")
    parser.add_argument("--images", type=Path)
    parser.add_argument("--n", type=int, required=True)
    parser.add_argument("--measure", action="append", required=True)
    parser.add_argument("--reading", type=json.loads, default={})
    options = parser.parse_args(arguments)

    def computed() -> None:
        first, second = (parse_checkpoint(each) for each in (options.first, options.second))
        reading = DataOptions(**options.reading)
        request = ComparisonRequest(first, second, options.images, options.n, tuple(options.measure), reading)
        refuse_request(request)
        print(json.dumps({"path": str(compare(request))}))

    return answer_for(computed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
