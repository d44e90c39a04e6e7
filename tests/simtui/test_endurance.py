"""Thousands of keys and sizes at random: the app must not break, and must still show its view afterwards."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from textual.events import Key, Resize
from textual.geometry import Size
from textual.pilot import Pilot, WaitForScreenTimeout

from simtui.actions import ACTIONS, SHORT_VIEWS, VIEWS
from simtui.app import SimtuiApp
from simtui.widgets.filter_line import FilterLine
from tests.simtui.driving import app_of, opened, press, settled, until, view_of, written
from tests.simtui.studies import study_of, write_attention_maps, write_study
from tests.sweeps import IS_FULL, n_of

# All of it by `make faults`, as with other sweeps.
N_KEYS, N_SIZES = n_of(600, 5000), n_of(120, 1000)
SEEDS = (1, 2, 3, 4, 5) if IS_FULL else (1, 2)
_LEAVE = {"q", "ctrl+q"}
# Keys that no view has, of each kind that a terminal sends: they must do nothing, or what Textual does with them.
_OTHERS = ("z", "Z", "f5", "tab", "shift+tab", "escape", "space", "backspace", "0", "ß", "é", "enter")
KEYS = [*sorted({key for action in ACTIONS for key in action.keys} - _LEAVE), *_OTHERS]
_TOGETHER = 100  # keys between two looks whether all is well: people do not wait for a repaint either


@pytest.fixture(scope="module")
def full_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Something to see on every view."""
    path = tmp_path_factory.mktemp("full")
    write_study(path, study_of(("bundled:supervised", "bundled:self-supervised"), seeds=3, epochs=5))
    write_attention_maps(path)
    return path


async def _post(pilot: Pilot[None], keys: list[str]) -> None:
    """Keys as they come out of a terminal, without a pause: with one behind each, thousands would take minutes."""
    for key in keys:
        pilot.app.post_message(Key(key, key if len(key) == 1 else None))
        await asyncio.sleep(0)


async def _caught_up(pilot: Pilot[None]) -> None:
    """Waits until the keys are done; Pilot gives up after 30 s, which a hundred keys may take on a loaded machine."""
    for left in reversed(range(10)):
        try:
            await pilot.pause()
            return
        except WaitForScreenTimeout:
            if not left:
                raise


async def _resize(pilot: Pilot[None], size: tuple[int, int]) -> None:
    pilot.app._driver._size = size  # type: ignore[union-attr]
    pilot.app.post_message(Resize(Size(*size), Size(*size)))
    await asyncio.sleep(0.02)  # a frame: two sizes in one would be one


async def _assert_all_views_work(pilot: Pilot[None]) -> None:
    """Every view still comes, with its tabs, a summary and figures."""
    await _resize(pilot, (120, 40))
    app = app_of(pilot)
    for _ in range(10):  # whatever lies over the view: help, a question, the palette; or takes its keys: a filter
        is_over = len(app.screen_stack) > 2 or app.screen not in [app.get_screen(view) for view in VIEWS]
        if is_over or any(each.is_open for each in app.screen.query(FilterLine)):
            await pilot.press("escape")
            await pilot.pause()
    for number, view in enumerate(VIEWS, start=1):
        await press(pilot, str(number))
        await settled(pilot)
        front = view_of(pilot)
        assert view == front.VIEW
        await until(pilot, lambda front=front: (front.lines("summary").text or front.lines("nothing").text).strip())
        assert SHORT_VIEWS[view] in written(pilot)


class _Started:
    """What starting and stopping say."""

    was_running = True


@pytest.fixture(autouse=True)
def _nothing_outside_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The palette can leave the app by name, and some keys start and stop the processes of a study."""

    async def stay(_: object) -> None: ...

    monkeypatch.setattr(SimtuiApp, "action_quit", stay)
    # Each where it is called: what is imported by name is not changed in its module.
    for name in ("jobs.detach_study", "jobs.stop_study", "new_study.begin", "new_study.write_draft"):
        monkeypatch.setattr(f"simtui.screens.{name}", lambda *_, **__: _Started())


@pytest.mark.parametrize("seed", SEEDS)
async def test_keys_at_random(full_study: Path, seed: int) -> None:
    rng = random.Random(seed)
    typed: list[str] = []
    try:
        async with opened(full_study, size=(100, 30)) as pilot:
            while len(typed) < N_KEYS // len(SEEDS):
                keys = [rng.choice(KEYS) for _ in range(_TOGETHER)]
                typed += keys
                await _post(pilot, keys)
                await _caught_up(pilot)
            await _assert_all_views_work(pilot)
    except BaseException:
        print(f"seed {seed}; the last keys: {typed[-2 * _TOGETHER :]}")
        raise


@pytest.mark.parametrize("seed", SEEDS)
async def test_sizes_at_random_among_keys(full_study: Path, seed: int) -> None:
    rng = random.Random(seed)
    done: list[object] = []
    try:
        async with opened(full_study, size=(100, 30)) as pilot:
            for nth in range(N_SIZES // len(SEEDS)):
                # Small ones as often as large ones: that is where lines do not fit.
                size = round(1 * 400 ** rng.random()), round(1 * 100 ** rng.random())
                keys = [rng.choice(KEYS) for _ in range(rng.randrange(4))]
                done += [size, *keys]
                await _resize(pilot, size)
                await _post(pilot, keys)
                if nth % 20 == 0:
                    await _caught_up(pilot)
            await _assert_all_views_work(pilot)
    except BaseException:
        print(f"seed {seed}; the last sizes and keys: {done[-30:]}")
        raise
