"""`simtui import`: what it says of a folder, what it refuses, and a folder that it makes a study of."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.runs.record import State
from engine.runs.study_folder import StudyFolder
from tests.simtui.driving import opened, press, written
from tests.studies import make_images, save_random_weights


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, the weights of θ*, and two seeds of a training with checkpoints of the epochs 1 and 4."""
    path = tmp_path_factory.mktemp("site")
    make_images(path / "images", 8)
    save_random_weights(path / "start.safetensors")
    start = {name: each for name, each in load_file(path / "start.safetensors").items() if not name.startswith("head.")}
    generator = torch.Generator().manual_seed(3)
    for seed in (3, 5):
        for epoch in (1, 4):
            moved = {
                name: each + 0.15 * epoch * torch.randn(each.shape, generator=generator) * each.std()
                if each.numel() > 1
                else each
                for name, each in start.items()
            }
            file = path / "trained" / f"vit_seed{seed}" / f"epoch_{epoch}.safetensors"
            file.parent.mkdir(parents=True, exist_ok=True)
            save_file({f"module.{name}": each.contiguous() for name, each in moved.items()}, file)
    return path


def simtui(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """The command, run in the folder `here` below the one that is given."""
    here = folder / "here"
    here.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "simtui", "import", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment, cwd=here)


def test_a_dry_run_says_what_was_found_and_writes_nothing(site: Path, tmp_path: Path) -> None:
    done = simtui(tmp_path, site / "trained", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "vit_seed3: plain" in done.stdout and "vit_seed5: plain" in done.stdout
    assert done.stdout.count("2 checkpoints: epochs 1, 4") == 2
    assert done.stdout.count("backbone not said") == 2 and "seed 5" in done.stdout
    assert not list((tmp_path / "here").iterdir())


def refused(done: subprocess.CompletedProcess[str], problem: str, fix: str) -> None:
    assert done.returncode == 2, done.stderr
    assert problem in done.stderr and fix in done.stderr and "Traceback" not in done.stderr


def test_what_is_missing_is_asked_for(site: Path, tmp_path: Path) -> None:
    images = ("--images", site / "images")
    refused(simtui(tmp_path, site / "trained"), "which images", "--images PATH")
    refused(simtui(tmp_path, site / "trained", *images), "which pre-trained backbone", "--backbone NAME")
    start = ("--backbone", f"bundled:supervised={site}/start.safetensors")
    refused(simtui(tmp_path, site / "trained", *images, "--backbone", "bundled:supervised=no.safetensors"),
            "no such file", "safetensors")  # fmt: skip
    refused(simtui(tmp_path, site / "trained", *images, *start, "--out", site / "trained" / "x"),
            "where nothing is to be written", "another --out")  # fmt: skip
    refused(simtui(tmp_path, site / "trained", *images, *start, "--std", "0,1,1"), "need finite", "correct")
    refused(simtui(tmp_path, site / "images", *images, *start), "no checkpoints", "the folder that holds them")
    assert not list((tmp_path / "here").iterdir())


def test_pickles_need_a_word(site: Path, tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    torch.save({"a": torch.zeros(2)}, tmp_path / "p" / "epoch_1\x1b[31m.pth")
    done = simtui(tmp_path, tmp_path / "p", "--images", site / "images", "--backbone", "bundled:supervised")
    refused(done, "1 checkpoints are pickles", "--convert")
    assert "\x1b" not in done.stderr + done.stdout


async def test_a_folder_becomes_a_study_that_the_app_shows(site: Path, tmp_path: Path) -> None:
    asked = (
        site / "trained", "--images", site / "images", "--backbone", f"bundled:supervised={site}/start.safetensors",
        "--out", tmp_path / "study", "--n", 20, "--measure", "linear_cka", "--wait",
    )  # fmt: skip
    first = simtui(tmp_path, *asked)
    assert first.returncode == 0, first.stdout + first.stderr
    records = StudyFolder(tmp_path / "study").listing().records
    assert [(each.state, each.spec.seed, list(each.checkpoints)) for each in records] == [
        (State.DONE, 3, ["1", "4"]), (State.DONE, 5, ["1", "4"]),
    ]  # fmt: skip
    assert records[0].last["linear_cka_feat"] < 0.999 and "test_accuracy" not in records[0].last
    again = simtui(tmp_path, *asked)
    assert again.returncode == 0 and "Up to date" in again.stdout
    async with opened(tmp_path / "study", size=(120, 40)) as pilot:
        assert "imported" in written(pilot)
        await press(pilot, "2")
        assert "epoch 4" in written(pilot)
        await press(pilot, "left_square_bracket")  # there is no checkpoint of the epochs between
        assert "epoch 1 of 4" in written(pilot)
        await press(pilot, "3", "right_square_bracket", "left_square_bracket")
        assert "epoch 1 of 4" in written(pilot)
        for key in "456789":
            await press(pilot, key)
