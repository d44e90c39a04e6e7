"""The plain parts of views: figures, wrapped sentences, columns that fit."""

from __future__ import annotations

import math

import pytest

from engine.analysis.table import Spread
from simtui.views.parts import Column, Row, Sheet, Span, count, figure, fit_columns, fitting, line, spread, wrapped

SHEET = Sheet(
    (
        Column("name", shrinks_to=4),
        Column("rarely", rank=2),
        Column("often", "right", rank=1),
        Column("always", "right"),
    ),
    (Row("a", (Span("a long name"), Span("x"), Span("0.5"), Span("1"))),),
)


def _kept(width: int) -> list[tuple[str, int]]:
    return [(SHEET.columns[i].title, n) for i, n in fit_columns(SHEET, width)[1]]


def test_all_columns_stay_where_there_is_room() -> None:
    assert fit_columns(SHEET, 80) == (2, ((0, 11), (1, 6), (2, 5), (3, 6)))
    assert fit_columns(SHEET, 34)[0] == 2
    assert fit_columns(SHEET, 33)[0] == 1


def test_names_shrink_before_columns_go_and_the_highest_rank_goes_first() -> None:
    assert _kept(26) == [("name", 6), ("rarely", 6), ("often", 5), ("always", 6)]
    assert _kept(23) == [("name", 10), ("often", 5), ("always", 6)]
    assert _kept(13) == [("name", 6), ("always", 6)]


def test_columns_of_rank_0_stay_even_where_nothing_fits() -> None:
    assert _kept(1) == [("name", 4), ("always", 6)]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.8123, "0.812"), (1.0, "1.000"), (None, "–"), (math.nan, "–"), ("text", "text"), (-0.02, "-0.020")],
)
def test_figures_have_three_decimals(value: float | str | None, shown: str) -> None:
    assert figure(value) == shown


def test_a_spread_of_one_value_has_no_sd() -> None:
    assert spread(Spread.of([0.5])) == "0.500 ± –"
    assert spread(Spread.of([0.4, 0.6])) == "0.500 ± 0.141"
    assert spread(Spread.of([])) == "–"


def _texts(text: str, width: int, max_lines: int) -> list[str]:
    return ["".join(span.text for span in line) for line in wrapped(text, width, max_lines)]


def test_the_mark_of_what_is_missing_has_its_place_in_the_width() -> None:
    assert _texts("aaaa bbbb cccc dddd", 9, 1) == ["aaaa …"]
    assert _texts("aaaa bbb cccc dddd", 10, 1) == ["aaaa bbb …"]


def test_a_sentence_is_wrapped_between_words() -> None:
    assert _texts("one two three four", 9, 3) == ["one two", "three", "four"]
    assert _texts("", 9, 3) == [""]


def test_what_does_not_fit_is_said_to_be_missing() -> None:
    assert _texts("one two three four", 9, 2) == ["one two", "three …"]


def test_the_first_line_that_fits_is_taken_and_else_the_last() -> None:
    lines = [line("in many", " words"), line("in few"), line("none")]
    assert [fitting(lines, width) for width in (13, 12, 6, 5, 1)] == [lines[i] for i in (0, 1, 1, 2, 2)]


def test_counts() -> None:
    assert (count(1, "run"), count(2, "run"), count(0, "run")) == ("1 run", "2 runs", "0 runs")
