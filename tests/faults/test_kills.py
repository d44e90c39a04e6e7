"""kill -9 at every named point and at any time: nothing that was finished is lost, and the end is the same."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.faults.conftest import Undisturbed
from tests.faults.forks import assert_ends_as, assert_sound, kills_at, new_folder, work
from tests.sweeps import IS_FULL, n_of

# Each is reached at least 13 times in this study.
FILES = ("*/run.json", "*/results.h5", "*/history.csv", "last/*", "checkpoints/*", "activations/*")
POINTS = (
    *(f"{name}:{step}" for name in FILES for step in ("begin", "written", "synced", "renamed")),
    "train:step", "epoch:trained", "epoch:observed", "last:pruned",
)  # fmt: skip
# Reached less often.
RARE = ("*/manifest.json:written", "*.npy:synced", "*.npy:renamed", "*/plan.json:renamed", "run:done")
N_TIMES = 13
N_RANDOM = n_of(4, 50)


ALL = [(point, number) for point in POINTS for number in range(1, N_TIMES + 1)] + [(point, 1) for point in RARE]
SAMPLE = [(point, 1 + 5 * i % N_TIMES) for i, point in enumerate(POINTS) if i % 2] + [(point, 1) for point in RARE[-2:]]


@pytest.mark.parametrize(("point", "number"), ALL if IS_FULL else SAMPLE)
def test_a_kill_at_a_named_point_loses_nothing(
    undisturbed: Undisturbed, tmp_path: Path, point: str, number: int
) -> None:
    folder = new_folder(undisturbed.request_path, tmp_path / "study")
    assert work(folder, kills_at(point, number)) == -9, "the point was not reached"
    assert_sound(folder)
    assert_ends_as(folder, undisturbed.files)


@pytest.mark.parametrize("seed", range(N_RANDOM))
def test_a_kill_at_any_time_loses_nothing(undisturbed: Undisturbed, tmp_path: Path, seed: int) -> None:
    """Twice: what continues may be killed as well."""
    folder = new_folder(undisturbed.request_path, tmp_path / "study")
    drawn = random.Random(seed)
    for _ in range(2):
        assert work(folder, kill_after_s=drawn.uniform(0.05, 0.9) * undisturbed.seconds) in (-9, 0)
        assert_sound(folder)
    assert_ends_as(folder, undisturbed.files)
