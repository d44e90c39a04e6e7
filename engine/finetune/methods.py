"""The table of fine-tuning methods; a method says what it starts from and what it trains, and nothing of how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Method:
    """One way to fine-tune. `learning_rate` is the peak where the study names none (AdamW)."""

    name: str
    starts_pretrained: bool
    trains_backbone: bool
    learning_rate: float
    description: str


METHODS: Mapping[str, Method] = {
    method.name: method
    for method in (
        Method("full", True, True, 1e-4, "every weight is trained, from the pre-trained ones"),
        Method("linear", True, False, 1e-2, "only a linear head is trained, on the features of the frozen backbone"),
        Method("scratch", False, True, 5e-4, "every weight is trained, from a random start"),
    )
}
