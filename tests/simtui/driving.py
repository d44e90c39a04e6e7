"""How tests drive the app: open it, wait for what the reader finds, press keys, read what is written."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from textual.pilot import Pilot

from simtui.app import SimtuiApp
from simtui.screens.view import ViewScreen
from simtui.widgets.drawn import Drawn
from simtui.widgets.lines import Lines


@asynccontextmanager
async def opened(*studies: Path, size: tuple[int, int] = (80, 24), view: str = "") -> AsyncIterator[Pilot[None]]:
    """The app on these studies, once the first of them is read, in a view where one is named."""
    app = SimtuiApp(studies, poll_s=0.05)
    async with app.run_test(size=size, notifications=True) as pilot:
        await until(pilot, lambda: app.snapshot is not None)
        if view:
            await press(pilot, view)
        yield pilot


async def until(pilot: Pilot[None], is_so: Callable[[], object], timeout_s: float = 10.0) -> None:
    """Waits for something that another thread brings about."""
    deadline_s = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline_s, f"waited {timeout_s} s in vain; on screen:\n{written(pilot)}"
        await pilot.pause(0.01)
    await pilot.pause()


async def press(pilot: Pilot[None], *keys: str) -> None:
    """Presses keys and waits for the answers that they ask for."""
    for key in keys:
        await pilot.press(key)
        await settled(pilot)


async def settled(pilot: Pilot[None]) -> None:
    """Waits until the reader has answered what the view in front asks."""
    app = app_of(pilot)
    await pilot.pause()
    is_readable = app.snapshot is None or app.snapshot.error is None
    view = app.screen
    slot = view.slot if isinstance(view, ViewScreen) else ""
    if is_readable and slot not in ("", "runs") and app._question(slot) is not None:
        await until(pilot, lambda: app.answer(slot) is not None)
    await pilot.pause()


def app_of(pilot: Pilot[None]) -> SimtuiApp:
    """The app, as what it is."""
    assert isinstance(pilot.app, SimtuiApp)
    return pilot.app


def view_of(pilot: Pilot[None]) -> ViewScreen:
    """The view in front."""
    screen = pilot.app.screen
    assert isinstance(screen, ViewScreen)
    return screen


def text_of(pilot: Pilot[None], name: str) -> str:
    """What one of the text areas says, on one line."""
    return " ".join(pilot.app.screen.query_one(f"#{name}", Lines).text.split())


def written(pilot: Pilot[None]) -> str:
    """Everything that is written in widgets that are in sight."""
    lines = []
    for widget in pilot.app.screen.query(Drawn):
        if widget.display and widget.region.area:
            lines += ["".join(s.text for s in widget.render_line(y)) for y in range(widget.size.height)]
    return "\n".join(lines)
