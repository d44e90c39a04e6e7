"""Where a run happens, and who hears how it goes: what trained and imported runs have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from engine.activations.store import ActivationStore
from engine.errors import DeviceMemoryError
from engine.finetune.inputs import Inputs
from engine.finetune.reference import Reference
from engine.finetune.team import ALONE, Team
from engine.runs.record import Session


class Watcher(Protocol):
    """Hears how a run goes, and says whether it is to stop."""

    def step(
        self, epoch: int, step: int, n_steps: int, images_per_s: float, loss: float | None, waited_share: float
    ) -> None:
        """Called after every step; `waited_share` is the part of the epoch spent waiting for images.

        `loss` is None where nothing is trained.
        """

    def should_stop(self) -> bool:
        """Asked after every epoch."""


@dataclass(frozen=True)
class Bench:
    """Where a run happens: the device, its precision, the inputs, θ*, the activation store, and the process.

    `team`: the processes that compute the run together, of which this one leads.
    """

    device: torch.device
    precision: str
    inputs: Inputs
    reference: Reference
    store: ActivationStore
    session: Session
    team: Team = ALONE


def memory_error(where: str, device: torch.device, batch_size: int) -> DeviceMemoryError:
    """What a device that is too small, or that others use, means for the user."""
    return DeviceMemoryError(
        where,
        f"{device} is out of memory at batch_size = {batch_size}",
        "free the device and run the study again, or start it in a new folder with finetune.batch_size = "
        f"{max(1, batch_size // 2)}",
    )
