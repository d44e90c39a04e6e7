"""What is written of a run as it goes on: its results, its record, the weights and activations that stay.

The order of writing is what survives a crash: results first, then what counts the epoch as done.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

from engine.activations.store import Activations, activation_key
from engine.fault_points import reach
from engine.files import sha256_file
from engine.finetune.bench import Bench
from engine.finetune.checkpoints import Checkpoints
from engine.runs.attention_maps import ATTENTION_FILE
from engine.runs.record import RunRecord, State, write_record
from engine.runs.results import HISTORY_FILE, RESULTS_FILE, Results, write_results


class Ledger:
    """The folder of one run, for the one process that works on it."""

    def __init__(self, run_path: Path, record: RunRecord, bench: Bench) -> None:
        self._started_s = time.monotonic()
        self._bench = bench
        self.path, self.record = run_path, record
        self.checkpoints = Checkpoints(run_path)
        self.results = Results(bench.reference.probe.layers)
        self._activations = dict.fromkeys(bench.reference.keys, "reference")

    def begin(self, first_epoch: int, kept: RunRecord, **changes: object) -> None:
        """This process is the last of the sessions.

        Args:
            kept: the record with the sessions and activations of what is kept of earlier processes.
        """
        session = dataclasses.replace(self._bench.session, first_epoch=first_epoch)
        self._activations |= {key: role for key, role in kept.activations.items() if _epoch_of(role) is not None}
        self.update(state=State.RUNNING, reason="", sessions=(*kept.sessions, session), **changes)

    def write(self, results: Results) -> None:
        """The results with one more epoch in them."""
        self.results = results
        write_results(self.path, results)

    def keep(
        self,
        epoch: int,
        weights: Callable[[], Mapping[str, Tensor]],
        probes: Mapping[str, Activations] | None,
        facts: Mapping[str, str] | None = None,
    ) -> None:
        """The weights of an epoch, and its activations where they are not those of θ* (`probes` is None).

        `facts` is what else the checkpoint is to say of itself.
        """
        self.checkpoints.save_weights(epoch, weights(), {"run": self.record.run_id, **(facts or {})})
        if probes is None:
            return
        weights_sha256 = sha256_file(self.checkpoints.weights_path(epoch))
        for domain, probe in probes.items():
            images_digest = self._bench.inputs.digest_of_probe(domain)
            key = activation_key(weights_sha256, images_digest, (self.record.spec.backbone.name,))
            self._bench.store.save(key, probe)
            self._activations[key] = f"epoch {epoch}"

    def metrics(self, epoch: int) -> dict[str, float | None]:
        """All metrics of an epoch, with the mean similarity of the layers, as `run.json` shows them."""
        found = {name: _or_none(values[epoch]) for name, values in self.results.quality.items()}
        for key, matrices in self.results.similarity.items():
            name = f"{key.measure}_{key.pooling}" + ("" if key.probe == "target" else f"_{key.probe}")
            found[name] = _or_none(np.diagonal(matrices[epoch]).astype(np.float64).mean())
        return found

    def update(self, **changes: object) -> None:
        """Writes the record, with how long this process has worked on it."""
        record = self.record.with_(**changes, activations=dict(self._activations))
        *earlier, session = record.sessions
        seconds = round(time.monotonic() - self._started_s, 3)
        self.record = record.with_(sessions=(*earlier, dataclasses.replace(session, seconds=seconds)))
        write_record(self.path, self.record)

    def end(self) -> RunRecord:
        """The run is done: names every file that stays of it."""
        self.update(state=State.DONE, files=self._files())
        reach("run:done")
        return self.record

    def stop(self) -> RunRecord:
        """The run is stopped, and can go on."""
        self.update(state=State.STOPPED, reason="stopped as asked")
        return self.record

    def _files(self) -> dict[str, str]:
        """SHA-256 of what stays of the run, by its name in the folder."""
        names = [RESULTS_FILE, HISTORY_FILE, *sorted(f"checkpoints/{p.name}" for p in self.checkpoints.kept())]
        if (self.path / ATTENTION_FILE).exists():
            names.append(ATTENTION_FILE)
        return {name: sha256_file(self.path / name) for name in names}


def kept_before(record: RunRecord, first_epoch: int) -> RunRecord:
    """The record without the sessions of which nothing is kept, and without the activations from an epoch on."""
    sessions = tuple(each for each in record.sessions if each.first_epoch < first_epoch)
    made = {
        key: role
        for key, role in record.activations.items()
        if (epoch := _epoch_of(role)) is not None and epoch < first_epoch
    }
    return record.with_(sessions=sessions, activations=made)


def is_kept(keep: str, *, is_end: bool) -> bool:
    """Whether the weights and activations of an epoch stay, as the study's `keep` says."""
    return keep == "all" or (keep == "ends" and is_end)


def _epoch_of(role: str) -> int | None:
    """The epoch of an activation file; None of those of θ*, which belong to none and are named anew by each process."""
    digits = role.removeprefix("epoch ")
    return int(digits) if digits.isdecimal() else None


def _or_none(value: float | np.floating) -> float | None:
    return None if np.isnan(value) else float(value)
