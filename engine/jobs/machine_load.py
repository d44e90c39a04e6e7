"""How busy the machine is that asks: processors and memory; knows nothing of studies, needs no torch."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class MachineLoad:
    """A machine at one moment; `cpu_load` is the mean number of processes that wanted to run in the last minute.

    None where the system does not tell. Memory that the system can give back at once counts as free.
    """

    host: str
    cpu_load: float | None
    n_cpus: int
    memory_used_mb: float
    memory_total_mb: float


def machine_load() -> MachineLoad:
    """This machine, in figures so coarse that a quiet machine gives the same ones again."""
    memory = psutil.virtual_memory()
    return MachineLoad(
        socket.gethostname(),
        _cpu_load(),
        os.cpu_count() or 1,  # of the whole machine, as the load is
        round((memory.total - memory.available) / 1e6, -2),
        round(memory.total / 1e6, -2),
    )


def n_cpus() -> int:
    """The processors that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return psutil.cpu_count() or 1


def _cpu_load() -> float | None:
    try:
        return round(os.getloadavg()[0], 1)
    except (AttributeError, OSError):
        return None
