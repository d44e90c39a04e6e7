"""Linear CKA, both estimators: known values, declared and undeclared invariances, precision, degenerate layers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engine.measures import MEASURES, Comparison, debiased_cka, heatmap, linear_cka, why_undefined
from engine.measures import gram as gram_module
from tests.engine.measures import reference

BOTH = ["linear_cka", "debiased_cka"]


def related(seed: int, n: int = 40, d_x: int = 7, d_y: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Two representations that share part of their variation, and whose features differ in scale."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d_x)) * np.linspace(0.5, 2, d_x)
    return x, x @ rng.standard_normal((d_x, d_y)) / np.sqrt(d_x) + rng.standard_normal((n, d_y)) / 2


def published() -> tuple[np.ndarray, np.ndarray]:
    np.random.seed(1337)
    x = np.random.randn(100, 10)
    return x, np.random.randn(100, 10) + x


@pytest.mark.parametrize(("name", "value"), [("linear_cka", 0.5576132566), ("debiased_cka", 0.5134564895)])
def test_published_values(name: str, value: float) -> None:
    assert MEASURES[name].function(*published()).item() == pytest.approx(value, abs=1e-10)


def test_result_is_a_float64_scalar_on_the_cpu() -> None:
    result = linear_cka(*published())
    assert (result.dtype, result.shape, result.device.type) == (torch.float64, (), "cpu")


@pytest.mark.parametrize("name", BOTH)
def test_of_a_representation_with_itself_is_one(name: str) -> None:
    x, _ = related(0)
    assert MEASURES[name].function(x, x).item() == pytest.approx(1, abs=1e-12)


def orthogonal(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return x @ np.linalg.qr(rng.standard_normal((x.shape[1], x.shape[1])))[0]


@pytest.mark.parametrize("name", BOTH)
def test_order_of_the_images_matters_only_where_the_sides_disagree(name: str) -> None:
    x, y = related(3)
    order = np.random.default_rng(0).permutation(len(x))
    function = MEASURES[name].function
    assert function(x[order], y[order]).item() == pytest.approx(function(x, y).item(), abs=1e-12)
    assert abs(function(x[order], y).item() - function(x, y).item()) > 0.1


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize(("n", "d_x", "d_y"), [(4, 1, 1), (5, 30, 2), (12, 700, 300), (300, 3, 90), (257, 40, 40)])
def test_agrees_with_the_definition(name: str, n: int, d_x: int, d_y: int) -> None:
    x, y = related(11, n, d_x, d_y)
    assert MEASURES[name].function(x, y).item() == pytest.approx(reference.similarity(x, y, name), abs=1e-10)


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("form", ["_by_tiles", "_by_features"])
def test_both_forms_of_the_products_agree_with_the_definition(
    name: str, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cheaper one is taken by size; here each has to do the work of the other."""
    other = {"_by_tiles": "_by_features", "_by_features": "_by_tiles"}[form]
    monkeypatch.setattr(gram_module, other, getattr(gram_module, form))
    for n, d in ((300, 4), (300, 500)):
        xs, ys = zip(*(related(seed, n, d, d + seed) for seed in (1, 2)), strict=True)
        assert heatmap(xs, ys, name).numpy() == pytest.approx(reference.similarity_map(xs, ys, name), abs=1e-10)
        comparison = Comparison(xs, [name])
        for others in (ys, xs[::-1], xs):
            found = comparison.heatmaps(others)[name].numpy()
            assert found == pytest.approx(reference.similarity_map(xs, others, name), abs=1e-10)


def test_many_images_take_the_feature_form_and_few_the_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    for form in ("_by_tiles", "_by_features"):
        original = getattr(gram_module, form)
        monkeypatch.setattr(
            gram_module, form, lambda *a, form=form, original=original: taken.append(form) or original(*a)
        )
    linear_cka(*related(0, n=900, d_x=8, d_y=8))
    linear_cka(*related(0, n=20, d_x=80, d_y=80))
    assert taken == ["_by_features", "_by_tiles"]


@pytest.mark.parametrize("n", [4, 8, 256, 257])
def test_float32_is_within_1e_5_of_float64_where_debiasing_leaves_little(n: int) -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((n, 4000)).astype(np.float32)
    y = (x[:, :900] + rng.standard_normal((n, 900))).astype(np.float32)
    assert debiased_cka(x, y).item() == pytest.approx(reference.similarity(x, y, "debiased_cka"), abs=1e-6)


def test_unrelated_representations_score_zero_only_when_debiased() -> None:
    rng = np.random.default_rng(0)
    draws = [rng.standard_normal((2, 32, 768)).astype(np.float32) for _ in range(50)]
    assert np.mean([debiased_cka(x, y) for x, y in draws]) == pytest.approx(0, abs=0.03)
    assert np.mean([linear_cka(x, y) for x, y in draws]) == pytest.approx(0.96, abs=0.005)


