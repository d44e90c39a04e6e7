"""What each fine-tuning method changes of plain training: one module a method, named in `methods.METHODS`.

A module gives `make(spec, model)`, the `Recipe` of a run; one whose method is made from another run gives a `Learner`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from engine.finetune.methods import method_of

if TYPE_CHECKING:
    from engine.backbones.backbone import Backbone
    from engine.finetune.classifier import Classifier
    from engine.finetune.recipes.recipe import Recipe
    from engine.study import RunSpec


def make_recipe(spec: RunSpec, model: Classifier) -> Recipe:
    """The recipe of a run.

    Args:
        model: as it is before training: what is pre-trained is θ*.
    Raises:
        StudyError: the method cannot be used on this backbone, or with these settings.
        MachineError: it needs a library that is not installed.
    """
    from engine.finetune.recipes.recipe import Recipe

    method = method_of(spec.method)
    module: Any = import_module(method.module) if method.module else None
    recipe: Recipe = module.make(spec, model) if module else Recipe(spec, model)
    return recipe


def check_recipes(specs: Iterable[RunSpec], backbone: Backbone) -> None:
    """Refuses, before anything is trained, methods that cannot be used on a backbone, which stays as it is.

    Raises:
        StudyError, MachineError: as `make_recipe`.
    """
    from torch import nn

    from engine.finetune.classifier import Classifier

    for spec in {each.method: each for each in specs if method_of(each.method).settings}.values():
        make_recipe(spec, Classifier(copy.deepcopy(backbone), nn.Linear(backbone.info.n_features, 2)))
