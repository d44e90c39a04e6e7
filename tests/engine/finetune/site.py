"""One prepared study in which tests take runs of their own, and what watches them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file

from engine.activations.store import ActivationStore
from engine.backbones.backbone import Backbone
from engine.finetune.bench import Bench
from engine.finetune.reference import load_reference_backbone
from engine.finetune.run import execute_run
from engine.jobs.plan import PLAN_FILE, read_plan
from engine.jobs.prepare import Preparation
from engine.runs.record import RunRecord, Session, read_record, write_record
from engine.runs.study_folder import StudyFolder
from engine.study import RunSpec, run_specs


class Watcher:
    """Lets a run go on, or stops it after an epoch, or breaks it at a step."""

    def __init__(self, stop_after: int = 10**9, break_at: tuple[int, int] | None = None) -> None:
        self.asked = 0
        self.stop_after, self.break_at = stop_after, break_at

    def step(self, epoch: int, step: int, n_steps: int, images_per_s: float, loss: float, waited_share: float) -> None:
        assert images_per_s > 0 and 0 <= waited_share <= 1
        if (epoch, step) == self.break_at:
            raise KeyboardInterrupt

    def should_stop(self) -> bool:
        self.asked += 1
        return self.asked > self.stop_after


class Site:
    """One prepared study, in which every test takes runs of its own."""

    def __init__(self, folder: StudyFolder) -> None:
        self.folder = folder
        Preparation(folder, reports=False).prepare()
        self.preparation = Preparation(folder, reports=False)
        self.specs = {spec.method: spec for spec in run_specs(folder.study)}
        backbone = load_reference_backbone(folder.study.backbone[0], torch.device("cpu"))
        self._weights_sha256 = backbone.info.weights_sha256 or ""
        inputs = self.preparation.inputs(read_plan(folder.path / PLAN_FILE), backbone.info.input_size)
        reference = self.preparation.reference(backbone, inputs)
        store = ActivationStore(folder.activations_path)
        session = Session(0, "here", "cpu", "float32", 1, {})
        self.bench = Bench(torch.device("cpu"), "float32", inputs, reference, store, session)

    def run(self, path: Path, spec: RunSpec, watcher: Watcher | None = None) -> RunRecord:
        record = read_record(path) if (path / "run.json").exists() else RunRecord(path.name, spec)
        record = record.with_(provenance=replace(record.provenance, weights_sha256=self._weights_sha256))
        write_record(path, record)
        return execute_run(path, record, self.bench, watcher or Watcher())


def load_trained(backbone: Backbone, path: Path) -> None:
    """Not by the engine's own way, which is what these tests are about."""
    weights = load_file(path)
    backbone.load_state_dict(
        {name.removeprefix("backbone."): v for name, v in weights.items() if name.startswith("backbone.")}
    )
