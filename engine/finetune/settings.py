"""Owns what a study may set of the methods that need more than `[finetune]`: one dataclass a method, torch-free.

Every setting has its type, its range and its default here and nowhere else.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, PlainValidator
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError

_STRICT = ConfigDict(extra="forbid")
_Weight = Annotated[float, Field(gt=0, le=1e6, strict=True)]


def _layers(value: Any) -> Any:
    if value in ("last half", "all"):
        return value
    if isinstance(value, list | tuple) and value and all(type(each) is int and each >= 0 for each in value):
        return tuple(value)
    raise PydanticCustomError("layers", 'need "last half", "all" or a list of blocks counted from 0, such as [6, 11]')


@dataclass(frozen=True, config=_STRICT)
class LoraSettings:
    """Rank and scale (`alpha / rank`) of the adapters, drop-out of what goes into them, and which layers have some."""

    rank: Annotated[int, Field(ge=1, le=1024, strict=True)] = 8
    alpha: _Weight = 16.0
    dropout: Annotated[float, Field(ge=0, lt=1, strict=True)] = 0.0
    layers: Literal["attention", "attention and mlp"] = "attention and mlp"


@dataclass(frozen=True, config=_STRICT)
class LayerDecaySettings:
    """By how much the learning rate falls from a block to the one before; in place of `finetune.layer_decay`."""

    decay: Annotated[float, Field(gt=0, lt=1, strict=True)] = 0.75


@dataclass(frozen=True, config=_STRICT)
class LpFtSettings:
    """How long the head alone is trained, and at which peak; without `probe_epochs`, half of the epochs."""

    probe_epochs: Annotated[int, Field(ge=1, strict=True)] | None = None
    probe_learning_rate: Annotated[float, Field(gt=0, lt=10, strict=True)] = 1e-2


@dataclass(frozen=True, config=_STRICT)
class L2SpSettings:
    """Weight of the squared distance from the pre-trained weights, and of the squared weights of the head."""

    alpha: Annotated[float, Field(gt=0, le=1e6, strict=True)] = 0.1
    beta: Annotated[float, Field(ge=0, le=1e6, strict=True)] = 0.01


@dataclass(frozen=True, config=_STRICT)
class EmaSettings:
    """How much of the average stays at each step, once there have been enough of them."""

    decay: Annotated[float, Field(gt=0, lt=1, strict=True)] = 0.99


@dataclass(frozen=True, config=_STRICT)
class FeatureDistillationSettings:
    """Weight of the penalty beside the loss of the task."""

    weight: _Weight = 1.0


@dataclass(frozen=True, config=_STRICT)
class CkaPenaltySettings:
    """Weight of the penalty beside the loss of the task, and the blocks that it looks at, counted from 0."""

    weight: _Weight = 1.0
    layers: Annotated[str | tuple[int, ...], PlainValidator(_layers)] = "last half"


@dataclass(frozen=True, config=_STRICT)
class CovarianceAlignmentSettings:
    """Weight of the penalty beside the loss of the task."""

    weight: _Weight = 1.0
