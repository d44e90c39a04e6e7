"""Studies as processes: run to the end, killed, stopped, continued, extended; followed from their files alone."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from engine.errors import LockedError, MachineError, StudyError
from engine.jobs.launch import make_study_folder, start_study, stop_study
from engine.jobs.progress import study_progress
from engine.jobs.stage import RunProgress, Stage, Throttled, read_run_progress, read_stage
from engine.lock import locked
from engine.runs.record import RunRecord, State, read_record, write_record
from engine.runs.study_folder import StudyFolder
from engine.study import Study, load_study, run_specs
from tests.studies import write_study


def _until(is_true: Callable[[], bool], process: subprocess.Popen[bytes], limit_s: float = 240) -> None:
    end = time.monotonic() + limit_s
    while not is_true():
        assert process.poll() is None, "the study ended before"
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


def _states(folder: StudyFolder) -> set[State]:
    return {record.state for record in folder.listing().records}


def test_a_study_survives_kills_and_stops_and_ends_as_if_undisturbed(tmp_path: Path) -> None:
    request = load_study(write_study(tmp_path, methods=["full", "linear"], epochs=3))
    folder = make_study_folder(request, tmp_path / "out")

    process = start_study(folder)
    _until(lambda: any(record.epochs_done >= 1 for record in folder.listing().records), process)
    with pytest.raises(LockedError, match="is being run by process"):
        start_study(folder)
    workers = psutil.Process(process.pid).children()
    os.kill(process.pid, signal.SIGKILL)
    for worker in workers:
        worker.kill()
    process.wait()
    psutil.wait_procs(workers)
    assert State.INTERRUPTED in _states(folder)

    process = start_study(folder)
    _until(lambda: State.RUNNING in _states(folder), process)
    assert stop_study(folder).was_running
    process.wait()
    assert not stop_study(folder).was_running

    assert start_study(folder).wait() == 0
    assert _states(folder) == {State.DONE}
    whole = make_study_folder(request, tmp_path / "whole")
    assert start_study(whole).wait() == 0
    for record in whole.listing().records:
        names = ["results.h5", "history.csv", "checkpoints/epoch-003.safetensors"]
        for name in [*names, "attention.h5"] if record.spec.method == "full" else names:
            paths = [each.run_path(record.run_id) / name for each in (folder, whole)]
            assert paths[0].read_bytes() == paths[1].read_bytes(), (record.run_id, name)
    assert not list(folder.path.rglob("*.tmp-*")) and not list(folder.path.rglob("*.lock"))

    provenance = whole.listing().records[0].provenance
    assert (provenance.n_train, provenance.n_probe, provenance.n_classes) == (21, 6, 3)
    assert provenance.weights_sha256 and provenance.manifest_digest and "study.toml --out" in provenance.command
    for record in whole.listing().records:
        (session,) = record.sessions
        assert session.versions["torch"] and session.host and session.seconds > 0 and session.started_at
        assert set(record.files) >= {"results.h5", "history.csv", "checkpoints/epoch-003.safetensors"}
        assert ("attention.h5" in record.files) == (record.spec.method == "full")
        # Three splits, the probe and the origin set, the origin probe, and the attention maps.
        assert list(record.activations.values()).count("reference") == 7
        assert record.activations[record.provenance.attention_reference] == "reference"
        assert record.provenance.n_origin_probe == 24
    resumed = [record for record in folder.listing().records if len(record.sessions) > 1]
    assert resumed and all(record.sessions[1].first_epoch > 0 for record in resumed)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return load_study(write_study(tmp_path))


def test_a_folder_goes_on_with_more_runs_but_not_with_other_settings(study: Study, tmp_path: Path) -> None:
    folder = make_study_folder(study, tmp_path / "out")
    more = replace(study, finetune=replace(study.finetune, seeds=4))
    assert make_study_folder(more, tmp_path / "out").study.finetune.seeds == 4
    with pytest.raises(StudyError, match=r"finetune\.epochs: is 9"):
        make_study_folder(replace(study, finetune=replace(study.finetune, epochs=9)), folder.path)


def test_a_read_only_folder_is_refused_before_anything_starts(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_study_folder(study, tmp_path / "out")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(MachineError, match="is read-only"):
        start_study(folder)


def test_progress_counts_epochs_and_divides_what_is_left_among_workers(study: Study, tmp_path: Path) -> None:
    folder = make_study_folder(study, tmp_path / "out")
    full, linear, scratch = run_specs(study)
    write_record(
        folder.run_path(full.run_id), RunRecord(full.run_id, full, State.DONE, epochs_done=2, epoch_seconds=(10, 30))
    )
    write_record(
        folder.run_path(linear.run_id),
        RunRecord(linear.run_id, linear, State.RUNNING, epochs_done=1, epoch_seconds=(2.0,)),
    )
    write_record(folder.run_path(scratch.run_id), RunRecord(scratch.run_id, scratch))
    hint_path = folder.run_path(linear.run_id) / "progress.json"
    Throttled(hint_path).write(RunProgress(2, 2, 1, 4, 99.0, 0.5), is_last=True)
    Throttled(folder.stage_path).write(Stage("running", n_workers=2), is_last=True)
    with locked(folder.lock_path), locked(folder.run_path(linear.run_id) / "run.lock"):
        progress = study_progress(folder)
    assert (progress.n_runs, progress.n_done, progress.epochs_done, progress.epochs_total) == (3, 1, 3, 6)
    assert progress.runs[linear.run_id].images_per_s == 99.0
    # linear: 3/4 of an epoch of 2 s; scratch: 2 epochs of the mean of all, 14 s; two workers.
    assert progress.time_left_s == pytest.approx((0.75 * 2 + 2 * 14) / 2)
    assert study_progress(folder).time_left_s is None


def test_hints_that_cannot_be_read_are_no_hints(tmp_path: Path) -> None:
    odd = '{"name": 3, "done": "x", "epoch": [], "epochs": 1, "step": "a", "steps": 1, "images_per_s": 1, "loss": 1}'
    for content in ("", "[]", '{"odd": 1}', "null", odd):
        (tmp_path / "hint").write_text(content)
        assert read_stage(tmp_path / "hint") is None
        assert read_run_progress(tmp_path / "hint") is None


def test_a_study_of_other_images_than_it_began_with_is_refused(study: Study, tmp_path: Path) -> None:
    folder = make_study_folder(study, tmp_path / "out")
    spec = run_specs(study)[0]
    path = folder.run_path(spec.run_id)
    record = RunRecord(spec.run_id, spec)
    write_record(path, replace(record, provenance=replace(record.provenance, manifest_digest="0" * 64)))
    assert start_study(folder).wait() == 2
    failure = study_progress(folder).failure
    assert failure is not None
    assert "holds other images, labels or splits than when the study began" in failure.problem
    assert read_record(path).state is State.QUEUED
