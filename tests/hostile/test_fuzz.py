"""Damaged at random, or with a digest that fits: an answer or one clear error, never a traceback or a hang."""

from __future__ import annotations

import contextlib
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from engine.analysis.forgetting import forgetting_table
from engine.analysis.options import TableOptions
from engine.analysis.runs import runs_table
from engine.backbones.weights import local_file
from engine.checkpoint_seal import seal_checkpoint
from engine.errors import SimtuiError
from engine.export import to_csv
from engine.finetune.checkpoints import Checkpoints, ResumePoint, load_checked
from engine.runs.record import RunRecord, State, write_record
from engine.runs.results import Results, SimilarityKey, read_results, write_results
from engine.runs.study_folder import StudyFolder
from engine.sealed import write_sealed_json
from engine.study import freeze_study, load_study, run_specs
from simtui.reader import Snapshot
from simtui.views import runs
from tests.engine.analysis.made_runs import study_of_records
from tests.sweeps import n_of

N_HDF5, N_CHECKPOINTS, N_RECORDS = n_of(60, 2_000), n_of(100, 1_500), n_of(100, 2_000)
LIMIT_S = 20.0


def mutated(content: bytes, drawn: random.Random) -> bytes:
    """One to four changes: bits, bytes, runs of bytes, lost and repeated pieces."""
    changed = bytearray(content)
    for _ in range(drawn.randint(1, 4)):
        at = drawn.randrange(max(1, len(changed)))
        length = drawn.choice((1, 1, 2, 4, 8, 64))
        match drawn.randrange(6):
            case 0:
                changed[at : at + 1] = bytes([changed[at] ^ 1 << drawn.randrange(8)]) if changed else b""
            case 1:
                changed[at : at + length] = drawn.randbytes(length)
            case 2:
                changed[at : at + length] = b"\xff" * length
            case 3:
                del changed[at : at + length]
            case 4:
                changed[at:at] = changed[at : at + length]
            case _:
                del changed[max(1, at) :]
    return bytes(changed)


def _answers(read: Callable[[], object]) -> bool:
    """Whether it is an answer (True) or an expected error; anything else fails the test."""
    started_s = time.monotonic()
    try:
        read()
        return True
    except SimtuiError as error:
        assert error.problem and error.fix
        return False
    finally:
        assert time.monotonic() - started_s < LIMIT_S


def _results() -> Results:
    results = Results(("blocks.0", "blocks.1"))
    for epoch in range(3):
        results = results.with_epoch(
            {SimilarityKey("target", "cls", "linear_cka"): np.full((2, 2), epoch / 10)}, {"test_accuracy": 0.1 * epoch}
        )
    return results


def test_damaged_hdf5_files(tmp_path: Path) -> None:
    """Half with a seal, half without one, as older files have none: those reach the HDF5 library."""
    write_results(tmp_path / "sound", _results())
    sealed = (tmp_path / "sound" / "results.h5").read_bytes()
    bare_path = tmp_path / "bare.h5"
    with h5py.File(tmp_path / "sound" / "results.h5") as old, h5py.File(bare_path, "w", libver="latest") as new:
        for name in old:
            old.copy(name, new)
        new.attrs["schema"] = 1
    drawn = random.Random(1)
    paths = []
    for i in range(N_HDF5):
        path = tmp_path / "runs" / f"run{i}" / "results.h5"
        path.parent.mkdir(parents=True)
        path.write_bytes(mutated(sealed if i % 4 == 0 else bare_path.read_bytes(), drawn))
        paths.append(path)
    answered = sum(_answers(lambda path=path: read_results(path.parent)) for path in paths)
    print(f"{N_HDF5} damaged HDF5 files: {answered} read, {N_HDF5 - answered} refused, no traceback, no hang")


def test_damaged_checkpoints_and_weights(tmp_path: Path) -> None:
    """With a seal that fits, so that what is behind it is reached."""
    tensors = {"a": torch.randn(4, 3), "b": torch.arange(5), "c": torch.randn(2).bfloat16()}
    Checkpoints(tmp_path).save_resume_point(ResumePoint(3, tensors))
    content = (tmp_path / "checkpoints" / "last" / "epoch-003.safetensors").read_bytes()
    save_file(tensors, tmp_path / "weights.safetensors")
    weights = (tmp_path / "weights.safetensors").read_bytes()
    drawn = random.Random(2)
    path = tmp_path / "checkpoints" / "last" / "changed.safetensors"
    answered = 0
    for i in range(N_CHECKPOINTS):
        if i % 3 == 0:
            path.write_bytes(mutated(weights, drawn))
            answered += _answers(lambda: local_file(path))
            continue
        path.write_bytes(mutated(content, drawn))
        if i % 3 == 1:
            with contextlib.suppress(ValueError, OSError):
                seal_checkpoint(path)
        answered += _answers(lambda: load_checked(path))
    print(f"{N_CHECKPOINTS} damaged safetensors files: {answered} read, no traceback, no hang")


ODD: tuple[Any, ...] = (None, True, -1, 10**30, 1e308, float("nan"), "", "\x1b[2J", "[/]", "../../etc", [], {}, [[]],
                        {"a": None}, "x" * 5000)  # fmt: skip


def _changed(value: Any, drawn: random.Random) -> Any:
    """The same tree with something odd somewhere in it."""
    if isinstance(value, dict) and value and drawn.random() < 0.9:
        key = drawn.choice(list(value))
        if drawn.random() < 0.1:
            return {name: inner for name, inner in value.items() if name != key}
        return {**value, key: _changed(value[key], drawn)}
    if isinstance(value, list) and value and drawn.random() < 0.9:
        at = drawn.randrange(len(value))
        return [*value[:at], _changed(value[at], drawn), *value[at + 1 :]]
    return drawn.choice(ODD)


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    path = tmp_path / "study.toml"
    path.write_text('[study]\nname="s"\n[data]\npath="d"\n[[backbone]]\nname="bundled:supervised"')
    path.write_text(freeze_study(load_study(path)))
    return StudyFolder(tmp_path)


def test_damaged_records(folder: StudyFolder) -> None:
    """What is not refused is shown: the table, its CSV and the view must bear it."""
    spec = run_specs(folder.study)[0]
    record = RunRecord(spec.run_id, spec, State.DONE, first={"origin_knn": 0.5}, last={"test_accuracy": 0.7})
    path = folder.run_path(spec.run_id)
    write_record(path, record)
    content = (path / "run.json").read_bytes()
    raw = {name: value for name, value in json.loads(content).items() if name != "sha256"}
    drawn = random.Random(3)
    n_shown = 0
    for i in range(N_RECORDS):
        if i % 4:
            try:
                write_sealed_json(path / "run.json", _changed(raw, drawn))
            except (ValueError, AttributeError, TypeError):  # not JSON at all
                (path / "run.json").write_bytes(mutated(content, drawn))
        else:
            (path / "run.json").write_bytes(mutated(content, drawn))
        listing = folder.listing()
        assert len(listing.records) + len(listing.damaged) == 1
        n_shown += len(listing.records)
        to_csv(runs_table(listing.records))
        to_csv(forgetting_table(study_of_records(listing.records), TableOptions()))
        snapshot = Snapshot(folder.path, "s", listing.records, listing.damaged)
        runs.sheet(snapshot)
        runs.summary(snapshot)
        runs.detail(snapshot, spec.run_id, 80)
    print(f"{N_RECORDS} damaged run.json files: {n_shown} read, {N_RECORDS - n_shown} refused, no traceback, no hang")
