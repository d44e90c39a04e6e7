"""Which study opens without a name: the last one, while it is one, else the sample."""

from __future__ import annotations

from pathlib import Path

import pytest

from simtui.recent import last_or_sample, remember, sample_study


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    path = tmp_path / "study"
    (path / "runs").mkdir(parents=True)
    (path / "study.toml").write_text("")
    return path


def test_the_last_study_opens_again_while_it_is_one(study: Path) -> None:
    assert last_or_sample() == sample_study()
    remember(study)
    assert last_or_sample() == study
    (study / "runs").rmdir()
    assert last_or_sample() == sample_study()


def test_the_sample_is_not_remembered(study: Path) -> None:
    remember(study)
    remember(sample_study())
    assert last_or_sample() == study
