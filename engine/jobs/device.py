"""Which device of this machine a single question is answered on; needs torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

_Found = TypeVar("_Found")


def study_device(wanted: str) -> torch.device:
    """That of the study where this machine has it: another gives the same figures up to rounding."""
    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "cpu" or n_gpus == 0:
        return torch.device("cpu")
    device = torch.device("cuda:0" if wanted == "auto" else wanted)
    return device if (device.index or 0) < n_gpus else torch.device("cpu")


def on_device(device: torch.device, compute: Callable[[torch.device], _Found]) -> _Found:
    """Computes there, or on the CPU where a training has the memory of the device."""
    try:
        return compute(device)
    except torch.OutOfMemoryError:
        return compute(torch.device("cpu"))
