"""Owns `plan.json`: what the first worker found out and the others go by; needs no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from engine.errors import DamagedError
from engine.sealed import read_sealed_json, write_sealed_json

PLAN_FILE = "plan.json"


@dataclass(frozen=True)
class Plan:
    """Which devices there are, how many workers share them with how many threads each, and where the manifests lie.

    Each worker has `devices_per_run` of the devices, or as many processes of the CPU, of so many threads each.
    `notes`: what the user should know of the images before any training: what was left out, thin classes, and the like.
    """

    devices: tuple[str, ...]
    n_workers: int
    threads: int
    precision: str
    manifest: str
    origin_manifest: str | None
    notes: tuple[str, ...] = ()
    devices_per_run: int = 1

    def devices_of_worker(self, slot: int) -> tuple[str, ...]:
        """Those of one worker, its own first; workers beyond the devices share them with others."""
        n = self.devices_per_run
        if self.devices[0] == "cpu":
            return ("cpu",) * n
        start = slot % max(1, len(self.devices) // n) * n
        return self.devices[start : start + n]


def write_plan(path: Path, plan: Plan) -> None:
    """Writes the plan, whole."""
    write_sealed_json(path, asdict(plan))


def notes_of(study_path: Path) -> tuple[str, ...]:
    """What the last start said of the images; nothing where there is no readable plan."""
    try:
        return read_plan(study_path / PLAN_FILE).notes
    except DamagedError:
        return ()


def read_plan(path: Path) -> Plan:
    """Reads the plan.

    Raises:
        DamagedError: the file is not a plan.
    """
    raw = read_sealed_json(path, "run the study again")
    try:
        return Plan(**{**raw, "devices": tuple(raw["devices"]), "notes": tuple(raw.get("notes", ()))})
    except (TypeError, KeyError) as error:
        raise DamagedError(str(path), f"is not a plan ({error})", "run the study again") from error
