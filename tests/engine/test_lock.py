"""Who may write: one at a time; the dead are recognised, the far are believed alive."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from engine.errors import LockedError, MachineError
from engine.lock import holder_of, locked


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


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    _leave_lock(path, host=socket.gethostname(), pid=int(dead.stdout), started_s=1.0)
    assert holder_of(path) is None
    with locked(path):
        assert holder_of(path) is not None


def test_a_lock_of_another_host_or_of_nobody_readable_stands(tmp_path: Path) -> None:
    _leave_lock(tmp_path / "far.lock", host="another-host", pid=1, started_s=1.0)
    with pytest.raises(LockedError, match="another-host"), locked(tmp_path / "far.lock"):
        pass
    (tmp_path / "odd.lock").mkdir()
    (tmp_path / "odd.lock" / "holder.json").write_text("?")
    with pytest.raises(LockedError, match="unknown host"), locked(tmp_path / "odd.lock"):
        pass


def test_a_folder_that_cannot_be_written_is_the_machines_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError), locked(tmp_path / "file" / "run.lock"):
        pass
