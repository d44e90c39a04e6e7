"""Files appear whole or not at all, and failures of the disk are said in words."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from engine import files as files_module
from engine.errors import DamagedError, MachineError
from engine.files import (
    as_machine_error,
    atomic_path,
    atomic_write,
    digest,
    file_system_s,
    read_json,
    sha256_file,
    sweep_temporary,
    temporary_path,
)


def test_a_file_that_fails_half_way_leaves_the_old_one_and_no_trace(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    atomic_write(path, "old")
    with pytest.raises(RuntimeError), atomic_path(path) as temp_path:
        temp_path.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_said_with_the_room_there_is(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.bin"
    with (
        pytest.raises(MachineError, match=r"no space in .* \(need 4 bytes, free \d+ .B\)") as caught,
        atomic_path(path) as temp_path,
    ):
        temp_path.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.exit_code == 4
    assert not any(file.is_file() for file in tmp_path.rglob("*"))


def test_other_failures_of_the_disk_name_folder_and_cause(tmp_path: Path) -> None:
    assert "read-only" in str(as_machine_error(OSError(errno.EROFS, "x"), tmp_path / "a"))
    assert "Input/output error" in str(as_machine_error(OSError(errno.EIO, "Input/output error"), tmp_path / "a"))


def test_digests_are_those_of_the_standard(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_file(tmp_path / "abc").startswith("ba7816bf8f01cfea")
    assert digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1}) != digest({"a": 2, "b": 2})


def test_damaged_json_names_the_way_to_make_it_again(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(DamagedError, match="run it again"):
        read_json(tmp_path / "a.json", "run it again")


def test_a_sweep_takes_only_what_writers_left(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.h5.tmp-123").write_text("x")
    (tmp_path / "run.lock.tmp-5").mkdir()
    (tmp_path / "deep" / "a.h5").write_text("x")
    sweep_temporary(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.h5", "deep"]


def test_a_sweep_leaves_what_living_writers_here_and_elsewhere_work_on(tmp_path: Path) -> None:
    mine = temporary_path(tmp_path / "a.h5")
    far, old, dead = (tmp_path / f"a.h5.tmp-{mark}" for mark in ("1-01234567", "2-01234567", f"{2**22 + 1}-HERE"))
    dead = dead.with_name(dead.name.replace("HERE", mine.name.rpartition("-")[2]))
    for path in (mine, far, old, dead):
        path.write_text("x")
    long_ago = old.stat().st_mtime - 7200
    os.utime(old, (long_ago, long_ago))
    sweep_temporary(tmp_path)
    assert set(tmp_path.iterdir()) == {mine, far}


def test_the_clock_of_a_file_system_is_asked_once_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_module, "_clocks", {})
    assert abs(file_system_s(tmp_path) - time.time()) < 60 and not list(tmp_path.iterdir())
    monkeypatch.setattr(Path, "touch", lambda self: pytest.fail("asked again"))
    first = file_system_s(tmp_path)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert first <= file_system_s(tmp_path) < first + 60
