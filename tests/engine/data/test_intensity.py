"""Intensities to grey levels, and the windows that a user may give."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from engine.data.intensity import AS_STORED, Decoding, grey_levels
from engine.data.options import DataOptions


def test_a_window_goes_from_black_to_white() -> None:
    values = np.array([[-2000, -1000, -999.9], [0, 999.9, 3000]])
    levels = grey_levels(values, (-1000.0, 1000.0))
    assert levels.dtype == np.uint8
    assert levels.tolist() == [[0, 0, 0], [128, 255, 255]]


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_any_type_of_numbers(dtype: type[Any]) -> None:
    values = np.arange(0, 101, 20).astype(dtype)
    assert grey_levels(values, (0.0, 100.0)).tolist() == [0, 51, 102, 153, 204, 255]


def test_levels_are_rounded_and_not_cut() -> None:
    assert grey_levels(np.array([0.0, 0.49, 0.51, 254.49, 254.51]), (0.0, 255.0)).tolist() == [0, 0, 1, 254, 255]


def test_auto_leaves_out_the_extremes() -> None:
    values = np.concatenate([[-30_000], np.arange(1000), [30_000]])
    low, high = np.percentile(values, (0.5, 99.5))
    levels = grey_levels(values, "auto")
    assert (levels[0], levels[-1]) == (0, 255)
    np.testing.assert_array_equal(levels, np.rint(255 * np.clip((values - low) / (high - low), 0, 1)))


def test_auto_of_a_few_bright_pixels_takes_the_ends() -> None:
    values = np.zeros(10_000)
    values[:3] = 7
    assert sorted(set(grey_levels(values, "auto").tolist())) == [0, 255]


def test_auto_of_one_value_is_black() -> None:
    assert not grey_levels(np.full((3, 3), 900, np.uint16), "auto").any()


@pytest.mark.parametrize("shape", [(4,), (2, 3), (2, 3, 4)])
def test_shape_is_kept(shape: tuple[int, ...]) -> None:
    values: NDArray[np.float64] = np.zeros(shape)
    assert grey_levels(values, (0.0, 1.0)).shape == shape


def test_what_nobody_decides_is_as_stored() -> None:
    assert Decoding() == AS_STORED
    assert Decoding("auto") != AS_STORED != Decoding(frame=0)


@pytest.mark.parametrize("window", [(0, 4095), (-1000.5, 400.0), "auto", None])
def test_windows_that_a_user_may_give(window: object) -> None:
    assert DataOptions(window=window).window == window  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "window", [(5, 5), (400, -1000), (0, float("nan")), (float("nan"), 1), (0, float("inf")), (float("-inf"), 0)]
)
def test_windows_that_are_none(window: tuple[float, float]) -> None:
    with pytest.raises(ValidationError) as caught:
        DataOptions(window=window)
    (problem,) = caught.value.errors()
    assert problem["msg"] == "need two numbers, the lower one first"


@pytest.mark.parametrize(
    "options",
    [
        {"window": "automatic"},
        {"window": (1,)},
        {"window": (1, 2, 3)},
        {"frame": -1},
        {"frame": 0.5},
        {"task": "regression"},
        {"uncertain": "half"},
        {"max_skipped": 1.1},
        {"lable": "dx"},
    ],
)
def test_other_settings_that_are_none(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        DataOptions(**options)
