"""Plays the epochs of a map: steps on by a clock until there are no more or somebody stops it."""

from __future__ import annotations

from collections.abc import Callable

from textual.timer import Timer
from textual.widget import Widget

_STEP_S = 0.25


class EpochPlayer:
    """Calls `step` about four times a second while it plays; `step` says whether there is more.

    Args:
        owner: whose clock it is; it goes with it.
    """

    def __init__(self, owner: Widget, step: Callable[[], bool]) -> None:
        self._owner, self._step = owner, step
        self._timer: Timer | None = None

    @property
    def is_playing(self) -> bool:
        """Whether the clock runs."""
        return self._timer is not None

    def start(self) -> None:
        """Starts the clock."""
        self._timer = self._timer or self._owner.set_interval(_STEP_S, self._tick)

    def stop(self) -> None:
        """Stops the clock."""
        if self._timer is not None:
            self._timer.stop()
            self._timer = None

    def _tick(self) -> None:
        if self._timer is not None and not self._step():
            self.stop()
