"""Curves become cells of text: where they are, what they belong to, and that bands lie under them."""

from __future__ import annotations

import threading

from simtui.plotting import Frame, Plot, Series, axis_width, plot

FRAME = Frame((0.0, 10.0), (0.0, 1.0), (0.0, 5.0, 10.0), (0.0, 0.5, 1.0))
AXIS_WIDTH = axis_width(FRAME)
X = tuple(float(i) for i in range(11))
FLAT = tuple([0.5] * 11)
RISING = tuple(i / 10 for i in range(11))


def _rows_of(drawn: Plot, curve: int) -> list[int]:
    return [y for y, row in enumerate(drawn) if any(cell.curve == curve for cell in row)]


def test_a_plot_has_exactly_its_size() -> None:
    for width, height in ((20, 6), (40, 13), (117, 50)):
        drawn = plot([Series(X, FLAT, FLAT, FLAT)], FRAME, width, height)
        assert len(drawn) == height
        assert {len(row) for row in drawn} == {width}


def test_a_flat_curve_lies_at_its_tick_and_spans_the_canvas() -> None:
    drawn = plot([Series(X, FLAT, FLAT, FLAT)], FRAME, 40, 15)
    rows = _rows_of(drawn, 0)
    tick = next(y for y, row in enumerate(drawn) if "".join(cell.text for cell in row).startswith("0.50┤"))
    assert set(rows) <= {tick - 1, tick}
    columns = [x for row in drawn for x, cell in enumerate(row) if cell.curve == 0]
    assert (min(columns), max(columns)) == (AXIS_WIDTH, 39)


def test_the_canvas_starts_where_the_axis_ends() -> None:
    drawn = plot([Series(X, RISING, RISING, RISING)], FRAME, 45, 15)
    ticks = [x for x, cell in enumerate(drawn[-2]) if cell.text == "┬"]
    assert (ticks[0], ticks[-1]) == (AXIS_WIDTH, 44)
    assert "".join(cell.text for cell in drawn[-1]).split() == ["0", "5", "10"]


def test_a_rising_curve_rises() -> None:
    drawn = plot([Series(X, RISING, RISING, RISING)], FRAME, 40, 15)
    first, last = (
        [y for y, row in enumerate(drawn) if row[x].curve == 0] for x in (AXIS_WIDTH, 39)
    )  # fmt: skip
    assert min(last) == 0
    assert max(first) >= 11


def test_a_band_lies_under_its_curve_and_reaches_as_far_as_it_says() -> None:
    low, high = tuple([0.25] * 11), tuple([0.75] * 11)
    drawn = plot([Series(X, FLAT, low, high)], FRAME, 40, 22)
    rows = [y for y, row in enumerate(drawn) if row[20].band == 0]
    canvas = 20
    assert abs(rows[0] - 0.25 * canvas) <= 1 and abs(rows[-1] - 0.75 * canvas) <= 1
    assert all(drawn[y][20].band == 0 for y in _rows_of(drawn, 0))


def test_each_cell_knows_its_curve() -> None:
    top = tuple([0.9] * 11)
    drawn = plot([Series(X, FLAT, FLAT, FLAT), Series(X, top, top, top)], FRAME, 40, 22)
    assert max(_rows_of(drawn, 1)) < min(_rows_of(drawn, 0))
    assert not any(cell.band is not None for row in drawn for cell in row)


def test_letters_stand_in_for_colour() -> None:
    drawn = plot([Series(X, FLAT, FLAT, FLAT, "a")], FRAME, 40, 15)
    assert {cell.text for row in drawn for cell in row if cell.curve == 0} == {"a"}


def test_threads_do_not_mix_their_plots() -> None:
    expected = [plot([Series(X, y, y, y)], FRAME, 40, 15) for y in (FLAT, RISING)]
    found: dict[int, list[Plot]] = {0: [], 1: []}

    def draw(i: int) -> None:
        for _ in range(10):
            found[i].append(plot([Series(X, y, y, y) for y in ((FLAT, RISING)[i],)], FRAME, 40, 15))

    threads = [threading.Thread(target=draw, args=(i,)) for i in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {0: [expected[0]] * 10, 1: [expected[1]] * 10}
