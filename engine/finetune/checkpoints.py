"""Owns the checkpoints of a run: weights for users, weights with optimiser state for resuming; safetensors only."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from engine.checkpoint_seal import FACTS, UNSEALED, check_checkpoint, header_facts, seal_checkpoint
from engine.errors import DamagedError
from engine.fault_points import reach
from engine.files import atomic_path
from engine.runs.record import remake_run, weights_name

_NAME = re.compile(r"epoch-(\d+)\.safetensors")
# The newest may be damaged (a bit flip, a full disk of another system): the one before is kept until the next is whole.
_KEPT = 2
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ResumePoint:
    """Everything needed to go on after `epoch`, by name."""

    epoch: int
    tensors: Mapping[str, Tensor]


class Checkpoints:
    """The checkpoints folder of one run."""

    def __init__(self, run_path: Path) -> None:
        self._folder = run_path / "checkpoints"
        self._last = self._folder / "last"

    def weights_path(self, epoch: int) -> Path:
        """Where the weights of an epoch lie, if they were kept."""
        return self._folder.parent / weights_name(epoch)

    def kept(self) -> list[Path]:
        """The weights that are kept, first epoch first."""
        return sorted(path for path in self._folder.glob("*.safetensors") if _NAME.fullmatch(path.name))

    def save_weights(self, epoch: int, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        """Writes the weights of an epoch, whole."""
        _save(self.weights_path(epoch), tensors, dict(metadata))

    def save_resume_point(self, point: ResumePoint) -> None:
        """Writes the state after an epoch, whole, and drops all but the newest two."""
        path = self._last / f"epoch-{point.epoch:03d}.safetensors"
        _save(path, point.tensors, {"epoch": str(point.epoch)})
        for epoch, old_path in self._resume_paths()[_KEPT:]:
            if epoch < point.epoch:
                old_path.unlink(missing_ok=True)
                reach("last:pruned")

    def load_resume_point(self, up_to: int) -> ResumePoint | None:
        """The newest readable state of an epoch up to `up_to`; a damaged one is named in the log and passed over."""
        for epoch, path in self._resume_paths():
            if epoch > up_to:
                continue
            try:
                facts, tensors = load_checked(path)
                return ResumePoint(int(facts["epoch"]), tensors)
            except (DamagedError, KeyError, ValueError) as error:
                _log.warning("%s is damaged (%s): going on from the one before", path, error)
        return None

    def drop_resume_points(self) -> None:
        """Removes what only an unfinished run needs."""
        for _, path in self._resume_paths():
            path.unlink(missing_ok=True)
        if self._last.exists():
            self._last.rmdir()

    def _resume_paths(self) -> list[tuple[int, Path]]:
        found = [
            (int(m.group(1)), path) for path in self._last.glob("*.safetensors") if (m := _NAME.fullmatch(path.name))
        ]
        return sorted(found, reverse=True)


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state of an optimiser as flat named tensors."""
    state = optimiser.state_dict()["state"]
    return {f"optimiser.{index}.{name}": value for index, values in state.items() for name, value in values.items()}


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Puts back what `optimiser_tensors` gave."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        prefix, _, rest = key.partition(".")
        if prefix == "optimiser":
            index, _, name = rest.partition(".")
            state.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def load_checked(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """What was written along with the tensors, and the tensors.

    Raises:
        DamagedError: not a checkpoint of simtui's, or changed since it was written.
    """
    try:
        facts = header_facts(path)
        if "seal" in facts:
            check_checkpoint(path)
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if "seal" not in facts and facts["sha256"] != _digest_before_seals(tensors):
            raise ValueError("its digest does not match: changed since it was written")
        return facts, tensors
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        problem = str(error) if isinstance(error, ValueError) else f"not a checkpoint of simtui's ({error})"
        raise DamagedError(str(path), problem, remake_run(_run_path(path))) from error


def _run_path(path: Path) -> Path:
    return next((each for each in path.parents if each.name == "checkpoints"), path.parent).parent


def _save(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    n_bytes = sum(value.nbytes for value in plain.values())
    with atomic_path(path, n_bytes) as temp_path:
        try:
            # One entry: the format writes several in random order, and the same weights must be the same bytes.
            save_file(plain, temp_path, {FACTS: json.dumps({**metadata, "seal": UNSEALED}, sort_keys=True)})
        except SafetensorError as error:  # the number of the system's error is in its text alone
            found = re.search(r"os error (\d+)", str(error))
            raise OSError(int(found[1]) if found else errno.EIO, str(error)) from error
        seal_checkpoint(temp_path)


def _digest_before_seals(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names and bytes: what the first checkpoints had."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        total.update(name.encode())
        total.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()
