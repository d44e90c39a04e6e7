"""Characters that an encoding lacks: each is written as one of the same width, and never as an escape."""

from __future__ import annotations

import sys
from io import BytesIO, TextIOWrapper

import pytest
from rich.cells import cell_len

from simtui.lookalikes import lookalike, use_lookalikes

DRAWN = "– … × → ← ↑ ↓ ✓ ● ∙ · ▶ ± ≫ █▉▎▌▐▀░ ━─│┃┼┤┬ ⣿⠁ ä 漢 \udcff"


@pytest.mark.parametrize("char", sorted(set(DRAWN)))
def test_a_lookalike_is_ascii_of_the_same_width(char: str) -> None:
    assert lookalike(char).isascii()
    assert len(lookalike(char)) == max(cell_len(char), 1)


@pytest.mark.parametrize(("encoding", "shown"), [("ascii", "a>b ? ##"), ("latin-1", "a>b ü ##"), ("utf-8", "a→b ü █▀")])
def test_only_what_the_encoding_lacks_is_replaced(monkeypatch: pytest.MonkeyPatch, encoding: str, shown: str) -> None:
    stream = TextIOWrapper(BytesIO(), encoding)
    monkeypatch.setattr(sys, "__stdout__", stream)
    monkeypatch.setattr(sys, "__stderr__", None)
    use_lookalikes()
    stream.write("a→b ü █▀")
    stream.flush()
    assert isinstance(stream.buffer, BytesIO)
    assert stream.buffer.getvalue().decode(encoding) == shown
