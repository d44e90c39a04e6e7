"""The mending of Textual's output: only what has changed is sent, and it is sent right."""

from __future__ import annotations

import textual
from rich.console import Console
from rich.segment import Segment
from textual._compositor import ChopsUpdate
from textual.strip import Strip

from simtui.terminal_output import crop_dirty_regions


def test_a_change_at_the_right_sends_nothing_of_the_left() -> None:
    crop_dirty_regions()
    strip = Strip([Segment("a" * 40), Segment("b" * 40)])
    update = ChopsUpdate([{0: strip}], [(0, 70, 74)], [[80]])
    sent = update.render_segments(Console(color_system=None))
    assert sent == "\x1b[1;71Hbbbb"


def test_whole_lines_and_parts_follow_each_other() -> None:
    crop_dirty_regions()
    chops = [{0: Strip([Segment("left")]), 4: Strip([Segment("right")])}, {0: Strip([Segment("below")])}]
    update = ChopsUpdate(chops, [(0, 2, 9), (1, 0, 9)], [[4, 9], [5]])
    assert update.render_segments(Console(color_system=None)) == "\x1b[1;3Hft\x1b[1;5Hright\n\x1b[2;1Hbelow"


def test_another_version_of_textual_is_left_alone(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    original = object()
    monkeypatch.setattr(ChopsUpdate, "render_segments", original)
    monkeypatch.setattr("simtui.terminal_output.__version__", "9.0.0")
    crop_dirty_regions()
    assert ChopsUpdate.render_segments is original
    assert textual.__version__ == "8.2.8", "the mending was measured for this version: measure it again"