def hostile(kind: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Layers in the types and at the levels that break careless arithmetic; values as they are after rounding."""
    rng = np.random.default_rng(5)
    shared = rng.standard_normal((300, 96))
    layers = [shared / (depth + 1) + rng.standard_normal((300, 96)) / 2 for depth in range(6)]
    change = {
        "benign": lambda x: x,
        "constant offset": lambda x: x + 1000,
        "single channel": lambda x: x + 1000 * (np.arange(96) == 3),
        "tiny": lambda x: x * 1e-6,
        "huge": lambda x: x * 1e6,
        "beyond the squares of float32": lambda x: x * 1e30,
        "below the squares of float32": lambda x: x * 1e-30,
        "float16": lambda x: x.astype(np.float16),
        "float16 offset": lambda x: (x + 100).astype(np.float16),
    }[kind]
    stored = [change(x) for x in layers]
    stored = [x if x.dtype == np.float16 else x.astype(np.float32) for x in stored]
    return stored[:3], stored[3:]


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize(
    "kind",
    [
        "benign",
        "constant offset",
        "single channel",
        "tiny",
        "huge",
        "beyond the squares of float32",
        "below the squares of float32",
        "float16",
        "float16 offset",
    ],
)
def test_float32_is_within_1e_5_of_float64(name: str, kind: str) -> None:
    xs, ys = hostile(kind)
    error = np.abs(heatmap(xs, ys, name).numpy() - reference.similarity_map(xs, ys, name)).max()
    assert error <= 1e-6  # the promise is 1e-5; what is lost today is well below


@pytest.mark.parametrize("name", BOTH)
def test_float32_feature_form_is_within_1e_5_of_float64(name: str) -> None:
    x, y = (side.astype(np.float32) + 1000 for side in related(7, n=700, d_x=12, d_y=9))
    assert MEASURES[name].function(x, y).item() == pytest.approx(reference.similarity(x, y, name), abs=1e-6)


@pytest.mark.parametrize("name", BOTH)
def test_bfloat16_and_mixed_types_are_taken_as_the_numbers_they_hold(name: str) -> None:
    x, y = (torch.from_numpy(side) for side in related(9))
    low = x.bfloat16()
    function = MEASURES[name].function
    expected = reference.similarity(low.double().numpy(), y.numpy(), name)
    assert function(low, y).item() == pytest.approx(expected, abs=1e-12)  # float64 on one side: all in float64
    assert function(low, y.float()).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", BOTH)
def test_float64_reaches_the_ends_of_its_range(name: str) -> None:
    x, y = related(2)
    function = MEASURES[name].function
    assert function(x * 1e307, y * 1e-307).item() == pytest.approx(function(x, y).item(), abs=1e-12)


CONSTANTS = {
    "zeros": np.zeros((50, 6), np.float32),
    "1e3": np.full((50, 6), 1e3, np.float32),
    "a tenth": np.full((50, 6), 0.1),
    "1e3 in float16": np.full((50, 6), 1e3, np.float16),
    "a row repeated": np.tile(np.linspace(-1e4, 1e4, 6, dtype=np.float32), (50, 1)),
}


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("kind", CONSTANTS)
def test_constant_layer_has_no_similarity(name: str, kind: str) -> None:
    _, y = related(1, n=50)
    layer = CONSTANTS[kind]
    values = heatmap([layer, y], [y, layer], name).numpy()
    assert np.isnan(values).tolist() == [[True, True], [False, True]]
    assert why_undefined(layer, name) == "constant over the images"


@pytest.mark.parametrize("name", BOTH)
def test_rounding_is_not_variation(name: str) -> None:
    rng = np.random.default_rng(0)
    ulp = np.spacing(np.float32(1e3))
    noise = (1e3 + ulp * rng.integers(-1, 2, (50, 6))).astype(np.float32)
    assert torch.isnan(MEASURES[name].function(noise, noise))
    assert why_undefined(noise, name) == "constant over the images, up to rounding"
    small = (1e3 + 1e-2 * rng.standard_normal((50, 6))).astype(np.float32)
    assert MEASURES[name].function(small, small).item() == pytest.approx(1)
    assert why_undefined(small, name) is None


@pytest.mark.parametrize("name", BOTH)
def test_constant_channels_are_removed_without_a_trace(name: str) -> None:
    """The float64 mean of many equal numbers may be off by a rounding, which here is as large as the other channels."""
    x, y = related(4, n=50)
    beside = np.hstack([x * 1e-6, np.tile(1e10 + np.linspace(0, 1, 20), (50, 1))])
    function = MEASURES[name].function
    assert function(beside, y).item() == pytest.approx(function(x, y).item(), abs=1e-12)


def test_one_varying_channel_is_enough() -> None:
    layer = np.full((50, 6), 1e3, np.float32)
    layer[:, 2] += np.arange(50, dtype=np.float32)
    assert linear_cka(layer, np.arange(50.0)[:, None]).item() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("n", [4, 64, 300])
def test_equidistant_images_are_undefined_only_when_debiased(n: int) -> None:
    layer = np.eye(n, dtype=np.float32)
    assert linear_cka(layer, layer).item() == pytest.approx(1)
    assert why_undefined(layer, "linear_cka") is None
    assert why_undefined(layer, "debiased_cka") == "all images are equally far apart"
    for seed in range(5):  # rounding leaves something, of either sign, of what is zero
        turned = orthogonal(layer, np.random.default_rng(seed)).astype(np.float32)
        assert torch.isnan(debiased_cka(turned, layer))
