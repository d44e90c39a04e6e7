"""One run from epoch 0 to its end: train, look, compare with θ*, write; continues from its last finished epoch.

The order of writing is what survives a crash: results first, then the resume point that counts the epoch as done.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from engine.activations.store import Activations, ActivationStore, activation_key
from engine.errors import DamagedError, DeviceMemoryError
from engine.fault_points import reach
from engine.files import sha256_file
from engine.finetune.attention import attention_metrics, take_attention
from engine.finetune.checkpoints import Checkpoints, ResumePoint
from engine.finetune.evaluate import classification_metrics, layer_metrics
from engine.finetune.inputs import Inputs, labels_of
from engine.finetune.learner import Learner, make_learner
from engine.finetune.methods import method_of
from engine.finetune.observe import Observation
from engine.finetune.reference import Reference, load_reference_backbone
from engine.finetune.team import ALONE, Team
from engine.measures import Comparison
from engine.measures.check import Layer, as_layer
from engine.quality import knn_accuracy
from engine.runs.attention_maps import ATTENTION_FILE, write_attention
from engine.runs.record import RunRecord, Session, State, write_record
from engine.runs.results import HISTORY_FILE, RESULTS_FILE, Results, SimilarityKey, read_results, write_results

_LOGGED = ("train_loss", "val_loss", "val_accuracy", "val_auroc")
_log = logging.getLogger(__name__)


class Watcher(Protocol):
    """Hears how a run goes, and says whether it is to stop."""

    def step(self, epoch: int, step: int, n_steps: int, images_per_s: float, loss: float, waited_share: float) -> None:
        """Called after every training step; `waited_share` is the part of the epoch spent waiting for images."""

    def should_stop(self) -> bool:
        """Asked after every epoch."""


@dataclass(frozen=True)
class Bench:
    """Where a run happens: the device, its precision, the inputs, θ*, the activation store, and the process.

    `team`: the processes that compute the run together, of which this one leads.
    """

    device: torch.device
    precision: str
    inputs: Inputs
    reference: Reference
    store: ActivationStore
    session: Session
    team: Team = ALONE


def execute_run(run_path: Path, record: RunRecord, bench: Bench, watcher: Watcher) -> RunRecord:
    """Computes what is missing of a run; the caller holds its lock and has filled in its provenance.

    Returns:
        The record as it was written last: done, or stopped if the watcher asked for it.
    Raises:
        TrainingError: the loss is not finite.
        DeviceMemoryError: the device's memory is too small, now or at all.
        ProcessLostError: another process of the team has ended.
        NoSpaceError: the disk is full.
    """
    try:
        return _Run(run_path, record, bench, watcher).execute()
    except torch.OutOfMemoryError as error:
        raise memory_error(record.run_id, bench.device, record.spec.finetune.batch_size) from error


def memory_error(where: str, device: torch.device, batch_size: int) -> DeviceMemoryError:
    """What a device that is too small, or that others use, means for the user."""
    return DeviceMemoryError(
        where,
        f"{device} is out of memory at batch_size = {batch_size}",
        "free the device and run the study again, or start it in a new folder with finetune.batch_size = "
        f"{max(1, batch_size // 2)}",
    )


class _Run:
    def __init__(self, run_path: Path, record: RunRecord, bench: Bench, watcher: Watcher) -> None:
        self._started_s, self._waited_s = time.monotonic(), 0.0
        self._epoch_started_s = self._started_s
        self._path, self._record, self._bench, self._watcher = run_path, record, bench, watcher
        self._spec = record.spec
        self._checkpoints = Checkpoints(run_path)
        backbone = load_reference_backbone(self._spec.backbone, bench.device)
        self._learner: Learner = make_learner(
            self._spec, backbone, bench.reference, bench.inputs, bench.precision, run_path.parent, bench.team
        )
        self._results = Results(bench.reference.probe.layers)
        self._activations = dict.fromkeys(bench.reference.keys, "reference")
        self._comparisons = {
            (domain, pooling): Comparison(
                _layers(probe, pooling, "the pre-trained model"), self._spec.measure.similarity
            )
            for domain, probe in bench.reference.probes.items()
            for pooling in probe.pooled
        }

    def execute(self) -> RunRecord:
        self._continue()
        if self._results.n_epochs == 0:
            self._finish_epoch(0, {"train_loss": self._learner.train_loss()})
        for epoch in range(self._results.n_epochs, self._spec.epochs + 1):
            if self._watcher.should_stop():
                self._update(state=State.STOPPED, reason="stopped as asked")
                return self._record
            self._epoch_started_s = time.monotonic()
            self._finish_epoch(epoch, self._train(epoch))
            self._log_epoch(epoch)
        # Done first: with the resume points gone, a run that is not done would start again.
        self._update(state=State.DONE, files=self._files())
        reach("run:done")
        self._checkpoints.drop_resume_points()
        return self._record

    def _continue(self) -> None:
        """Goes back to the last epoch of which both the results and the resume point are whole."""
        results = _readable_results(self._path)
        point = self._checkpoints.load_resume_point(up_to=results.n_epochs - 1) if results else None
        if results is None or point is None:
            self._begin_session(0, epochs_done=-1, first={}, last={}, epoch_seconds=(), waited_seconds=())
            return
        self._learner.restore(point.tensors, point.epoch)
        self._results = results.first_epochs(point.epoch + 1)
        self._begin_session(
            point.epoch + 1,
            epochs_done=point.epoch,
            first=self._metrics(0),
            last=self._metrics(point.epoch),
            epoch_seconds=self._record.epoch_seconds[: point.epoch],
            waited_seconds=self._record.waited_seconds[: point.epoch],
        )

    def _begin_session(self, first_epoch: int, **changes: object) -> None:
        """This process is the last of the sessions; earlier ones of which nothing is kept are left out."""
        earlier = tuple(each for each in self._record.sessions if each.first_epoch < first_epoch)
        session = dataclasses.replace(self._bench.session, first_epoch=first_epoch)
        made = {key: role for key, role in self._record.activations.items() if _epoch_of(role) < first_epoch}
        self._activations |= made
        self._update(state=State.RUNNING, reason="", sessions=(*earlier, session), **changes)

    def _train(self, epoch: int) -> dict[str, float]:
        started_s = time.monotonic()

        def report(step: int, n_steps: int, n_images: int, loss: float, waited_s: float) -> None:
            seconds = time.monotonic() - started_s
            self._waited_s = waited_s
            self._watcher.step(epoch, step, n_steps, n_images / seconds, loss, waited_s / seconds)
            reach("train:step")

        return self._learner.train_epoch(epoch, report)

    def _finish_epoch(self, epoch: int, quality: Mapping[str, float]) -> None:
        reach("epoch:trained")
        seen = self._learner.observe()
        reach("epoch:observed")
        is_end = epoch in (0, self._spec.epochs)
        if seen is None:
            self._results = self._results.without_epoch()
        else:
            found = {**quality, **self._quality(seen), "origin_knn": self._origin_knn() if is_end else None}
            layers = layer_metrics(seen.probes["target"].pooled, self._spec.measure.quality)
            if is_end:
                layers |= self._attention(epoch)
            self._results = self._results.with_epoch(self._similarity(seen.probes), found, layers)
        write_results(self._path, self._results)
        if seen is not None:
            self._keep(epoch, seen.probes, is_end)
        self._checkpoints.save_resume_point(ResumePoint(epoch, self._learner.state()))
        times: dict[str, object] = {}
        if epoch > 0:  # with the epoch itself: a process that ends here must not leave one without its time
            seconds = round(time.monotonic() - self._epoch_started_s, 3)
            times["epoch_seconds"] = (*self._record.epoch_seconds, seconds)
            times["waited_seconds"] = (*self._record.waited_seconds, round(self._waited_s, 3))
        self._update(epochs_done=epoch, first=self._metrics(0), last=self._metrics(epoch), **times)

    def _quality(self, seen: Observation) -> dict[str, float]:
        inputs, asked = self._bench.inputs, self._spec.measure.quality
        return {
            name: value
            for split, logits in (("val", seen.val_logits), ("test", seen.test_logits))
            for name, value in classification_metrics(
                logits, inputs.labels(split), split, asked, inputs.manifest.task
            ).items()
        }

    def _similarity(self, probes: Mapping[str, Activations]) -> dict[SimilarityKey, np.ndarray]:
        """Every pair of blocks, θ*'s in rows, for every probe, pooling and measure."""
        return {
            SimilarityKey(domain, pooling, measure): np.asarray(matrix)
            for (domain, pooling), comparison in self._comparisons.items()
            for measure, matrix in comparison.heatmaps(_layers(probes[domain], pooling, "this run's model")).items()
        }

    def _attention(self, epoch: int) -> dict[str, np.ndarray]:
        """How the attention is now, by layer; writes the maps of the last epoch, unless they are those of θ*."""
        reference = self._bench.reference.attention
        if reference is None:
            return {}
        found = reference
        if method_of(self._spec.method).trains_backbone:
            found = take_attention(self._learner.backbone, self._bench.inputs.attention)
            if epoch == self._spec.epochs:
                write_attention(self._path / ATTENTION_FILE, found)
        return attention_metrics(reference, found)

    def _origin_knn(self) -> float | None:
        embedding = self._learner.origin_embedding() if "knn" in self._spec.measure.quality else None
        if embedding is None or self._bench.inputs.origin is None:
            return None
        labels = labels_of(self._bench.inputs.origin)
        return float(knn_accuracy(embedding, labels, embedding, labels, leave_one_out=True))

    def _keep(self, epoch: int, probes: Mapping[str, Activations], is_end: bool) -> None:
        """Checkpoints and activations that stay, as the study's `keep` says."""
        keep = self._spec.keep
        if keep == "none" or (keep == "ends" and not is_end):
            return
        is_reference = epoch == 0 and method_of(self._spec.method).starts_pretrained
        if is_reference:
            return  # θ* itself: its weights lie with the user, its activations in the store already.
        self._checkpoints.save_weights(epoch, self._learner.weights(), {"run": self._record.run_id})
        if method_of(self._spec.method).trains_backbone:
            weights_sha256 = sha256_file(self._checkpoints.weights_path(epoch))
            for domain, probe in probes.items():
                images_digest = self._bench.inputs.digest_of_probe(domain)
                key = activation_key(weights_sha256, images_digest, (self._learner.backbone.info.name,))
                self._bench.store.save(key, probe)
                self._activations[key] = f"epoch {epoch}"

    def _metrics(self, epoch: int) -> dict[str, float | None]:
        """All metrics of an epoch, with the mean similarity of the layers, as `run.json` shows them."""
        found = {name: _or_none(values[epoch]) for name, values in self._results.quality.items()}
        for key, matrices in self._results.similarity.items():
            name = f"{key.measure}_{key.pooling}" + ("" if key.probe == "target" else f"_{key.probe}")
            found[name] = _or_none(np.diagonal(matrices[epoch]).astype(np.float64).mean())
        return found

    def _log_epoch(self, epoch: int) -> None:
        """One line an epoch, for who looks at the log: how the loss goes, and how long it took."""
        last = self._record.last
        said = ", ".join(f"{name} {value:.4f}" for name in _LOGGED if (value := last.get(name)) is not None)
        seconds = self._record.epoch_seconds[-1]
        _log.info("%s: epoch %d of %d: %s; %.1f s", self._record.run_id, epoch, self._spec.epochs, said, seconds)

    def _files(self) -> dict[str, str]:
        """SHA-256 of what stays of the run, by its name in the folder."""
        names = [RESULTS_FILE, HISTORY_FILE, *sorted(f"checkpoints/{p.name}" for p in self._checkpoints.kept())]
        if (self._path / ATTENTION_FILE).exists():
            names.append(ATTENTION_FILE)
        return {name: sha256_file(self._path / name) for name in names}

    def _update(self, **changes: object) -> None:
        self._record = self._record.with_(**changes, activations=dict(self._activations))
        *earlier, session = self._record.sessions
        seconds = round(time.monotonic() - self._started_s, 3)
        self._record = self._record.with_(sessions=(*earlier, dataclasses.replace(session, seconds=seconds)))
        write_record(self._path, self._record)


def _readable_results(run_path: Path) -> Results | None:
    if not (run_path / RESULTS_FILE).exists():
        return None
    try:
        return read_results(run_path)
    except DamagedError as error:
        _log.warning("%s; the run starts again", error)
        return None


def _epoch_of(role: str) -> int:
    """The epoch of an activation file; those of θ* belong to none, and are named anew by each process."""
    digits = role.removeprefix("epoch ")
    return int(digits) if digits.isdecimal() else 10**9


def _layers(probe: Activations, pooling: str, model: str) -> list[Layer]:
    """The outputs of every block, under the names by which an error is to call them."""
    return [
        as_layer(values, f"{layer} ({pooling}) of {model}")
        for layer, values in zip(probe.layers, probe.pooled[pooling], strict=True)
    ]


def _or_none(value: float | np.floating) -> float | None:
    return None if np.isnan(value) else float(value)
