"""One small study and what it comes to when nothing disturbs it, for all faults of a test process."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from engine.backbones import bundled
from tests.faults.forks import lasting_files, make_backbone_tiny, new_folder, work
from tests.studies import write_study


@dataclass(frozen=True)
class Undisturbed:
    """A study file, the files that it comes to, and how long that takes."""

    request_path: Path
    files: dict[str, bytes]
    seconds: float


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    path = tmp_path_factory.mktemp("faults")
    with pytest.MonkeyPatch.context() as patch:  # as in the forks, for the weights that the study starts from
        for name in ("WIDTH", "N_BLOCKS", "N_HEADS"):
            patch.setattr(bundled, name, getattr(bundled, name))
        make_backbone_tiny()
        request_path = write_study(path, epochs=6, methods=["full", "linear", "scratch"])
    folder = new_folder(request_path, path / "undisturbed")
    started_s = time.monotonic()
    assert work(folder) == 0, folder.log_path.read_text()
    return Undisturbed(request_path, lasting_files(folder), time.monotonic() - started_s)
