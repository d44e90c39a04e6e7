"""What a fresh process loads: the app and everything that reads results must start without torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "torchvision", "timm", "open_clip", "sklearn")


def _loaded(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "import simtui.app",
        "import simtui.cli, simtui.follow, simtui.demo, simtui.doctor",
        "import engine; engine.open_study",
        "import engine.analysis.tables, engine.export",
        "import engine.jobs.launch, engine.jobs.scheduler, engine.jobs.progress",
        "import engine.jobs.attention, engine.analysis.attention, engine.analysis.attention_table",
        "import engine.jobs.uncertainty, simtui.screens.map_uncertainty",
        "import engine.backbones.names",
        "from engine.data.synthetic import dermoscopy, scenes",
    ],
)
def test_nothing_heavy_is_loaded(code: str) -> None:
    assert not _loaded(code) & set(HEAVY)


def test_what_a_cluster_needs_is_not_loaded_before_it_is_asked_for() -> None:
    assert not _loaded("import engine.jobs.scheduler, engine.jobs.worker") & {"ray", "submitit"}


def test_the_check_can_fail() -> None:
    assert "torch" in _loaded("import engine.quality.knn")


def test_the_engine_draws_nothing() -> None:
    code = "import engine.jobs.worker, engine.jobs.scheduler, engine.analysis.tables"
    assert not _loaded(code) & {"textual", "plotext", "simtui"}
