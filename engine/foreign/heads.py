"""Finds the classifier of a foreign checkpoint among the tensors that the backbone does not take."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.backbones.backbone import Backbone
from engine.foreign.dialects import Dialect

_WORDS = re.compile(r"(.*_)?(head|fc|classif|linear|logits|cls|clf|out|predict)s?(\d|_|ier|ication|put|or|$).*")
_OF_ITS_LIBRARY = {"": ("head", "fc", "classifier"), "torchvision's ViT": ("heads",)}
_TWO_TOKENS = "head_dist"


@dataclass(frozen=True)
class Head:
    """A linear classifier on the backbone's embedding.

    Args:
        weight: `(n_classes, n_features)` float32.
        bias: `(n_classes,)` float32; zeros where the checkpoint has none.
        name: of the weight in the checkpoint.
        is_assumed: the checkpoint does not say that this layer sits on the embedding as it is; only its shape does.
    """

    weight: Tensor
    bias: Tensor
    name: str
    is_assumed: bool


def find_head(
    leftover: Mapping[str, Tensor], prefix: str, dialect: Dialect, backbone: Backbone, *, has_unknown: bool
) -> tuple[Head | None, tuple[str, ...]]:
    """The classifier, beside the network's weights or around them, and what is to be said of it.

    Args:
        leftover: what the backbone does not take, by the checkpoint's names.
        prefix: below which the backbone's weights lie.
        has_unknown: there are other modules below it, which may stand between embedding and classifier.
    """
    width = backbone.info.n_features
    for scope in _scopes(prefix):
        groups = _groups(leftover, scope)
        if not groups:
            continue
        if _TWO_TOKENS in groups:
            return None, (f"accuracy is not known: {scope}{_TWO_TOKENS} classifies a second token",)
        linear = {top: head for top, names in groups.items() if (head := _linear(names, leftover, width))}
        if len(groups) > 1:
            return None, (f"accuracy is not known: which of {', '.join(sorted(groups))} is the classifier is not said",)
        top = next(iter(groups))
        if top not in linear:
            return None, (f"accuracy is not known: {scope}{top} is not one linear layer on {width} features",)
        if dialect.head_note and top == "classifier":
            return None, (f"accuracy is not known: {dialect.head_note}",)
        weight, bias, name = linear[top]
        is_assumed = has_unknown or not _is_of_its_library(top, scope, prefix, dialect, backbone)
        notes = (f"that {name} sits on the embedding as it is, is assumed",) if is_assumed else ()
        return Head(weight, bias, name, is_assumed), notes
    return None, ()


def _scopes(prefix: str) -> list[str]:
    """The prefix and those around it: `model.backbone.`, `model.`, ``."""
    words = prefix.removesuffix(".").split(".") if prefix else []
    return ["".join(f"{word}." for word in words[:n]) for n in range(len(words), -1, -1)]


def _groups(leftover: Mapping[str, Tensor], scope: str) -> dict[str, list[str]]:
    """The tensors of each module directly within a scope that is called as classifiers are."""
    groups: dict[str, list[str]] = {}
    for name in leftover:
        top, dot, _ = name.removeprefix(scope).partition(".")
        if name.startswith(scope) and dot and _WORDS.fullmatch(top):
            groups.setdefault(top, []).append(name)
    return groups


def _linear(names: list[str], leftover: Mapping[str, Tensor], width: int) -> tuple[Tensor, Tensor, str] | None:
    """Weight, bias and name, where these are the tensors of one linear layer on so many features."""
    weights = [name for name in names if name.endswith(".weight")]
    if len(weights) != 1 or set(names) - {weights[0], f"{weights[0].removesuffix('weight')}bias"}:
        return None
    weight = leftover[weights[0]].float()
    if weight.ndim == 4 and weight.shape[2:] == (1, 1):
        weight = weight[:, :, 0, 0]
    if weight.ndim != 2 or weight.shape[1] != width:
        return None
    bias = leftover.get(f"{weights[0].removesuffix('weight')}bias", torch.zeros(len(weight))).float()
    if bias.shape != weight.shape[:1] or not (torch.isfinite(weight).all() and torch.isfinite(bias).all()):
        return None
    return weight.contiguous(), bias.contiguous(), weights[0]


def _is_of_its_library(top: str, scope: str, prefix: str, dialect: Dialect, backbone: Backbone) -> bool:
    """Whether the library that trained this network puts its classifier there, on what `Backbone` gives."""
    if backbone.info.family == "open_clip" or hasattr(backbone.model, "ln_post"):
        return False
    if dialect.label.startswith("transformers'"):
        return top == "classifier" and scope == _scopes(prefix)[min(1, len(_scopes(prefix)) - 1)]
    return scope == prefix and top in _OF_ITS_LIBRARY.get(dialect.label, ("head", "fc", "classifier"))
