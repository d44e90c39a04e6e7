"""One run of checkpoints that were trained elsewhere: fit, look, compare with θ*, write; trains nothing.

Epoch 0 is θ* itself, unless the training has a checkpoint of it. Epochs without a checkpoint stay NaN. What is measured
is never measured again: a checkpoint that comes later, before or after the others, is added to them.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from engine.activations.extract import extract
from engine.backbones.backbone import Backbone
from engine.errors import DeviceMemoryError, StudyError, WeightsError
from engine.fault_points import reach
from engine.finetune.bench import Bench, Watcher
from engine.finetune.ledger import Ledger, is_kept
from engine.finetune.measuring import Measured, Meter
from engine.finetune.observe import Observation, logits_of, look
from engine.finetune.reference import load_reference_backbone
from engine.finetune.run import readable_results
from engine.foreign.convert import convert
from engine.foreign.find import refuse_other_epoch
from engine.foreign.fit import Fitted, fit_to_backbone, read_tensors
from engine.foreign.heads import Head
from engine.foreign.identity import content_of, stamps_of
from engine.foreign.positions import RESAMPLED
from engine.runs.attention_maps import ATTENTION_FILE, write_attention
from engine.runs.record import ImportedCheckpoint, RunRecord
from engine.study import CheckpointSection, TrainingSection

CONVERTED = "converted"  # a folder of the run, while it is being computed
_NO_NAME = re.compile(r"(label_|class_?)?\d+", re.IGNORECASE)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Loaded:
    """A checkpoint that has been put into the backbone; `head` is None where no figures can be made with one."""

    head: nn.Linear | None
    facts: ImportedCheckpoint


def execute_import(
    run_path: Path, record: RunRecord, bench: Bench, watcher: Watcher, training: TrainingSection
) -> RunRecord:
    """Measures what is missing of an imported run; the caller holds its lock and has filled in its provenance.

    Returns:
        The record as it was written last: done, or stopped if the watcher asked for it.
    Raises:
        WeightsError: a checkpoint is gone, damaged, or not of the backbone.
        StudyError: a checkpoint is another than when it was measured.
        DeviceMemoryError: the device's memory is too small.
        NoSpaceError: the disk is full.
    """
    try:
        return _Import(run_path, record, bench, watcher, training).execute()
    except torch.OutOfMemoryError as error:
        problem = f"{bench.device} is out of memory while looking at images"
        raise DeviceMemoryError(record.run_id, problem, "free the device and import the folder again") from error
    finally:
        shutil.rmtree(run_path / CONVERTED, ignore_errors=True)


class _Import:
    def __init__(
        self, run_path: Path, record: RunRecord, bench: Bench, watcher: Watcher, training: TrainingSection
    ) -> None:
        self._path, self._bench, self._watcher, self._spec = run_path, bench, watcher, record.spec
        self._training = training
        self._sections = {each.epoch: each for each in training.checkpoints}
        self._ledger = Ledger(run_path, record, bench)
        self._meter = Meter(record.spec, bench)
        self._backbone = load_reference_backbone(record.spec.backbone, bench.device)
        info = self._backbone.info
        self._backbone.info = replace(info, mean=training.mean or info.mean, std=training.std or info.std)
        self._is_normalised_otherwise = (info.mean, info.std) != (self._backbone.info.mean, self._backbone.info.std)

    def execute(self) -> RunRecord:
        for epoch in self._continue():
            if self._watcher.should_stop():
                return self._ledger.stop()
            started_s = time.monotonic()
            loaded = self._load(epoch)
            reach("epoch:trained")
            self._finish(epoch, self._measured(epoch, loaded.head), loaded, started_s)
        return self._ledger.end()

    def _continue(self) -> list[int]:
        """Goes on with what is measured already; returns the epochs that are not."""
        ledger, record = self._ledger, self._ledger.record
        shutil.rmtree(self._path / CONVERTED, ignore_errors=True)
        results = readable_results(self._path)
        if results is None or not record.sessions:
            record = record.with_(sessions=(), activations={}, checkpoints={}, epoch_seconds=())
            results = None
        else:
            ledger.results = results
        known = {epoch: each for epoch, each in record.checkpoints.items() if int(epoch) < ledger.results.n_epochs}
        todo = [epoch for epoch in self._spec.checkpoints if str(epoch) not in known]
        changes = {"checkpoints": known, "epoch_seconds": record.epoch_seconds, "files": {}}
        ledger.begin(todo[0] if todo else self._spec.epochs, record, **changes)
        if 0 not in self._spec.checkpoints and results is None:
            self._write(0, self._of_reference())
        ledger.update(**self._standing())
        return todo

    def _standing(self) -> dict[str, object]:
        """How far the run is: up to the first checkpoint that is not measured."""
        ledger, known = self._ledger, {int(epoch) for epoch in self._ledger.record.checkpoints}
        if ledger.results.n_epochs == 0:
            return {"epochs_done": -1, "first": {}, "last": {}}
        missing = [epoch for epoch in self._spec.checkpoints if epoch not in known]
        done = max((each for each in {0, *known} if not missing or each < missing[0]), default=-1)
        if done < 0:
            return {"epochs_done": -1, "first": {}, "last": {}}
        return {"epochs_done": done, "first": ledger.metrics(0), "last": ledger.metrics(done)}

    def _of_reference(self) -> Measured:
        """θ* as epoch 0: it has no head for these classes."""
        reference = self._bench.reference
        found = self._meter.measured(Observation({}, reference.probes))
        attention = self._meter.attention(None)
        origin_knn = self._meter.origin_knn(lambda: reference.origin_embedding)
        return replace(
            found, quality={"origin_knn": origin_knn}, layers={**found.layers, **(attention[1] if attention else {})}
        )

    def _load(self, epoch: int) -> _Loaded:
        """Puts a checkpoint into the backbone."""
        section = self._sections.get(epoch)
        if section is None:
            raise StudyError(self._spec.run_id, f"names no file of epoch {epoch}", "import the folder again")
        where = section.files[0]
        try:
            stamp, sha256 = stamps_of(section.files), content_of(section.files)
        except OSError as error:
            problem = "is not there any more" if isinstance(error, FileNotFoundError) else str(error.strerror or error)
            raise WeightsError(where, problem, "put it back, and import the folder again") from error
        part = self._spec.settings.get("part")
        tensors = self._tensors(section, epoch)
        fitted = fit_to_backbone(tensors, self._backbone, where, part=part)
        self._refuse_other_size(fitted, where)
        if epoch == 0:
            is_half = any(each.dtype in (torch.float16, torch.bfloat16) for each in tensors.values())
            self._refuse_trained(fitted, where, slack=2**-8 if is_half else 1e-6)
        self._backbone.model.load_state_dict(dict(fitted.weights))
        head, said = self._head(fitted)
        return _Loaded(head, ImportedCheckpoint(sha256, stamp, head is not None, said, self._notes(fitted)))

    def _refuse_other_size(self, fitted: Fitted, where: str) -> None:
        """A checkpoint of another image size is looked at in this one where the user or a file says so alone."""
        resampled = next((note for note in fitted.notes if note.startswith(RESAMPLED)), None)
        if resampled and self._spec.backbone.input_size is None:
            problem = f"no file says the images' size in training, and {resampled}"
            raise WeightsError(where, problem, "say it with --input-size, and give another study with --out")

    def _refuse_trained(self, fitted: Fitted, where: str, slack: float) -> None:
        """What is called epoch 0 must be θ*; files are often counted from the first trained epoch.

        Args:
            slack: what a value may be off by rounding, as a share of the largest of its tensor.
        """
        section = self._spec.backbone
        for name, given in load_reference_backbone(section, torch.device("cpu")).model.state_dict().items():
            scale = float(given.abs().max()) if given.numel() else 0.0
            if not torch.allclose(fitted.weights[name].cpu().to(given.dtype), given, rtol=0, atol=scale * slack):
                problem = f"is named as epoch 0, yet it is not {section.name} before any training: {name} differs"
                fix = (
                    "where names count the first trained epoch as 0 add --counted-from 0; where it started from other "
                    "weights give them, as --backbone NAME=FILE"
                )
                raise WeightsError(where, problem, fix)

    def _tensors(self, section: CheckpointSection, epoch: int) -> dict[str, Tensor]:
        files = [Path(file) for file in section.files]
        if section.kind == "safetensors":
            return read_tensors(files)
        target = self._path / CONVERTED / f"epoch-{epoch:03d}.safetensors"
        converted = convert(files, target)
        refuse_other_epoch(self._training.layout, files[0], section.epoch_said, converted.facts)
        tensors = read_tensors([target])
        target.unlink(missing_ok=True)
        return tensors

    def _notes(self, fitted: Fitted) -> tuple[str, ...]:
        info = self._backbone.info
        said = f"images normalised as in training: mean {info.mean}, std {info.std}"
        notes = [*fitted.notes, *([fitted.renamed_by] if fitted.renamed_by else [])]
        return (*notes, *([said] if self._is_normalised_otherwise else []))

    def _head(self, fitted: Fitted) -> tuple[nn.Linear | None, str]:
        """The classifier with its outputs in the order of the images' classes, and how it was taken or why not."""
        found, inputs = fitted.head, self._bench.inputs
        if self._spec.settings.get("labels", True) is not True:
            return None, "not asked for: the images are taken without labels"
        if found is None:
            return None, "not known: the checkpoint has no head on the embedding"
        classes = inputs.manifest.classes
        if len(found.weight) != len(classes):
            return None, f"not known: the head has {len(found.weight)} outputs, the images {len(classes)} classes"
        order, said = _order_of(self._training.class_names, classes)
        if order is None:
            return None, f"not known: {said}"
        said += f"; {found.name} is taken for the head by its shape alone" if found.is_assumed else ""
        return _linear(found, order, self._bench.device), said

    def _measured(self, epoch: int, head: nn.Linear | None) -> Measured:
        """Everything of an epoch; at the ends also what is measured there alone."""
        inputs, started_s = self._bench.inputs, time.monotonic()

        def progress(done: int, total: int) -> None:
            seconds = max(time.monotonic() - started_s, 1e-9)
            self._watcher.step(epoch, done, total, done / seconds, None, 0.0)
            reach("train:step")

        embedding, probes = look(self._backbone, inputs, progress)
        reach("epoch:observed")
        logits = {} if head is None else {"test": logits_of(head, embedding)}
        found = self._meter.measured(Observation(logits, probes))
        is_end = epoch in (0, self._spec.epochs)
        if is_end:
            found = self._with_ends(epoch, found)
        if is_kept(self._spec.keep, is_end=is_end):
            facts = {}
            if self._is_normalised_otherwise:
                facts["normalisation"] = json.dumps([self._backbone.info.mean, self._backbone.info.std])
            self._ledger.keep(epoch, lambda: _weights(self._backbone, head), probes, facts)
        return found

    def _with_ends(self, epoch: int, found: Measured) -> Measured:
        origin = self._bench.inputs.origin
        origin_knn = self._meter.origin_knn(lambda: extract(self._backbone, origin).embedding if origin else None)
        attention = self._meter.attention(self._backbone)
        if attention and epoch == self._spec.epochs:
            write_attention(self._path / ATTENTION_FILE, attention[0])
        layers = {**found.layers, **(attention[1] if attention else {})}
        return replace(found, quality={**found.quality, "origin_knn": origin_knn}, layers=layers)

    def _write(self, epoch: int, found: Measured) -> None:
        self._ledger.write(self._ledger.results.at_epoch(epoch, found.similarity, found.quality, found.layers))

    def _finish(self, epoch: int, found: Measured, loaded: _Loaded, started_s: float) -> None:
        ledger = self._ledger
        self._write(epoch, found)
        seconds = round(time.monotonic() - started_s, 3)
        known = {**ledger.record.checkpoints, str(epoch): loaded.facts}
        ledger.record = ledger.record.with_(checkpoints=known)
        ledger.update(epoch_seconds=(*ledger.record.epoch_seconds, seconds), **self._standing())
        _log.info(
            "%s: checkpoint of epoch %d: %.1f s; accuracy: %s", self._spec.run_id, epoch, seconds, loaded.facts.head
        )


