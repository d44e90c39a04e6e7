"""Questions of a screen to processes of their own: one at a time in each slot, answered on the screen's thread."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from textual.screen import Screen

from engine.errors import SimtuiError
from simtui.child import Child
from simtui.study_form import N_DECODED

Answer = dict[str, Any] | SimtuiError


def look_child(path: str, *, is_origin: bool) -> Child:
    """What is this dataset?"""
    options = ["--origin"] if is_origin else []
    return Child(path, ["simtui", "data", path, "--json", "--images", str(N_DECODED), *options])


def describe_child(name: str, weights: str) -> Child:
    """Is there such a backbone, and are these its weights?"""
    return Child(f'backbone "{name}"', ["engine.jobs.describe", name, *(["--weights", weights] if weights else [])])


def measure_child(name: str, n_probe: int) -> Child:
    """How fast is this backbone here?"""
    return Child(f'backbone "{name}"', ["engine.jobs.estimate", name, "--probe", str(n_probe)])


class Asked:
    """What a screen waits for; a new question in a slot ends the one before, whose answer then never comes."""

    def __init__(self, screen: Screen[Any]) -> None:
        self._screen = screen
        self._children: dict[str, Child] = {}

    def ask(self, slot: str, child: Child, then: Callable[[Answer], object]) -> None:
        """Asks, and calls `then` with the answer or the failure."""
        self.end(slot)
        self._children[slot] = child
        self._screen.run_worker(partial(self._wait, child, then), thread=True)

    def end(self, slot: str) -> None:
        """Nobody waits for the answer of this slot any more."""
        if child := self._children.pop(slot, None):
            child.end()

    def end_all(self) -> None:
        """Nobody waits for anything any more."""
        for slot in list(self._children):
            self.end(slot)

    def _wait(self, child: Child, then: Callable[[Answer], object]) -> None:
        answer: Answer | None
        try:
            answer = child.answer()
        except SimtuiError as error:
            answer = error
        if answer is not None and self._screen.is_attached:
            self._screen.app.call_from_thread(then, answer)
