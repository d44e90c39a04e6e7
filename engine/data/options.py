"""Owns what a user may say about a dataset: the settings of `[data]` and `[origin]`; reads nothing."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError

Task = Literal["single", "ordinal", "multilabel"]
Policy = Literal["ignore", "zeros", "ones"]


def _from_low_to_high(window: Literal["auto"] | tuple[float, float]) -> Literal["auto"] | tuple[float, float]:
    if window != "auto" and not (window[0] < window[1] and all(map(math.isfinite, window))):
        raise PydanticCustomError("window", "need two numbers, the lower one first")
    return window


Window = Annotated[Literal["auto"] | tuple[float, float], AfterValidator(_from_low_to_high)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class DataOptions:
    """How a dataset is to be read; whatever is left out is recognised, or has the default that the reader states.

    Attributes:
        layout: a name from `engine.data.layouts.LAYOUTS`.
        table: the table of labels, a path inside the folder.
        image: the column that names the images, by path or id.
        label: the column of the labels, or the columns of a one-hot or multi-label table.
        group: the column that names what must not be in two splits (a patient, a lesion); "" for no groups.
        split: the column that names the split of an image; "" to have splits drawn.
        task: "single" (one class an image), "ordinal" (classes are grades), "multilabel" (any number of findings).
        uncertain: what −1 of a multi-label table counts as; what is ignored takes no part in loss and metrics.
        blank: what an empty cell of a multi-label table counts as.
        window: the intensities that become black and white in images deeper than 8 bits; "auto" takes the 0.5th and
            the 99.5th percentile of each image.
        frame: which frame of images that hold several, counted from 0.
        follow_links: whether links may lead out of the folder.
        max_skipped: the share of unusable images above which reading stops.
    """

    layout: str | None = None
    table: str | None = None
    image: str | None = None
    label: str | tuple[str, ...] | None = None
    group: str | None = None
    split: str | None = None
    task: Task | None = None
    uncertain: Policy = "ignore"
    blank: Policy = "zeros"
    window: Window | None = None
    frame: Annotated[int, Field(ge=0, strict=True)] | None = None
    follow_links: bool = False
    max_skipped: Annotated[float, Field(ge=0, le=1)] = 0.05
