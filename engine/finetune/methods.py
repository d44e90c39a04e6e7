"""The table of fine-tuning methods; a method says what it starts from and what it trains, and nothing of how.

What changes training has its code in one module of `engine.finetune.recipes`, and its settings, if any, in `settings`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from engine.finetune.settings import (
    CkaPenaltySettings,
    CovarianceAlignmentSettings,
    EmaSettings,
    FeatureDistillationSettings,
    L2SpSettings,
    LayerDecaySettings,
    LoraSettings,
    LpFtSettings,
)

_RECIPES = "engine.finetune.recipes"
_MIXING = re.compile(r"0\.\d{0,5}[1-9]")
HALF = 0.5


@dataclass(frozen=True)
class Method:
    """One way to fine-tune.

    Attributes:
        trains_backbone: whether its backbone ends as another than the one that it starts from.
        learning_rate: the peak where the study names none (AdamW); 0 where nothing is trained.
        module: where its code lies; empty where plain training is all of it.
        settings: what a study may set of it, under `[method.NAME]`.
        needs: the method from whose run of the same backbone and seed it is made.
        follows: the method whose training, of the same backbone and seed, is its own.
        package: what it needs to be installed beside simtui's own requirements.
        cost: seconds of training an image, relative to `full`: as measured of a small backbone on one CPU core.
        resume: what a state to resume from holds, in sizes of the backbone: its weights and AdamW's two moments of all.
    """

    name: str
    starts_pretrained: bool
    trains_backbone: bool
    learning_rate: float
    description: str
    module: str = ""
    settings: type | None = None
    needs: str = ""
    follows: str = ""
    package: str = ""
    cost: float = 1.0
    resume: float = 3.0

    @property
    def is_shareable(self) -> bool:
        """Whether several devices compute one run together: only training of a backbone is worth it."""
        return self.trains_backbone and not self.needs


METHODS: Mapping[str, Method] = {
    method.name: method
    for method in (
        Method("full", True, True, 1e-4, "every weight is trained, from the pre-trained ones"),
        Method("linear", True, False, 1e-2, "only a linear head is trained, on the features of the frozen backbone"),
        Method("scratch", False, True, 5e-4, "every weight is trained, from a random start"),
        Method("lora", True, True, 1e-3, "low-rank adapters of the blocks are trained, the weights below are frozen",
               f"{_RECIPES}.lora", LoraSettings, package="peft", cost=1.2, resume=1.1),
        Method("layer_decay", True, True, 1e-4, "as full, with lower learning rates towards the input",
               f"{_RECIPES}.layer_decay", LayerDecaySettings),
        Method("lp_ft", True, True, 1e-4, "first the head alone on the frozen backbone, then every weight",
               f"{_RECIPES}.lp_ft", LpFtSettings, cost=0.7),
        Method("l2_sp", True, True, 1e-4, "as full, with a penalty on the distance from the pre-trained weights",
               f"{_RECIPES}.l2_sp", L2SpSettings),
        Method("wise_ft", True, True, 0.0, "pre-trained and fully fine-tuned weights, mixed; trains nothing",
               f"{_RECIPES}.wise_ft", needs="full", cost=0.0, resume=0.0),
        Method("ema", True, True, 1e-4, "as full, looked at through a moving average of its weights",
               f"{_RECIPES}.ema", EmaSettings, follows="full", resume=4.0),
        Method("feature_distillation", True, True, 1e-4, "as full, with a penalty on the distance from θ*'s embeddings",
               f"{_RECIPES}.feature_distillation", FeatureDistillationSettings, cost=1.35),
        Method("cka_penalty", True, True, 1e-4, "as full, with 1 − CKA to θ*'s blocks as a penalty",
               f"{_RECIPES}.cka_penalty", CkaPenaltySettings, cost=1.35),
        Method("covariance_alignment", True, True, 1e-4,
               "as full, with a penalty on embeddings whose covariance is no rotation of θ*'s",
               f"{_RECIPES}.covariance_alignment", CovarianceAlignmentSettings, cost=1.35),
    )
}  # fmt: skip


# Two checkpoints, compared as they are, are kept as a run by which nothing was trained: no study asks for one.
COMPARED = "compared"
_COMPARISON = Method(COMPARED, True, True, 0.0, "two checkpoints, compared as they are")


# Checkpoints of the user's own training are kept as runs of a method of their own; `imported:NAME` where a folder holds
# several trainings that are no seeds of each other. That they began from θ* is taken on trust.
IMPORTED = "imported"
_IMPORT = Method(IMPORTED, True, True, 0.0, "checkpoints of your own training, looked at as they are")
_IMPORTED_NAME = re.compile(rf"{IMPORTED}(:[A-Za-z0-9._-]{{1,40}})?")


def is_imported(name: str) -> bool:
    """Whether a run is of checkpoints that simtui has not trained."""
    return bool(_IMPORTED_NAME.fullmatch(name))


def method_of(name: str) -> Method:
    """The method that a run was made by; `wise_ft:0.25` is `wise_ft`.

    Raises:
        KeyError: there is no such method.
    """
    if is_imported(name):
        return _IMPORT
    return _COMPARISON if name == COMPARED else METHODS[name.partition(":")[0]]


def are_of_one_training(first: str, second: str) -> bool:
    """Whether runs of these two methods, of one backbone and seed, come from one training: `wise_ft` from `full`'s."""
    roots = {method_of(name).needs or method_of(name).follows or name for name in (first, second)}
    return first != second and len(roots) == 1


def mixing_of(name: str) -> float:
    """How much of the fine-tuned weights a method that mixes takes: 0.25 for `wise_ft:0.25`, 0.5 for `wise_ft`."""
    value = name.partition(":")[2]
    return float(value) if value else HALF


def is_method(name: str) -> bool:
    """Whether a study can ask for it: a method of the table, or a mixture as `is_mixing` writes it."""
    base, colon, value = name.partition(":")
    return base in METHODS and (not colon or (bool(METHODS[base].needs) and is_mixing(value)))


def is_mixing(text: str) -> bool:
    """Whether this is a mixing value as a name holds it: between 0 and 1, in at most six decimals, the last no 0.

    One half has no name of its own: it is what a method that mixes does without one.
    """
    return bool(_MIXING.fullmatch(text)) and float(text) != HALF


def in_table_order(name: str) -> tuple[int, float, str]:
    """Sorts methods as the table lists them, mixtures from little to much of the fine-tuned weights; others by name."""
    base = name.partition(":")[0]
    return (list(METHODS).index(base), mixing_of(name), "") if base in METHODS else (len(METHODS), 0.0, name)
