"""What all tests of the app share: a quiet terminal, small studies, and a way to wait for the reader."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.simtui.studies import study_of, write_study


def pytest_configure() -> None:
    """Snapshots show colours whatever the shell that runs the tests says."""
    os.environ.pop("NO_COLOR", None)


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """256 colours, as over SSH; exports go to a folder of the test's own."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("COLORTERM", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    yield


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2 backbones × 3 methods × 2 seeds × 4 epochs, all done; not to be written to."""
    path = tmp_path_factory.mktemp("study")
    return write_study(path, study_of(("bundled:supervised", "bundled:self-supervised"), seeds=2, epochs=4))


@pytest.fixture
def small_study(tmp_path: Path) -> Path:
    """1 backbone × 3 methods × 1 seed × 2 epochs, to be changed by the test."""
    return write_study(tmp_path / "small", study_of(("bundled:supervised",), seeds=1, epochs=2))
