"""Where a study goes when it is started: under systemd if that outlives the login, else in a session of its own."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.cleaning import refuse_running
from engine.errors import LockedError, MachineError
from engine.jobs.launch import detach_study, make_study_folder, start_study, stop_study, survives_as_service
from engine.jobs.progress import study_progress
from engine.jobs.scheduler import queue_runs
from engine.lock import locked
from engine.runs.record import State, write_record
from engine.runs.study_folder import StudyFolder
from engine.study import load_study
from tests.studies import write_study


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    return make_study_folder(load_study(write_study(tmp_path, methods=["linear"])), tmp_path / "out put")


def _put_on_path(folder: Path, monkeypatch: pytest.MonkeyPatch, **scripts: str) -> None:
    folder.mkdir()
    for name, body in scripts.items():
        path = folder / name.replace("_", "-")
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def _wait(folder: StudyFolder) -> None:
    end_s = time.monotonic() + 120
    while folder.running_by() is not None or study_progress(folder).stage != "finished":
        assert time.monotonic() < end_s, folder.log_path.read_text()
        time.sleep(0.1)


def test_a_method_without_its_package_is_refused_before_anything_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    made = load_study(write_study(tmp_path, methods=["linear", "lora"]))
    folder = make_study_folder(made, tmp_path / "out")
    for start in (start_study, detach_study):
        with pytest.raises(MachineError, match=r'lora: needs peft, .*\n  fix: pip install "simtui\[lora\]"') as caught:
            start(folder)
        assert caught.value.exit_code == 4
    assert not folder.log_path.exists() and folder.running_by() is None


def test_systemd_is_used_where_services_outlive_the_login(
    folder: StudyFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stand-in keeps what it is asked, and runs the command as systemd would: away from this process."""
    run = f'printf "%s\\n" "$@" > {tmp_path}/asked\nwhile [ "$1" != "--" ]; do shift; done; shift\n'
    run += f"setsid \"$@\" >> '{folder.log_path}' 2>&1 &"
    _put_on_path(tmp_path / "bin", monkeypatch, loginctl="echo yes", systemd_run=run)
    monkeypatch.setenv("SIMTUI_TEST", "a b=c")
    detach_study(folder)
    _wait(folder)
    asked = (tmp_path / "asked").read_text().splitlines()
    assert "--user" in asked and "--collect" in asked and "--setenv=SIMTUI_TEST=a b=c" in asked
    assert f"--property=StandardOutput=append:{folder.log_path}" in asked
    assert {record.state for record in folder.listing().records} == {State.DONE}


@pytest.mark.parametrize(
    "scripts",
    [{"loginctl": "echo no"}, {"loginctl": "exit 1"}, {"loginctl": "echo yes", "systemd_run": "exit 1"}],
    ids=["does not linger", "no login manager", "systemd refuses"],
)
def test_without_it_the_study_starts_all_the_same(
    folder: StudyFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scripts: dict[str, str]
) -> None:
    _put_on_path(tmp_path / "bin", monkeypatch, **{"systemd_run": "exit 9", **scripts})
    assert survives_as_service() == ("echo yes" in scripts.values())
    detach_study(folder)
    assert folder.running_by() is not None
    assert stop_study(folder, now=True).was_running
    end_s = time.monotonic() + 60
    while folder.running_by() is not None:
        assert time.monotonic() < end_s
        time.sleep(0.05)


def test_a_study_outlives_the_terminal_it_was_started_from(folder: StudyFolder) -> None:
    """A shell on a terminal starts it, and the terminal goes, as when an SSH connection is lost."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-m", "simtui", "run", str(folder.path)])
    time.sleep(0.1)
    end_s = time.monotonic() + 60
    while folder.running_by() is None:
        assert time.monotonic() < end_s
        time.sleep(0.02)
    os.close(terminal)
    os.kill(pid, signal.SIGHUP)
    os.waitpid(pid, 0)
    _wait(folder)
    assert {record.state for record in folder.listing().records} == {State.DONE}


def test_stop_now_ends_it_at_once_and_the_run_goes_on_later(tmp_path: Path) -> None:
    folder = make_study_folder(load_study(write_study(tmp_path, methods=["full"], epochs=500)), tmp_path / "out")
    process = start_study(folder)
    end_s = time.monotonic() + 120
    while not any(record.epochs_done >= 1 for record in folder.listing().records):
        assert time.monotonic() < end_s and process.poll() is None
        time.sleep(0.05)
    stop_study(folder, now=True)
    process.wait(timeout=30)
    (record,) = folder.listing().records
    # An epoch that ends in the moment before the signal stops the run by itself.
    assert record.reason in ("stopped by a signal", "stopped as asked")
    assert record.state is State.STOPPED and 1 <= record.epochs_done < 500
    assert folder.running_by() is None and not list(folder.path.rglob("*.tmp-*"))


def test_the_screen_is_clean_and_the_code_130_after_ctrl_c(folder: StudyFolder) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "simtui", "run", "--wait", str(folder.path)], stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell has its background jobs ignore it
    )  # fmt: skip
    end_s = time.monotonic() + 60
    while folder.running_by() is None:
        assert time.monotonic() < end_s
        time.sleep(0.02)
    time.sleep(0.5)  # in the middle of an import Python may pass over it
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130 and "Traceback" not in said
    assert folder.running_by() is None


def test_runs_whose_scheduler_has_died_are_asked_to_stop_too(folder: StudyFolder) -> None:
    queue_runs(folder)
    assert not stop_study(folder).was_running and not folder.stop_path.exists()
    (record,) = folder.listing().records
    with locked(folder.run_lock_path(record.run_id)):
        write_record(folder.run_path(record.run_id), record.with_(state=State.RUNNING))
        assert stop_study(folder).was_running
        with pytest.raises(LockedError, match="goes on in process"):
            refuse_running(folder)
    assert folder.stop_path.exists()
    refuse_running(folder)
