"""Frees the tensors of a pickled checkpoint, in a child process: the parent never unpickles, and imports no torch.

The child, `engine.foreign.convert_child`, is the one place of simtui that calls `torch.load`. It runs with
`weights_only=True`, little memory, and may start no process and open no connection.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Converted:
    """A pickle's tensors as a safetensors file, by dotted name: `state_dict.blocks.0.norm1.weight`.

    Args:
        facts: plain numbers and short texts that stood beside the weights, by dotted name, such as `epoch`, `arch`.
        left_out: what of the pickle was not taken, such as `optimizer`.
    """

    path: Path
    facts: Mapping[str, int | float | str]
    left_out: tuple[str, ...]


def convert(
    files: Sequence[Path], target: Path, *, timeout_s: float = 900.0, stop: threading.Event | None = None
) -> Converted:
    """Writes the tensors of a pickled checkpoint to `target`, whole or not at all; the pickle stays as it is.

    Does nothing where `target` holds the tensors of these very files already.

    Args:
        files: the pickle, or all shards of one.
        target: ends in .safetensors; its folder is made where it is not there.
        stop: set by another thread that wants it no more.
    Raises:
        WeightsError: a file is absent, empty, cut short, no checkpoint, names what only a pickle that runs code needs,
            claims more than it stores, or holds no tensors.
        MachineError: no room, too little memory, too slow, stopped, or the child ended without a word.
    """
    raise NotImplementedError
