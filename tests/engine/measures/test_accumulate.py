"""Batches give what all images at once give, whatever the batches, at any level and scale; every error."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import NonFiniteError, ShapeError
from engine.measures import CkaAccumulator
from tests.engine.measures import reference

BOTH = ["linear_cka", "debiased_cka"]


def layers(seed: int, widths: tuple[int, ...], n: int = 120) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    shared = np.random.default_rng(99).standard_normal((n, 4))
    return [shared @ rng.standard_normal((4, d)) + rng.standard_normal((n, d)) + rng.standard_normal(d) for d in widths]


def accumulated(xs: list[np.ndarray], ys: list[np.ndarray], cuts: list[int]) -> dict[str, torch.Tensor]:
    found = CkaAccumulator()
    for start, stop in zip([0, *cuts], [*cuts, len(xs[0])], strict=True):
        found.update([x[start:stop] for x in xs], [y[start:stop] for y in ys])
    assert found.n == len(xs[0])
    return found.result()


@given(cuts=st.lists(st.integers(0, 120), max_size=6).map(sorted))
@settings(max_examples=25, deadline=None)
def test_whatever_the_batches(cuts: list[int]) -> None:
    xs, ys = layers(1, (5, 5, 40)), layers(2, (7, 5))
    for name, values in accumulated(xs, ys, cuts).items():
        assert (values.shape, values.dtype, values.device.type) == ((3, 2), torch.float64, "cpu")
        assert values.numpy() == pytest.approx(reference.similarity_map(xs, ys, name), abs=1e-10)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x,
        lambda x: x + 1000,
        lambda x: x + 1000 * (np.arange(x.shape[1]) == 3),
        lambda x: x * 1e-6,
        lambda x: x * 1e6,
        lambda x: x * 1e30,
        lambda x: x * 1e-30,
        lambda x: x + np.linspace(0, 30, len(x))[:, None],
    ],
    ids=["benign", "offset", "channel", "1e-6", "1e6", "1e30", "1e-30", "drift"],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ugly_batches(change, dtype: type) -> None:  # type: ignore[no-untyped-def]
    xs, ys = ([change(x).astype(dtype) for x in layers(seed, (30, 12))] for seed in (1, 2))
    for name, values in accumulated(xs, ys, [10, 50]).items():
        tolerance = 1e-6 if dtype == np.float32 else 1e-9
        assert values.numpy() == pytest.approx(reference.similarity_map(xs, ys, name), abs=tolerance)


def test_float16_and_mixed_types() -> None:
    xs, ys = [x.astype(np.float16) for x in layers(1, (30,))], layers(2, (12,))
    for name, values in accumulated(xs, ys, [10, 50]).items():
        assert values.numpy() == pytest.approx(reference.similarity_map(xs, ys, name), abs=1e-6)


def test_constant_layers_have_no_similarity_and_one_that_begins_constant_has() -> None:
    xs, ys = layers(1, (5, 5, 5)), layers(2, (5,))
    xs[0][:] = 1e3
    xs[1][:40] = 7.0
    values = accumulated(xs, ys, [40])["linear_cka"]
    assert values.isnan().tolist() == [[True], [False], [False]]
    assert values[1, 0].item() == pytest.approx(reference.similarity(xs[1], ys[0], "linear_cka"), abs=1e-10)


def test_equidistant_images() -> None:
    found = accumulated([np.eye(20)], [np.eye(20)], [7])
    assert found["linear_cka"].item() == pytest.approx(1)
    assert found["debiased_cka"].isnan()


def test_a_result_can_be_asked_for_on_the_way() -> None:
    x, y = layers(1, (5,))[0], layers(2, (6,))[0]
    found = CkaAccumulator()
    for stop in (50, 120):
        found.update([x[found.n : stop]], [y[found.n : stop]])
        expected = reference.similarity(x[:stop], y[:stop], "debiased_cka")
        assert found.result()["debiased_cka"].item() == pytest.approx(expected, abs=1e-10)


def test_too_few_images() -> None:
    found = CkaAccumulator()
    with pytest.raises(ShapeError, match=r"^CkaAccumulator: has seen 0 images \(need 4\)"):
        found.result()
    found.update([np.ones((3, 2))], [np.ones((3, 2))])
    with pytest.raises(ShapeError, match=r"^CkaAccumulator: has seen 3 images \(need 4\)"):
        found.result()


def test_other_layers_than_before() -> None:
    found = CkaAccumulator()
    found.update(layers(1, (5, 6)), layers(2, (5,)))
    with pytest.raises(
        ShapeError, match=r"^xs: has layers of \[5, 7\] features \(need \[5, 6\], as the batches before\)"
    ):
        found.update(layers(1, (5, 7)), layers(2, (5,)))
    with pytest.raises(ShapeError, match=r"^ys: has no layers"):
        found.update(layers(1, (5, 6)), [])
    with pytest.raises(ShapeError, match=r"^ys\[0\]: has 119 images \(need 120, as xs\[0\]\)"):
        found.update(layers(1, (5, 6)), [layers(2, (5,))[0][:-1]])


def test_a_batch_that_is_not_finite_leaves_no_trace() -> None:
    xs, ys = layers(1, (5, 6)), layers(2, (5,))
    found = CkaAccumulator()
    found.update([x[:60] for x in xs], [y[:60] for y in ys])
    bad = ys[0][60:].copy()
    bad[3, 2] = np.nan
    with pytest.raises(NonFiniteError, match=r"^ys\[0\]: 1 of 300 values are not finite, the first at image 63\n"):
        found.update([x[60:] for x in xs], [bad])
    found.update([x[60:] for x in xs], [y[60:] for y in ys])
    for name in BOTH:
        assert found.result()[name].numpy() == pytest.approx(reference.similarity_map(xs, ys, name), abs=1e-10)
