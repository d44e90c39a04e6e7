"""One run from epoch 0 to its end: train, look, compare with θ*, write; continues from its last finished epoch.

The order of writing is what survives a crash: results first, then the resume point that counts the epoch as done.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from engine.errors import DamagedError
from engine.fault_points import reach
from engine.finetune.bench import Bench, Watcher, memory_error
from engine.finetune.checkpoints import ResumePoint
from engine.finetune.learner import Learner, make_learner
from engine.finetune.ledger import Ledger, is_kept, kept_before
from engine.finetune.measuring import Measured, Meter
from engine.finetune.methods import method_of
from engine.finetune.observe import Observation
from engine.finetune.reference import load_reference_backbone
from engine.runs.attention_maps import ATTENTION_FILE, write_attention
from engine.runs.record import RunRecord
from engine.runs.results import RESULTS_FILE, Results, read_results

_LOGGED = ("train_loss", "val_loss", "val_accuracy", "val_auroc")
_log = logging.getLogger(__name__)


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


class _Run:
    def __init__(self, run_path: Path, record: RunRecord, bench: Bench, watcher: Watcher) -> None:
        self._ledger = Ledger(run_path, record, bench)
        self._waited_s, self._epoch_started_s = 0.0, time.monotonic()
        self._path, self._bench, self._watcher, self._spec = run_path, bench, watcher, record.spec
        self._trains_backbone = method_of(self._spec.method).trains_backbone
        backbone = load_reference_backbone(self._spec.backbone, bench.device)
        self._learner: Learner = make_learner(
            self._spec, backbone, bench.reference, bench.inputs, bench.precision, run_path.parent, bench.team
        )
        self._meter = Meter(self._spec, bench)

    def execute(self) -> RunRecord:
        self._continue()
        if self._ledger.results.n_epochs == 0:
            self._finish_epoch(0, {"train_loss": self._learner.train_loss()})
        for epoch in range(self._ledger.results.n_epochs, self._spec.epochs + 1):
            if self._watcher.should_stop():
                return self._ledger.stop()
            self._epoch_started_s = time.monotonic()
            self._finish_epoch(epoch, self._train(epoch))
            self._log_epoch(epoch)
        # Done first: with the resume points gone, a run that is not done would start again.
        record = self._ledger.end()
        self._ledger.checkpoints.drop_resume_points()
        return record

    def _continue(self) -> None:
        """Goes back to the last epoch of which both the results and the resume point are whole."""
        ledger, record = self._ledger, self._ledger.record
        results = readable_results(self._path)
        point = ledger.checkpoints.load_resume_point(up_to=results.n_epochs - 1) if results else None
        if results is None or point is None:
            kept = kept_before(record, 0)
            ledger.begin(0, kept, epochs_done=-1, first={}, last={}, epoch_seconds=(), waited_seconds=())
            return
        self._learner.restore(point.tensors, point.epoch)
        ledger.results = results.first_epochs(point.epoch + 1)
        ledger.begin(
            point.epoch + 1,
            kept_before(record, point.epoch + 1),
            epochs_done=point.epoch,
            first=ledger.metrics(0),
            last=ledger.metrics(point.epoch),
            epoch_seconds=record.epoch_seconds[: point.epoch],
            waited_seconds=record.waited_seconds[: point.epoch],
        )

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
        ledger = self._ledger
        seen = self._learner.observe()
        reach("epoch:observed")
        is_end = epoch in (0, self._spec.epochs)
        if seen is None:
            ledger.write(ledger.results.without_epoch())
        else:
            found = self._measured(epoch, seen, quality, is_end)
            ledger.write(ledger.results.with_epoch(found.similarity, found.quality, found.layers))
            self._keep(epoch, seen, is_end)
        ledger.checkpoints.save_resume_point(ResumePoint(epoch, self._learner.state()))
        times: dict[str, object] = {}
        if epoch > 0:  # with the epoch itself: a process that ends here must not leave one without its time
            seconds = round(time.monotonic() - self._epoch_started_s, 3)
            times["epoch_seconds"] = (*ledger.record.epoch_seconds, seconds)
            times["waited_seconds"] = (*ledger.record.waited_seconds, round(self._waited_s, 3))
        ledger.update(epochs_done=epoch, first=ledger.metrics(0), last=ledger.metrics(epoch), **times)

    def _measured(self, epoch: int, seen: Observation, quality: Mapping[str, float], is_end: bool) -> Measured:
        """With what is measured at the ends alone; writes the maps of the last epoch, unless they are those of θ*."""
        found = self._meter.measured(seen)
        origin_knn = self._meter.origin_knn(self._learner.origin_embedding) if is_end else None
        layers = dict(found.layers)
        attention = self._meter.attention(self._learner.backbone if self._trains_backbone else None) if is_end else None
        if attention:
            maps, statistics = attention
            layers |= statistics
            if self._trains_backbone and epoch == self._spec.epochs:
                write_attention(self._path / ATTENTION_FILE, maps)
        return replace(found, quality={**quality, **found.quality, "origin_knn": origin_knn}, layers=layers)

    def _keep(self, epoch: int, seen: Observation, is_end: bool) -> None:
        """Of θ* itself nothing: its weights lie with the user, its activations in the store already."""
        is_reference = epoch == 0 and method_of(self._spec.method).starts_pretrained
        if is_kept(self._spec.keep, is_end=is_end) and not is_reference:
            self._ledger.keep(epoch, self._learner.weights, seen.probes if self._trains_backbone else None)

    def _log_epoch(self, epoch: int) -> None:
        """One line an epoch, for who looks at the log: how the loss goes, and how long it took."""
        record = self._ledger.record
        said = ", ".join(f"{name} {value:.4f}" for name in _LOGGED if (value := record.last.get(name)) is not None)
        seconds = record.epoch_seconds[-1]
        _log.info("%s: epoch %d of %d: %s; %.1f s", record.run_id, epoch, self._spec.epochs, said, seconds)


def readable_results(run_path: Path) -> Results | None:
    """What was written of a run so far; None where there is nothing, or it is damaged, which the log then says."""
    if not (run_path / RESULTS_FILE).exists():
        return None
    try:
        return read_results(run_path)
    except DamagedError as error:
        _log.warning("%s; the run starts again", error)
        return None
