"""Owns the `[executor]` section of a study file: what places the runs, and what each gets; places nothing."""

from __future__ import annotations

import re
from dataclasses import field
from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

ExecutorKind = Literal["local", "ray", "slurm"]
# By these simtui places the runs and finds them again.
_OPTIONS_OF_ITS_OWN = {
    "account", "array", "cpus-per-task", "error", "gres", "gpus", "gpus-per-node", "job-name", "mem", "nodes", "ntasks",
    "ntasks-per-node", "open-mode", "output", "partition", "qos", "signal", "time", "wrap",
}  # fmt: skip


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class ExecutorSection:
    """What places the runs; changes where and when results come, not (up to rounding) what they are.

    `local` goes by `[machine]` alone. `gpus`, `cpus` and `memory_gb` are what a run gets; parts of a GPU are for `ray`.
    `max_retries`: how often a run goes on elsewhere after its node was lost. `address` and `shared` are for `ray`:
    whether every node sees the study folder under the same path. `partition` and what follows are for `slurm`; `time`
    is in minutes, `extra` holds any other option of `sbatch`. `cluster = "local"` tries submitit out on this machine,
    without Slurm.
    """

    kind: ExecutorKind = "local"
    gpus: Annotated[float, Field(ge=0, le=64)] = 1.0
    cpus: Annotated[float, Field(gt=0, le=1024)] = 1.0
    memory_gb: Annotated[float, Field(gt=0)] | None = None
    max_retries: Annotated[int, Field(ge=0, le=1000, strict=True)] = 5
    address: str = ""
    shared: bool = True
    partition: str = ""
    time: Annotated[int, Field(ge=1, strict=True)] = 1440
    account: str = ""
    qos: str = ""
    array_parallelism: Annotated[int, Field(ge=1, strict=True)] = 256
    extra: dict[str, str | int | bool] = field(default_factory=dict)
    cluster: Literal["slurm", "local"] = "slurm"


def problem_of_executor(executor: ExecutorSection) -> str:
    """What cannot be, behind `executor.`; empty where all can.

    Whole GPUs, but for Ray's parts of one; whole processors for Slurm; nothing that could become another option.
    """
    gpus, cpus = executor.gpus, executor.cpus
    if gpus != int(gpus) and (executor.kind == "slurm" or gpus > 1):
        return f"gpus = {gpus:g}: need a whole number (or, with ray, a part of one)"
    if cpus != int(cpus) and executor.kind == "slurm":
        return f"cpus = {cpus:g}: need a whole number with slurm"
    if not re.fullmatch(r"|auto|local|[\w.-]+:\d+|\[[\da-fA-F:]+\]:\d+", executor.address):
        return f'address = "{executor.address}": need "auto", "local" or HOST:PORT (on a node of the cluster)'
    for name, value in (("partition", executor.partition), ("account", executor.account), ("qos", executor.qos)):
        if not value.isprintable():
            return f"{name}: need a text on one line"
    for name, given in executor.extra.items():
        if not re.fullmatch(r"[a-z][a-z0-9-]*", name) or not str(given).isprintable():
            return f'extra: "{name}" is no option of sbatch, or its value is not on one line'
        if name in _OPTIONS_OF_ITS_OWN:
            return f'extra: "{name}" is for simtui to set (it has a setting of its own, or the runs go by it)'
    return ""
