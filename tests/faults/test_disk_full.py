"""The disk fills at any moment: no final file is partial, the user reads what is missing, and it goes on."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.jobs.executors.executor import EXIT_PAUSED
from engine.jobs.stage import read_stage
from engine.runs.study_folder import StudyFolder
from tests.faults.conftest import Undisturbed
from tests.faults.forks import assert_ends_as, assert_sound, new_folder, work, writes_at_most
from tests.sweeps import n_of

N_OFFSETS = n_of(4, 64)
TMPFS_BYTES = 160 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own; skipped where that is not allowed."""
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={TMPFS_BYTES}", "tmpfs", str(path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.mark.parametrize("i", range(N_OFFSETS))
def test_a_disk_that_fills_pauses_the_study(undisturbed: Undisturbed, small_disk: Path, i: int) -> None:
    folder = new_folder(undisturbed.request_path, small_disk / "study")
    n_needed = sum(len(content) for content in undisturbed.files.values())
    _fill(small_disk, leave=int((i + 0.5) / N_OFFSETS * n_needed))
    code = work(folder)
    _assert_paused(folder, code)
    (small_disk / "filler").unlink()
    assert_ends_as(folder, undisturbed.files)


@pytest.mark.parametrize("i", range(N_OFFSETS))
def test_a_file_that_may_not_grow_pauses_the_study(undisturbed: Undisturbed, tmp_path: Path, i: int) -> None:
    folder = new_folder(undisturbed.request_path, tmp_path / "study")
    largest = max(len(content) for content in undisturbed.files.values())
    code = work(folder, writes_at_most(20_000 + int((i + 0.5) / N_OFFSETS * (largest - 20_000))))
    _assert_paused(folder, code)
    assert_ends_as(folder, undisturbed.files)


def _fill(disk: Path, leave: int) -> None:
    with (disk / "filler").open("wb") as file:
        file.write(bytes(TMPFS_BYTES - leave - _used(disk)))


def _used(disk: Path) -> int:
    return int(subprocess.run(["du", "-sB1", str(disk)], capture_output=True, text=True, check=True).stdout.split()[0])


def _assert_paused(folder: StudyFolder, code: int) -> None:
    assert code == EXIT_PAUSED, folder.log_path.read_text()[-2000:]
    assert_sound(folder)
    stage = read_stage(folder.stage_path)
    if stage is not None:  # a disk without room for a few hundred bytes cannot say it there
        assert stage.failure is None
    said = folder.log_path.read_text()  # empty where not even that could be written
    assert not said or (" (need " in said and ", free " in said)
