"""`lp_ft`: linear probing, then full fine-tuning.

For the first epochs only the head is trained, on the same augmented images, through the frozen backbone in eval mode;
then every weight, with an optimiser and a schedule of its own. A head that fits before the backbone moves distorts the
pre-trained features less.
Source: Kumar et al. 2022 (LP-FT).
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.finetune.classifier import Classifier
from engine.finetune.recipes.recipe import Phase, Recipe, learning_rate
from engine.finetune.settings import LpFtSettings
from engine.study import RunSpec, n_probe_epochs


def make(spec: RunSpec, model: Classifier) -> Recipe:
    """See `recipes.make_recipe`."""
    return _LpFt(spec, model)


class _LpFt(Recipe):
    def __init__(self, spec: RunSpec, model: Classifier) -> None:
        super().__init__(spec, model)
        self._backbone = model.backbone
        self._probe = LpFtSettings(**spec.settings)
        self._n_probe_epochs = n_probe_epochs(self._probe, spec.epochs)

    def phases(self) -> Sequence[Phase]:
        n = self._n_probe_epochs
        return (
            Phase(n, self._probe.probe_learning_rate),
            Phase(self.spec.epochs - n, learning_rate(self.spec)),
        )

    def begin(self, epoch: int) -> None:
        trains_backbone = epoch > self._n_probe_epochs
        self.model.train()
        self._backbone.train(trains_backbone).requires_grad_(trains_backbone)
