"""What the processes of one run on several devices do together; knows nothing of who starts them, or of models.

Every process computes its share of each batch and the loss of the whole batch, from outputs that are gathered. The loss
counts as its `size`-th part in each, and what is gathered hands its gradient back to where it came from, so the sum of
the processes' gradients is the gradient of one device, whatever the loss does with its batch.
"""

from __future__ import annotations

import contextlib
import os
import socket
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from engine.errors import ProcessLostError, TrainingError

# Processes of one machine talk to each other alone, whatever networks it has. "lo0" is that of macOS.
_LOOPBACKS = ("lo", "lo0")
_INTERFACE_OF = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
_PATIENCE = timedelta(minutes=10)
_BUCKET_BYTES = 25 << 20
_STORE_FILE = "store"


@dataclass(frozen=True)
class Share:
    """The rows `start` to `stop` of a batch of `n`, which one process computes; at least one.

    Only the first `n_own` count: none, where there are fewer rows than processes and this one computes a row for show.
    """

    n: int
    start: int
    stop: int
    n_own: int

    @property
    def rows(self) -> slice:
        """As an index of the batch."""
        return slice(self.start, self.stop)

    @classmethod
    def whole(cls, n: int) -> Share:
        """All rows."""
        return cls(n, 0, n, n)


class Team:
    """One process of those that compute a run. The first leads: it alone writes, and tells the others what to do."""

    def __init__(self, rank: int, size: int, tell: Callable[[str, int], None] = lambda what, epoch: None) -> None:
        """`tell`: has the other processes begin what this one begins, in an epoch; does nothing in those."""
        self.rank, self.size, self.tell = rank, size, tell

    def share(self, n: int) -> Share:
        """What this process computes of a batch of n rows: all of it, where it is alone."""
        start, stop = (n * each // self.size for each in (self.rank, self.rank + 1))
        return Share(n, start, stop, stop - start) if stop > start else Share(n, 0, 1, 0)

    def whole(self, share: Share, outputs: Any) -> Any:
        """Outputs of the whole batch, with gradients, in each process.

        Args:
            outputs: tensors of `(stop - start, …)` in any lists and tuples; `None` stays.
        """
        if self.size == 1:
            return outputs
        leaves, form = tree_flatten(outputs)
        tensors = [each for each in leaves if each is not None]
        # Rows side by side, so that they travel at once; float32 holds all that bfloat16 does.
        wide = torch.promote_types(torch.float32, _widest(tensors))
        rows = torch.cat([each.reshape(len(each), -1).to(wide) for each in tensors], dim=1)
        parts = _Whole.apply(rows, share).split([each[0].numel() for each in tensors], dim=1)
        found = iter(
            part.reshape(share.n, *each.shape[1:]).to(each.dtype) for part, each in zip(parts, tensors, strict=True)
        )
        return tree_unflatten([None if each is None else next(found) for each in leaves], form)

    def backward(self, loss: Tensor, parameters: Sequence[nn.Parameter]) -> None:
        """Puts the gradient of a loss of the whole batch where `loss.backward()` puts it on one device."""
        if self.size == 1:
            loss.backward()
            return
        (loss / self.size).backward()
        for bucket in _buckets([each.grad for each in parameters if each.grad is not None]):
            flat = torch.cat([each.reshape(-1) for each in bucket])
            add_up(flat)
            for gradient, part in zip(bucket, flat.split([each.numel() for each in bucket]), strict=True):
                gradient.copy_(part.view_as(gradient))

    def merged(self, own: np.ndarray, rows: np.ndarray, n: int) -> np.ndarray:
        """`(n, d)` float32 of which each process has some rows, bit for bit, in each process."""
        if self.size == 1:
            return own
        found = torch.zeros((n, own.shape[1]), dtype=torch.int32)
        found[torch.from_numpy(rows)] = torch.from_numpy(np.ascontiguousarray(own)).view(torch.int32)
        add_up(found)
        return found.view(torch.float32).numpy()

    def check_alike(self, model: nn.Module, epoch: int) -> None:
        """All processes have made the same steps, so they hold the same weights, bit for bit.

        Raises:
            TrainingError: they do not: devices of different kinds, or one that is broken.
        """
        if self.size == 1:
            return
        sums = torch.zeros(self.size, dtype=torch.int64)
        sums[self.rank] = sum(_checksum(each) for each in model.state_dict().values()) % 2**62
        add_up(sums)
        if len(set(sums.tolist())) > 1:
            raise TrainingError(
                f"epoch {epoch}",
                f"the {self.size} devices of the run have come to different weights",
                "take devices of one kind, or set machine.devices_per_run = 1",
            )


ALONE = Team(0, 1)


def join(team: Team, folder: Path, device: torch.device) -> None:
    """Connects this process with the others of its run; they meet in a folder of their own, and use no fixed port.

    Raises:
        ProcessLostError: the others do not come.
    """
    for _, interface in socket.if_nameindex():
        if interface in _LOOPBACKS:
            for name in _INTERFACE_OF:
                os.environ.setdefault(name, interface)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    with _lost_if_it_fails():
        store = dist.FileStore(str(folder / _STORE_FILE), team.size)  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=store, rank=team.rank, world_size=team.size, timeout=_PATIENCE)


def leave() -> None:
    """Ends the connection, where there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def add_up(values: Tensor) -> None:
    """Adds a tensor up over the processes, in place; all get the same bits."""
    with _lost_if_it_fails(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that torch itself no longer uses
        dist.all_reduce(values)


def added_up(values: Tensor) -> Tensor:
    """The sum over the processes, with gradients."""
    found: Tensor = _Sum.apply(values)
    return found


@contextlib.contextmanager
def _lost_if_it_fails() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        said = " ".join(str(error).split())[:200]
        problem = f"its processes have lost each other ({said})"
        raise ProcessLostError("a run on several devices", problem, "run the study again") from error


class _Whole(torch.autograd.Function):
    """Rows of all processes, each in its place; the gradient of each row is the sum over the processes that used it."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, share: Share) -> Tensor:
        ctx.share = share
        found = own.new_zeros((share.n, own.shape[1]))
        found[share.start : share.start + share.n_own] = own[: share.n_own]
        add_up(found)
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        share: Share = ctx.share
        gradient = gradients[0].clone(memory_format=torch.contiguous_format)
        add_up(gradient)
        own = gradient[share.rows].clone()
        own[share.n_own :] = 0
        return own, None


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        found = values.clone(memory_format=torch.contiguous_format)
        add_up(found)
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        found = gradients[0].clone(memory_format=torch.contiguous_format)
        add_up(found)
        return found


def _checksum(values: Tensor) -> int:
    """Over the bits and their places."""
    bits = values.contiguous().reshape(-1).view(torch.int32 if values.element_size() % 4 == 0 else torch.uint8)
    return int((bits.long() * torch.arange(1, 2 * len(bits), 2, device=bits.device)).sum())


def _widest(tensors: Sequence[Tensor]) -> torch.dtype:
    found = tensors[0].dtype
    for each in tensors[1:]:
        found = torch.promote_types(found, each.dtype)
    return found


def _buckets(gradients: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """In the order of the model, of one type each and of some size, so that few messages are sent."""
    bucket: list[Tensor] = []
    for gradient in gradients:
        if bucket and (gradient.dtype != bucket[0].dtype or sum(each.nbytes for each in bucket) > _BUCKET_BYTES):
            yield bucket
            bucket = []
        bucket.append(gradient)
    if bucket:
        yield bucket
