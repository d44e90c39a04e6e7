"""The mending of Textual's output: only what has changed is sent, and the terminal then shows what Textual drew."""

from __future__ import annotations

import random
import re

import pytest
import textual
from rich.cells import cell_len
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from textual._compositor import ChopsUpdate, LayoutUpdate
from textual.geometry import Region
from textual.strip import Strip

from simtui.terminal_output import crop_dirty_regions

WIDTH, HEIGHT = 24, 5
STYLES = (
    None, Style(), Style.parse("bold"), Style.parse("underline red"), Style.parse("color(74) on color(233)"),
    Style.parse("bold color(231) on #123456"), Style.parse("color(231) on color(233)"),
    Style.parse("strike bright_blue on white"),
)  # fmt: skip


class Terminal:
    """Keeps what a terminal would show: of each cell the character, and the sequence of its look as a set of codes."""

    def __init__(self) -> None:
        self.cells = [[(" ", frozenset[str]())] * WIDTH for _ in range(HEIGHT)]

    def feed(self, sent: str) -> None:
        """Takes moves, looks and text; anything else is a mistake."""
        x, y, look = 0, 0, dict[str, str]()
        for move, codes, char in re.findall(r"\x1b\[(\d+;\d+)H|\x1b\[([\d;]+)m|([^\x1b])", sent):
            if move:
                y, x = (int(part) - 1 for part in move.split(";"))
            elif codes:
                look = _switched(look, codes)
            else:
                assert char >= " ", repr(sent)
                for shown in (char, "")[: cell_len(char)]:
                    self.cells[y][x] = (shown, frozenset(look.values()))
                    x += 1
        assert not look, "a look is left on"


def _switched(look: dict[str, str], codes: str) -> dict[str, str]:
    look = dict(look)
    for code in re.findall(r"[34]8;5;\d+|[34]8;2;\d+;\d+;\d+|\d+", codes):
        if code == "0":
            look = {}
        elif len(code) == 1:
            look[code] = code
        else:
            look["text" if code[0] in "39" else "ground"] = code
    return look


def _expected(lines: list[Strip]) -> list[list[tuple[str, frozenset[str]]]]:
    """What each strip says by itself, by Textual's own rendering."""
    terminal = Terminal()
    terminal.feed("".join(f"\x1b[{y + 1};1H{line.render(_console())}" for y, line in enumerate(lines)))
    return terminal.cells


def _console() -> Console:
    return Console(color_system="256", force_terminal=True)


def _drawn(rng: random.Random) -> Strip:
    segments, left = [], WIDTH
    while left:
        text = "".join(rng.choice("ab▀⣿ 中") for _ in range(rng.randint(1, 6)))
        while cell_len(text) > left:
            text = text[:-1]
        text = text or " "
        segments.append(Segment(text, rng.choice(STYLES)))
        left -= cell_len(text)
    return Strip(segments, WIDTH)


@pytest.fixture(autouse=True)
def _mended(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (ChopsUpdate, LayoutUpdate):
        monkeypatch.setattr(kind, "render_segments", kind.render_segments)
    crop_dirty_regions()


def test_a_change_at_the_right_sends_nothing_of_the_left() -> None:
    strip = Strip([Segment("a" * 40), Segment("b" * 40)])
    update = ChopsUpdate([{0: strip}], [(0, 70, 74)], [[80]])
    assert update.render_segments(Console(color_system=None)) == "\x1b[1;71Hbbbb"


def test_whole_lines_and_parts_follow_each_other() -> None:
    chops = [{0: Strip([Segment("left")]), 4: Strip([Segment("right")])}, {0: Strip([Segment("below")])}]
    update = ChopsUpdate(chops, [(0, 2, 9), (1, 0, 9)], [[4, 9], [5]])
    assert update.render_segments(Console(color_system=None)) == "\x1b[1;3Hft\x1b[1;5Hright\x1b[2;1Hbelow"


def test_what_the_terminal_shows_already_is_not_sent_again() -> None:
    console = _console()
    LayoutUpdate([[Strip([Segment("0.41  0.42")])]], Region(0, 0, 10, 1)).render_segments(console)
    changed = ChopsUpdate([{0: Strip([Segment("0.41  0.43")])}], [(0, 0, 10)], [[10]])
    assert changed.render_segments(console) == "\x1b[1;10H3"
    assert changed.render_segments(console) == ""


def test_a_whole_screen_is_always_sent_whole() -> None:
    """After a resize, or when another program was in the terminal, it shows something else."""
    console = _console()
    update = LayoutUpdate([[Strip([Segment("one")])], [Strip([Segment("two")])]], Region(0, 0, 3, 2))
    assert update.render_segments(console) == update.render_segments(console) == "\x1b[1;1Hone\x1b[2;1Htwo"


def test_a_look_is_changed_by_what_differs() -> None:
    ground = Style.parse("color(231) on color(54)"), Style.parse("color(231) on color(55)"), Style.parse("color(231)")
    line = [Strip([Segment(str(i), style) for i, style in enumerate(ground)])]
    sent = LayoutUpdate([line], Region(0, 0, 3, 1)).render_segments(_console())
    assert sent == "\x1b[1;1H\x1b[38;5;231;48;5;54m0\x1b[48;5;55m1\x1b[0;38;5;231m2\x1b[0m"


@pytest.mark.parametrize("seed", range(30))
def test_the_terminal_shows_what_was_drawn_after_any_changes(seed: int) -> None:
    rng, console, terminal = random.Random(seed), _console(), Terminal()
    lines = [_drawn(rng) for _ in range(HEIGHT)]
    terminal.feed(LayoutUpdate([[each] for each in lines], Region(0, 0, WIDTH, HEIGHT)).render_segments(console))
    assert terminal.cells == _expected(lines)
    for _ in range(20):
        changed = sorted(rng.sample(range(HEIGHT), rng.randint(1, HEIGHT)))
        for y in changed:
            lines[y] = _drawn(rng) if rng.random() < 0.7 else lines[y]
        chops = [{0: line} if y in changed else {0: None} for y, line in enumerate(lines)]
        spans = [(y, 0, WIDTH) for y in changed]
        terminal.feed(ChopsUpdate(chops, spans, [[WIDTH]] * HEIGHT).render_segments(console))
        assert terminal.cells == _expected(lines)


def test_text_of_unknown_width_is_sent_as_it_is_and_everything_near_it_again() -> None:
    console = _console()
    odd = Strip([Segment("ab")], 3)  # wider than its characters: so Textual measures, for instance, some emoji
    update = ChopsUpdate([{0: odd}], [(0, 0, 3)], [[3]])
    assert update.render_segments(console) == update.render_segments(console) == "\x1b[1;1Hab"


def test_a_mark_stays_on_its_character() -> None:
    line = [Strip([Segment("e\u0301x")])]
    assert LayoutUpdate([line], Region(0, 0, 2, 1)).render_segments(_console()) == "\x1b[1;1He\u0301x"


def test_another_version_of_textual_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    original = object()
    for kind in (ChopsUpdate, LayoutUpdate):
        monkeypatch.setattr(kind, "render_segments", original)
    monkeypatch.setattr("simtui.terminal_output.__version__", "9.0.0")
    crop_dirty_regions()
    assert ChopsUpdate.render_segments is LayoutUpdate.render_segments is original
    assert textual.__version__ == "8.2.8", "the mending was measured for this version: measure it again"