def _order_of(names: Sequence[str] | None, classes: Sequence[str]) -> tuple[list[int] | None, str]:
    """The output that stands for each class, and how that is known; None where the outputs are of other classes."""
    if names is None or all(_NO_NAME.fullmatch(name.strip()) for name in names):
        return list(range(len(classes))), "assumed: outputs in the order of the class names"
    if len(names) == len(classes) and set(names) == set(classes) and len(set(names)) == len(names):
        return [list(names).index(each) for each in classes], "outputs by the class names that the training says"
    return None, f"its classes are {', '.join(names[:5])}, those of the images {', '.join(classes[:5])}"


def _linear(found: Head, order: Sequence[int], device: torch.device) -> nn.Linear:
    linear = nn.Linear(found.weight.shape[1], len(order))
    with torch.no_grad():
        linear.weight.copy_(found.weight[list(order)])
        linear.bias.copy_(found.bias[list(order)])
    return linear.to(device).eval()


def _weights(backbone: Backbone, head: nn.Linear | None) -> dict[str, Tensor]:
    """What a checkpoint of simtui's holds, as `Classifier` names it."""
    found = {f"backbone.{name}": value for name, value in backbone.state_dict().items()}
    return found | ({f"head.{name}": value for name, value in head.state_dict().items()} if head else {})
