"""Who may write: one at a time; the dead are recognised, the far are believed alive."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from engine import files as files_module
from engine import lock as lock_module
from engine.errors import LockedError, MachineError
from engine.lock import SILENT_S, holder_of, locked
from engine.process import space


def _leave_lock(path: Path, **holder: object) -> None:
    path.mkdir()
    (path / "holder.json").write_text(json.dumps(holder))


def test_a_second_holder_is_told_of_the_first_and_the_lock_goes_with_the_block(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    with locked(path):
        with pytest.raises(LockedError, match=rf"process \d+ on {socket.gethostname()}"), locked(path):
            pass
        assert holder_of(path) is not None
    assert holder_of(path) is None
    assert list(tmp_path.iterdir()) == []


def _dead_pid() -> int:
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    return int(dead.stdout)


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    with locked(path):
        mine = json.loads((path / "holder.json").read_text())
    for change in ({"pid": _dead_pid()}, {"started": "1"}):  # a number that another process has got since
        _leave_lock(path, **(mine | change))
        assert holder_of(path) is None
        with locked(path):
            assert holder_of(path) is not None


def test_a_set_clock_does_not_make_a_holder_look_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with locked(tmp_path / "run.lock"):
        monkeypatch.setattr(time, "time", lambda: 5e9)
        assert holder_of(tmp_path / "run.lock") is not None


def test_another_host_is_believed_to_live_until_it_has_been_silent_long(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "far.lock"
    _leave_lock(path, host="another-host", pid=1, started="1", space="")
    with pytest.raises(LockedError, match="another-host"), locked(path):
        pass
    assert [each.name for each in tmp_path.iterdir()] == ["far.lock"]
    long_ago = (path / "holder.json").stat().st_mtime - SILENT_S - 1
    os.utime(path / "holder.json", (long_ago, long_ago))
    assert holder_of(path) is None
    with locked(path):
        assert holder_of(path) is not None
    assert "left behind by process 1 on another-host: taken over" in caplog.text


def test_the_same_host_after_a_boot_is_another(tmp_path: Path) -> None:
    with locked(tmp_path / "run.lock"):
        mine = json.loads((tmp_path / "run.lock" / "holder.json").read_text())
    _leave_lock(tmp_path / "run.lock", **(mine | {"space": "an earlier boot"}))
    holder = holder_of(tmp_path / "run.lock")
    assert holder is not None and holder.silent_s < 60


def test_a_holder_that_cannot_be_read_holds_the_lock(tmp_path: Path) -> None:
    (tmp_path / "odd.lock").mkdir()
    (tmp_path / "odd.lock" / "holder.json").write_text("?")
    with pytest.raises(LockedError, match="unknown host"), locked(tmp_path / "odd.lock"):
        pass


def test_the_holder_is_heard_of_and_ends_when_its_lock_is_taken(tmp_path: Path) -> None:
    script = (
        "import sys, time, pathlib, engine.lock as lock\n"
        "lock.BEAT_S = 0.02\n"
        "with lock.locked(pathlib.Path(sys.argv[1])):\n    time.sleep(60)"
    )
    path = tmp_path / "run.lock"
    process = subprocess.Popen([sys.executable, "-c", script, str(path)], stderr=subprocess.DEVNULL)
    file_path = path / "holder.json"
    _until(file_path.exists)
    os.utime(file_path, (1, 1))
    _until(lambda: file_path.stat().st_mtime > 1)
    raw = json.loads(file_path.read_text())
    file_path.write_text(json.dumps(raw | {"host": "another-host"}))
    assert process.wait(timeout=20) == 75


def test_a_slow_second_cannot_move_the_lock_of_who_took_over_first(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    _leave_lock(path, host=socket.gethostname(), pid=_dead_pid(), started="1", space=space())
    dead = lock_module._read(path)
    with locked(path):
        lock_module._put_aside(path, dead)  # it has seen the dead holder too, and acts only now
        holder = holder_of(path)
        assert holder is not None and holder.pid == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_many_locks_need_one_thread(tmp_path: Path) -> None:
    script = (
        "import contextlib, os, pathlib, sys, threading, time, engine.lock as lock\n"
        "lock.BEAT_S = 0.02\n"
        "with contextlib.ExitStack() as stack:\n"
        "    paths = [pathlib.Path(sys.argv[1]) / f'{i}.lock' for i in range(50)]\n"
        "    for path in paths: stack.enter_context(lock.locked(path))\n"
        "    for path in paths: os.utime(path / 'holder.json', (1, 1))\n"
        "    end_s = time.monotonic() + 20\n"
        "    while any((each / 'holder.json').stat().st_mtime == 1 for each in paths):\n"
        "        assert time.monotonic() < end_s\n"
        "    print(threading.active_count())\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout == "2\n" and list(tmp_path.iterdir()) == []


def test_silence_is_told_by_the_clock_of_the_files_not_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "far.lock"
    _leave_lock(path, host="another-host", pid=1, started="1", space="")
    monkeypatch.setattr(files_module, "_clocks", {})
    monkeypatch.setattr(time, "time", lambda: 5e9)
    holder = holder_of(path)
    assert holder is not None and holder.silent_s < 60
    assert [each.name for each in tmp_path.iterdir()] == ["far.lock"]


def _until(is_true: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 20
    while not is_true():
        assert time.monotonic() < end_s
        time.sleep(0.01)


def test_a_folder_that_cannot_be_written_is_the_machines_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError), locked(tmp_path / "file" / "run.lock"):
        pass
