"""How large the cells of a map are, and which of them are in sight."""

from __future__ import annotations

from itertools import product

import pytest

from simtui.views.map_layout import HEADER_LINES, lay_out, short_labels


def _labels(n: int) -> tuple[str, ...]:
    return tuple(f"block {i + 1}" for i in range(n))


def test_few_layers_have_large_cells_with_numbers() -> None:
    layout = lay_out(80, 16, _labels(6), (0, 0))
    assert (layout.cell_height, layout.digits) == (2, 4)
    assert layout.cell_width >= 6
    assert layout.window == ""


def test_more_layers_keep_their_numbers_while_they_fit() -> None:
    assert lay_out(80, 15, _labels(12), (0, 0)).digits == 4
    assert lay_out(112, 30, _labels(24), (0, 0)).digits == 3


def test_many_layers_become_half_blocks_and_the_whole_map_stays_in_sight() -> None:
    layout = lay_out(116, 30, _labels(48), (0, 0))
    assert (layout.cell_height, layout.digits, layout.window) == (0, 0, "")


def test_without_colour_no_cell_goes_without_a_digit() -> None:
    layout = lay_out(116, 30, _labels(48), (0, 0), is_colorless=True)
    assert (layout.cell_height, layout.digits) == (1, 1)
    assert layout.window == "rows 1–28 of 48"


@pytest.mark.parametrize("is_colorless", [False, True])
def test_the_cursor_is_always_in_sight_and_inside_the_room(is_colorless: bool) -> None:
    for (width, height), n, place in product([(20, 5), (40, 12), (80, 14), (200, 60)], [1, 2, 6, 48], [0.0, 0.5, 1.0]):
        cursor = (round(place * (n - 1)), round((1 - place) * (n - 1)))
        layout = lay_out(width, height, _labels(n), cursor, is_colorless)
        assert layout.first_row <= cursor[0] < layout.first_row + layout.n_rows <= n
        assert layout.first_column <= cursor[1] < layout.first_column + layout.n_columns <= n
        assert layout.lines_of(cursor[0]).stop <= max(height, HEADER_LINES + 1)
        assert layout.x_of(cursor[1]) + layout.cell_width <= max(width, layout.label_width + 1 + layout.cell_width)


def test_a_window_moves_no_more_than_it_must() -> None:
    first = lay_out(80, 16, _labels(48), (0, 0))
    assert lay_out(80, 16, _labels(48), (first.n_rows - 1, 5), old=first).first_row == 0
    later = lay_out(80, 16, _labels(48), (first.n_rows, 5), old=first)
    assert later.first_row == 1
    assert lay_out(80, 16, _labels(48), (20, 5), old=later).first_row == 1


@pytest.mark.parametrize(("width", "height", "n"), [(80, 16, 6), (80, 15, 12), (116, 30, 48), (80, 16, 48)])
def test_a_point_is_in_the_cell_that_is_drawn_there(width: int, height: int, n: int) -> None:
    layout = lay_out(width, height, _labels(n), (0, 0))
    for row, column in product(range(0, layout.n_rows, 2), range(layout.n_columns)):
        assert layout.cell_at(layout.x_of(column), layout.lines_of(row).start) == (row, column)
    assert layout.cell_at(0, 5) is None
    assert layout.cell_at(layout.x_of(0), 1) is None
    assert layout.cell_at(width + 999, 5) is None


def test_labels_lose_the_words_that_they_share() -> None:
    assert short_labels(("block 1", "block 2")) == ("1", "2")
    assert short_labels(("embedding", "block 1")) == ("embedding", "block 1")
    assert short_labels(("same",)) == ("same",)
    assert short_labels(()) == ()
