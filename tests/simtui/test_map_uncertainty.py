"""The interval and the null level of the map's cells: asked by a key, computed meanwhile, shown while moving."""

from __future__ import annotations

import csv
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.errors import DamagedError, MachineError
from engine.runs.uncertainty import CellUncertainty
from simtui.screens import map_uncertainty
from tests.simtui.driving import app_of, opened, press, text_of, until, view_of
from tests.simtui.studies import similarity


def made(epoch: int) -> CellUncertainty:
    """The value ± 0.01 of the full run, seed 0, and a null level that says the epoch."""
    value = np.array([[similarity("full", 0, epoch, i, j) for j in range(6)] for i in range(6)])
    null = np.full((6, 6), epoch / 100)
    return CellUncertainty(value, value - 0.01, value + 0.01, null, null + 0.01, 0.95, 1000, 512, 199, "so", "thus")


class Jobs:
    """In place of the child process: answers when it is let, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.known: dict[int, CellUncertainty] = {}
        self.may_answer = threading.Event()
        self.error: Exception | None = None
        self.has_stopped = threading.Event()

    def compute(self, folder: Any, record: Any, key: Any, epoch: int, *, stop: threading.Event) -> CellUncertainty:
        self.asked.append(epoch)
        while not self.may_answer.is_set():
            if stop.is_set():
                self.has_stopped.set()
                raise MachineError("x", "was not waited for", "ask again")
            time.sleep(0.01)
        if self.error:
            raise self.error
        self.known[epoch] = made(epoch)
        return self.known[epoch]

    def look(self, folder: Any, record: Any, key: Any, epoch: int) -> CellUncertainty | None:
        return self.known.get(epoch)


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> Jobs:
    found = Jobs()
    monkeypatch.setattr(map_uncertainty, "cell_uncertainty", found.compute)
    monkeypatch.setattr(map_uncertainty, "known_uncertainty", found.look)
    return found


def words(epoch: int, row: int, column: int) -> str:
    value = similarity("full", 0, epoch, row, column)
    interval = f"95 % {value - 0.01:.3f}–{value + 0.01:.3f} over images"
    return f"{interval} · unrelated {epoch / 100:.3f} (95 % below {epoch / 100 + 0.01:.3f})"


async def test_it_is_computed_once_and_shown_for_every_cell(study: Path, jobs: Jobs) -> None:
    async with opened(study, view="2") as pilot:
        app_of(pilot).select(run_id=_full(pilot))
        await pilot.pause()
        assert text_of(pilot, "uncertainty") == ""
        height = view_of(pilot).query_one("#map").size.height
        await press(pilot, "i")
        assert text_of(pilot, "uncertainty").startswith("computing the interval")
        await press(pilot, "j")  # keys go on meanwhile
        assert app_of(pilot).selection.row == 1
        jobs.may_answer.set()
        await until(pilot, lambda: text_of(pilot, "uncertainty") == words(4, 1, 0))
        await press(pilot, "l", "j")
        assert text_of(pilot, "uncertainty") == words(4, 2, 1)
        assert view_of(pilot).query_one("#map").size.height == height - 1
        await press(pilot, "i")
        assert text_of(pilot, "uncertainty") == "" and view_of(pilot).query_one("#map").size.height == height
        await press(pilot, "i")
        assert text_of(pilot, "uncertainty") == words(4, 2, 1) and jobs.asked == [4]


async def test_another_epoch_shows_what_is_known_of_it(study: Path, jobs: Jobs) -> None:
    jobs.may_answer.set()
    jobs.known[2] = made(2)
    async with opened(study, view="2") as pilot:
        app_of(pilot).select(run_id=_full(pilot))
        await press(pilot, "i")
        await until(pilot, lambda: text_of(pilot, "uncertainty") == words(4, 0, 0))
        await press(pilot, "left_square_bracket")
        assert text_of(pilot, "uncertainty").startswith("i: compute")
        await press(pilot, "left_square_bracket")
        await until(pilot, lambda: text_of(pilot, "uncertainty") == words(2, 0, 0))
        await press(pilot, "right_square_bracket", "i")
        await until(pilot, lambda: text_of(pilot, "uncertainty") == words(3, 0, 0))
        await press(pilot, "right_square_bracket")
        assert text_of(pilot, "uncertainty") == words(4, 0, 0) and jobs.asked == [4, 3]


async def test_what_is_asked_meanwhile_waits_for_its_turn(study: Path, jobs: Jobs) -> None:
    async with opened(study, view="2") as pilot:
        app_of(pilot).select(run_id=_full(pilot))
        await press(pilot, "i", "left_square_bracket", "i")
        assert text_of(pilot, "uncertainty").startswith("computing")
        await until(pilot, lambda: jobs.asked == [4])
        jobs.may_answer.set()
        await until(pilot, lambda: text_of(pilot, "uncertainty") == words(3, 0, 0))
        assert jobs.asked == [4, 3]


async def test_a_failure_is_said_and_tried_again(study: Path, jobs: Jobs) -> None:
    jobs.may_answer.set()
    jobs.error = DamagedError("file", "is damaged [/]", "make it again")
    async with opened(study, view="2", size=(120, 40)) as pilot:
        await press(pilot, "i")
        await until(pilot, lambda: text_of(pilot, "uncertainty") == "no interval: is damaged [/]; make it again")
        jobs.error = None
        await press(pilot, "i")
        assert text_of(pilot, "uncertainty") == ""
        await press(pilot, "i")
        await until(pilot, lambda: text_of(pilot, "uncertainty").startswith("95 %"))
        assert "over 512 images, 1,000 resamples" in text_of(pilot, "uncertainty")


async def test_the_csv_has_what_is_in_sight(study: Path, jobs: Jobs) -> None:
    jobs.may_answer.set()
    async with opened(study, view="2") as pilot:
        app_of(pilot).select(run_id=_full(pilot))
        await press(pilot, "i")
        await until(pilot, lambda: text_of(pilot, "uncertainty") == words(4, 0, 0))
        await press(pilot, "e")
        await until(pilot, lambda: list(Path.cwd().glob("*.csv.sources.json")))
    (path,) = Path.cwd().glob("*.csv")
    rows = list(csv.DictReader(path.read_text("utf-8").splitlines()))
    assert float(rows[8]["low"]) == pytest.approx(made(4).low[1, 2], abs=1e-8) and "interval" in path.name
    assert float(rows[8]["unrelated_high"]) == pytest.approx(0.05)


async def test_leaving_ends_what_is_being_computed(study: Path, jobs: Jobs) -> None:
    async with opened(study, view="2") as pilot:
        await press(pilot, "i")
        await until(pilot, lambda: jobs.asked)
        assert not jobs.has_stopped.is_set()
    assert jobs.has_stopped.wait(5)


async def test_a_study_without_activations_says_so(study: Path) -> None:
    """The engine's own word, with no child process: made studies have none."""
    async with opened(study, view="2", size=(120, 40)) as pilot:
        await press(pilot, "i")
        await until(pilot, lambda: "the study holds no activations" in text_of(pilot, "uncertainty"))


def _full(pilot: Any) -> str:
    """The first fully fine-tuned run, seed 0."""
    snapshot = app_of(pilot).snapshot
    assert snapshot is not None
    return next(each.run_id for each in snapshot.records if each.spec.method == "full" and each.spec.seed == 0)
