"""What `status` says of a study's images and of the wait for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.jobs.plan import PLAN_FILE, Plan, write_plan
from engine.runs.record import read_record, write_record
from engine.runs.study_folder import StudyFolder
from simtui.follow import print_status
from tests.simtui.studies import study_of, write_study


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudyFolder:
    monkeypatch.setenv("COLUMNS", "140")
    study = study_of(backbones=("bundled:supervised",), seeds=1, epochs=2)
    return StudyFolder(write_study(tmp_path / "study", study))


def test_notes_on_the_images_stand_above_the_runs(folder: StudyFolder, capsys: pytest.CaptureFixture[str]) -> None:
    write_plan(folder.path / PLAN_FILE, Plan(("cpu",), 1, 1, "float32", "m", None, ("3 left out: \x1b[2J", "thin")))
    print_status(folder)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:3] == [r"· 3 left out: \x1b[2J", "· thin"]


def test_the_wait_for_images_of_a_finished_run(folder: StudyFolder, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, *_ = (folder.run_path(record.run_id) for record in folder.listing().records)
    write_record(first, read_record(first).with_(epoch_seconds=(10.0, 10.0), waited_seconds=(0.5, 1.0)))
    write_record(second, read_record(second).with_(epoch_seconds=(10.0, 10.0), waited_seconds=(0.0, 0.001)))
    print_status(folder)
    rows = [line for line in capsys.readouterr().out.splitlines() if "done" in line]
    assert sum("7.5% of its time waiting for images" in row for row in rows) == 1
    assert sum("waiting" in row for row in rows) == 1
