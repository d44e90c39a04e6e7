"""A draft becomes a study that runs only where nothing else lies; the running itself is tested through the screen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from engine.errors import StudyError
from engine.jobs.begin import begin
from engine.jobs.launch import make_study_folder
from engine.study_draft import Draft, DraftBackbone, draft_study, place_of

DRAFT = Draft("mine", "/data/x", backbones=(DraftBackbone("bundled:supervised"),))


def test_a_folder_that_holds_something_else_stays_and_no_file_is_written(tmp_path: Path) -> None:
    place = place_of(tmp_path, "mine")
    place.study_path.mkdir(parents=True)
    (place.study_path / "thesis.txt").write_text("mine")
    with pytest.raises(StudyError, match="is not a study folder"):
        begin(DRAFT, place)
    assert not place.file_path.exists() and [each.name for each in place.study_path.iterdir()] == ["thesis.txt"]


def test_a_study_of_that_name_with_other_settings_is_not_gone_on_with(tmp_path: Path) -> None:
    place = place_of(tmp_path, "mine")
    make_study_folder(draft_study(DRAFT, place), place.study_path)
    with pytest.raises(StudyError):
        begin(replace(DRAFT, batch_size=8), place)
    assert not place.file_path.exists()


def test_a_file_of_that_name_is_refused_before_a_folder_is_made(tmp_path: Path) -> None:
    place = place_of(tmp_path, "mine")
    place.file_path.write_text("# mine")
    with pytest.raises(StudyError, match="says something else"):
        begin(DRAFT, place)
    assert not place.study_path.exists()
