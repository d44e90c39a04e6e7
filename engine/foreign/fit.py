"""Fits the tensors of a foreign checkpoint to a backbone: other names, other containers, joined and split tensors.

What fits is decided by names and shapes together; every value of the backbone comes from the checkpoint, or it is
refused. Knows nothing of folders, pickles or training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from engine.backbones.backbone import Backbone


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


@dataclass(frozen=True)
class Fitted:
    """A checkpoint in the backbone's own terms.

    Args:
        weights: exactly the entries of `backbone.model.state_dict()`, in their types and shapes.
        head: None where there is none that sits on the embedding; `notes` says why where the checkpoint has one.
        left_aside: names in the checkpoint that are used neither for the backbone nor for the head.
        renamed_by: how names were translated, such as `prefix "module." removed; names of transformers' ViT`; "" where
            they are the backbone's own.
        notes: what the user should know: position embeddings resampled, half precision, averaged weights left aside.
    """

    weights: Mapping[str, Tensor]
    head: Head | None
    left_aside: tuple[str, ...]
    renamed_by: str
    notes: tuple[str, ...]


def read_tensors(files: Sequence[Path]) -> dict[str, Tensor]:
    """The tensors of safetensors files, on the CPU; several are the shards of one checkpoint.

    Raises:
        WeightsError: a file is absent, a pickle, holds values that are not finite, or a name that another holds too.
        DamagedError: a file is cut short.
    """
    raise NotImplementedError


def fit_to_backbone(
    tensors: Mapping[str, Tensor], backbone: Backbone, where: str, *, part: str | None = None
) -> Fitted:
    """A checkpoint's weights under the names and in the shapes of a backbone, which is left as it is.

    Args:
        tensors: by name, see `read_tensors`; of a converted pickle with the names of its containers before them.
        backbone: at the input size of the training; its weights do not matter, only names and shapes ("meta" will do).
        where: the checkpoint as the user knows it, for errors.
        part: which of several networks in the checkpoint: a word of their names, such as "teacher" or
            "state_dict_ema". Without it the averaged weights (EMA) are left aside, and said so.
    Raises:
        WeightsError: the checkpoint is not of this backbone (missing, left over, other shapes), holds several networks
            that fit or none under `part`, or adapters that are not merged.
    """
    raise NotImplementedError
