"""What the map view says of how sure a cell is, word for word."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from engine.errors import StudyError
from engine.runs.uncertainty import CellUncertainty
from simtui.views.uncertainty import uncertainty_lines, uncertainty_words


def made(value: float = 0.43, low: float = 0.41, high: float = 0.46, n_orders: int = 199) -> CellUncertainty:
    """Two layers; in the second row and first column what is given, elsewhere it is undefined."""
    arrays = [np.full((2, 2), np.nan) for _ in range(5)]
    for array, each in zip(arrays, (value, low, high, 0.02, 0.03), strict=True):
        array[1, 0] = each
    return CellUncertainty(*arrays, 0.95, 1000, 2048, n_orders, "so", "thus")


def test_the_words_of_a_cell() -> None:
    assert uncertainty_words(made(), 1, 0) == ("95 % 0.410–0.460 over images · unrelated 0.020 (95 % below 0.030)")
    assert uncertainty_words(made(), 1, 0, has_settings=True) == (
        "95 % 0.410–0.460 over 2,048 images, 1,000 resamples · unrelated 0.020 (95 % below 0.030, 199 orders)"
    )
    assert "-0.010 to 0.460" in uncertainty_words(made(low=-0.01), 1, 0)
    assert "(at least 95 % below 0.030)" in uncertainty_words(made(n_orders=0), 1, 0, has_settings=True)


def test_what_has_none_says_so() -> None:
    assert uncertainty_words(None, 0, 0) == ""
    assert uncertainty_words(made(), 0, 0) == "an undefined cell has no interval"
    found = replace(made(), no_interval="mean CCA has no interval: it is slow")
    assert uncertainty_words(found, 1, 0).startswith("no interval for this measure · unrelated 0.020")
    assert uncertainty_words(found, 1, 0, has_settings=True).startswith("mean CCA has no interval: it is slow · ")
    error = StudyError("run\x1b", "was not kept [/]", "do\x1b[31m that")
    words = uncertainty_words(error, 0, 0)
    assert words.startswith("no interval: was not kept [/]; do") and "\x1b" not in words


@pytest.mark.parametrize(("width", "has_settings"), [(80, False), (120, True)])
def test_as_much_as_there_is_room_for(width: int, has_settings: bool) -> None:
    (said,) = uncertainty_lines(made(), 1, 0, width)
    text = "".join(span.text for span in said)
    assert text == f" {uncertainty_words(made(), 1, 0, has_settings=has_settings)}" and len(text) < width
    assert uncertainty_lines(None, 1, 0, width) == ()
    compared = uncertainty_lines(made(), 1, 0, width, "this run: ")
    assert "this run: 95 %" in "".join(span.text for span in compared[0])
