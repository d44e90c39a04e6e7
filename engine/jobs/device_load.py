"""How busy a worker's device is, for whoever looks at the study; measured by the worker, which has the device open."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch

_log = logging.getLogger("simtui.worker")


@dataclass(frozen=True)
class DeviceLoad:
    """A device at one moment, all its users taken together; None for what cannot be measured."""

    memory_used_mb: float | None = None
    memory_total_mb: float | None = None
    utilisation: float | None = None


class DeviceMeter:
    """Measures the devices of a run; what fails once is not asked again, so that its absence is logged once."""

    def __init__(self, devices: Sequence[torch.device]) -> None:
        self._devices = devices
        self._has_memory = self._has_utilisation = devices[0].type == "cuda"

    def read(self) -> DeviceLoad:
        """The devices now, their memory together; a driver that does not answer costs the figure, never the run."""
        used_mb, total_mb = self._memory_mb()
        return DeviceLoad(used_mb, total_mb, self._utilisation())

    def _memory_mb(self) -> tuple[float | None, float | None]:
        if not self._has_memory:
            return None, None
        try:
            found = [torch.cuda.mem_get_info(device) for device in self._devices]
        except RuntimeError as error:
            self._has_memory = False
            _log.info("the memory of %s cannot be measured: %s", self._devices[0], error)
            return None, None
        return sum(total - free for free, total in found) / 1e6, sum(total for _, total in found) / 1e6

    def _utilisation(self) -> float | None:
        if not self._has_utilisation:
            return None
        try:
            return sum(torch.cuda.utilization(device) for device in self._devices) / len(self._devices) / 100
        except Exception as error:  # pynvml is missing, or its own error: a part of a shared device has no such figure
            self._has_utilisation = False
            _log.info("the load of %s cannot be measured: %s", self._devices[0], error)
            return None
