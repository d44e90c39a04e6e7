"""Keeps float32 products exact to float32, whatever the process has allowed for its training; knows no measure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Inside, no product is rounded to TF32 or bfloat16; afterwards the process is as it was.

    A TF32 or bfloat16 product costs CKA up to 3e-3. The switches belong to the process: products that another thread
    starts in the meantime are exact too.
    """
    backends: Any = torch.backends
    # torch before 2.9 has one switch for all; later ones have one each, and refuse to have both kinds mixed
    before = _replace(backends, ["ieee", "ieee"] if hasattr(backends.mkldnn, "matmul") else ["highest"])
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        _replace(backends, before)


def _replace(backends: Any, settings: list[str]) -> list[str]:
    if len(settings) == 1:
        before = [torch.get_float32_matmul_precision()]
        torch.set_float32_matmul_precision(settings[0])
        return before
    switches = (backends.cuda.matmul, backends.mkldnn.matmul)
    before = [switch.fp32_precision for switch in switches]
    for switch, setting in zip(switches, settings, strict=True):
        switch.fp32_precision = setting
    return before
