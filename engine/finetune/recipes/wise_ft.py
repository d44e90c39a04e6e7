"""`wise_ft`: the weights of θ* and of the `full` run of the same backbone and seed, mixed; trains nothing.

The backbone is w* + α (w − w*), w the weights of the `full` run and α the mixing value: a quarter for `wise_ft:0.25`,
one half for `wise_ft`. The head is that of the `full` run: what is pre-trained has no head for these classes, so that,
other than in the source, there is no zero-shot end.

Epoch 0 is θ* with the head as the seed draws it, as of `full`; the last epoch is the mixture of the last weights. Those
between are there where the study keeps the weights of all epochs (`keep = "all"`), else their figures are NaN.
Source: Wortsman et al. 2022 (WiSE-FT, eq. 1).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from engine.backbones.backbone import Backbone
from engine.errors import DamagedError, StudyError
from engine.finetune.checkpoints import Checkpoints, load_checked
from engine.finetune.classifier import Classifier
from engine.finetune.inputs import Inputs
from engine.finetune.methods import mixing_of
from engine.finetune.observe import Observation, objective_of, observe, origin_embedding, train_loss
from engine.finetune.trainer import StepReport
from engine.runs.record import State, read_record, remake_run
from engine.study import RunSpec


def make(spec: RunSpec, model: Classifier, inputs: Inputs, needed_path: Path) -> MixtureLearner:
    """See `learner.make_learner`.

    Args:
        model: θ* and the head as it is before training.
        needed_path: the folder of the run that it is made from.
    Raises:
        StudyError: that run is not done, or is of another pre-trained model or other images.
        DamagedError: its record is damaged.
    """
    record = read_record(needed_path)
    if record.state is not State.DONE:
        problem = f"is made from {needed_path.name}, which is {record.state}"
        raise StudyError(spec.run_id, problem, "run the study again")
    if record.provenance.weights_sha256 != (model.backbone.info.weights_sha256 or ""):
        problem = f"is made from {needed_path.name}, which began from other weights of the backbone"
        raise StudyError(spec.run_id, problem, remake_run(needed_path))
    return MixtureLearner(spec, model, inputs, needed_path)


class MixtureLearner:
    """See `learner.Learner`; an epoch is made from the weights of the other run after it."""

    def __init__(self, spec: RunSpec, model: Classifier, inputs: Inputs, needed_path: Path) -> None:
        self._spec, self._model, self._inputs, self._needed_path = spec, model.eval(), inputs, needed_path
        self._share = mixing_of(spec.method)
        self._start = {name: value.clone() for name, value in model.backbone.state_dict().items()}
        self._epoch, self._is_there = 0, True

    @property
    def backbone(self) -> Backbone:
        """See `Learner`."""
        return self._model.backbone

    def train_loss(self) -> float:
        """See `Learner`."""
        return train_loss(self._model, self._inputs, objective_of(self._spec, self._inputs))

    def train_epoch(self, epoch: int, report: StepReport) -> dict[str, float]:
        """Mixes what is kept of this epoch; trains nothing, so that there is no loss of training.

        Raises:
            StudyError: the last weights of the other run are not there.
            DamagedError: they are damaged, or not of that run.
        """
        self._epoch = epoch
        path = Checkpoints(self._needed_path).weights_path(epoch)
        self._is_there = path.exists()
        if self._is_there:
            self._mix(path)
        elif epoch == self._spec.epochs:
            problem = f"is made from the last weights of {self._needed_path.name}, which were freed"
            raise StudyError(self._spec.run_id, problem, f"{remake_run(self._needed_path)} trains it again")
        return {}

    def observe(self) -> Observation | None:
        """See `Learner`."""
        return observe(self._model, self._inputs) if self._is_there else None

    def origin_embedding(self) -> np.ndarray | None:
        """See `Learner`."""
        return origin_embedding(self._model, self._inputs)

    def weights(self) -> dict[str, Tensor]:
        """See `Learner`."""
        return dict(self._model.state_dict())

    def state(self) -> dict[str, Tensor]:
        """Only where it is: every epoch is made anew."""
        return {"epoch": torch.tensor(self._epoch)}

    def restore(self, tensors: Mapping[str, Tensor], epoch: int) -> None:
        """See `Learner`."""
        self._epoch = epoch

    def _mix(self, path: Path) -> None:
        facts, tensors = load_checked(path)
        if facts.get("run") != self._needed_path.name:
            problem = f"holds the weights of {facts.get('run', 'another run')}"
            raise DamagedError(str(path), problem, remake_run(self._needed_path))
        try:
            self._model.load_state_dict(tensors)
        except RuntimeError as error:
            problem = f"does not hold the weights of {self._model.backbone.info.name}"
            raise DamagedError(str(path), problem, remake_run(self._needed_path)) from error
        with torch.no_grad():
            for name, value in self._model.backbone.state_dict().items():
                if value.is_floating_point():
                    start = self._start[name]
                    value.copy_(start + self._share * (value - start))
