"""What holds for every measure of the table, and what one alone promises: values, invariances, precision, NaN."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import NonFiniteError, ShapeError, StudyError
from engine.measures import (
    MEASURES,
    Comparison,
    heatmap,
    linear_regression,
    mean_cca,
    minibatch_cka,
    mutual_knn,
    procrustes,
    procrustes_angle,
    procrustes_distance,
    pwcca,
    rbf_cka,
    row_cosine,
    rsa,
    svcca,
    why_undefined,
)
from tests.engine.measures import reference

ALL = list(MEASURES)
FITS = ("mean_cca", "mean_squared_cca", "svcca", "pwcca", "linear_regression")  # perfect where directions abound
seeds = st.integers(0, 2**32 - 1)


def related(seed: int, n: int = 60, d_x: int = 6, d_y: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Two representations that share part of their variation, whose features differ in scale and in mean."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d_x)) * np.linspace(0.5, 2, d_x)
    y = x @ rng.standard_normal((d_x, d_y)) / np.sqrt(d_x) + rng.standard_normal((n, d_y)) / 2
    return x + rng.standard_normal(d_x), y + rng.standard_normal(d_y)


def widths_for(name: str, d_x: int, d_y: int) -> tuple[int, int]:
    return (d_x, d_x) if MEASURES[name].needs_equal_widths else (d_x, d_y)


# --- values ---------------------------------------------------------------------------------------------------------

PUBLISHED = {
    "linear_cka": 0.5576132566,
    "debiased_cka": 0.5134564895,
    "rbf_cka": 0.6548311823,
    "mean_cca": 0.7310139588,
    "mean_squared_cca": 0.5453963322,
    "pwcca": 0.7346677197,
    "procrustes": 0.7362553106,
    "mutual_knn": 0.279,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_values(name: str) -> None:
    np.random.seed(1337)
    x = np.random.randn(100, 10)
    y = np.random.randn(100, 10) + x
    assert MEASURES[name].function(x, y).item() == pytest.approx(PUBLISHED[name], abs=1e-9)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(("n", "d_x", "d_y"), [(14, 3, 4), (40, 7, 5), (300, 3, 90), (257, 40, 40), (600, 20, 12)])
def test_agrees_with_the_definition(name: str, n: int, d_x: int, d_y: int) -> None:
    x, y = related(11, n, *widths_for(name, d_x, d_y))
    assert MEASURES[name].function(x, y).item() == pytest.approx(reference.similarity(x, y, name), abs=1e-9)


@pytest.mark.parametrize("name", [name for name in ALL if name not in FITS])
def test_agrees_with_the_definition_where_features_outnumber_images(name: str) -> None:
    x, y = related(12, 20, *widths_for(name, 700, 300))
    assert MEASURES[name].function(x, y).item() == pytest.approx(reference.similarity(x, y, name), abs=1e-9)


@pytest.mark.parametrize("name", ALL)
def test_of_a_representation_with_itself_is_one(name: str) -> None:
    x, _ = related(0)
    assert MEASURES[name].function(x, x).item() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("rbf_cka", {"threshold": 0.2}),
        ("rbf_cka", {"threshold": 2}),
        ("svcca", {"variance": 0.5}),
        ("svcca", {"variance": 0.9}),
        ("rsa", {"correlation": "pearson"}),
        ("mutual_knn", {"k": 3}),
        ("mutual_knn_jaccard", {"k": 25}),
        ("minibatch_cka", {"batch_size": 17, "seed": 5}),
    ],
)
def test_options(name: str, options: dict[str, object]) -> None:
    x, y = related(5)
    expected = reference.similarity(x, y, name, **options)
    assert MEASURES[name].function(x, y, **options).item() == pytest.approx(expected, abs=1e-9)
    assert heatmap([x], [y, x], name, **options)[0, 0].item() == pytest.approx(expected, abs=1e-9)
    assert abs(expected - MEASURES[name].function(x, y).item()) > 1e-4


def test_canonical_correlations_are_those_of_scikit_learn() -> None:
    from sklearn.cross_decomposition import CCA

    x, y = related(3, n=200, d_x=4, d_y=4)
    scores = CCA(n_components=4, max_iter=5000, tol=1e-12).fit_transform(x, y)
    correlations = [np.corrcoef(*pair)[0, 1] for pair in zip(scores[0].T, scores[1].T, strict=True)]
    assert mean_cca(x, y).item() == pytest.approx(np.mean(correlations), abs=1e-6)


# --- heatmaps -------------------------------------------------------------------------------------------------------


def layers(seed: int, widths: tuple[int, ...] = (8, 8, 3), n: int = 70) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    shared = np.random.default_rng(99).standard_normal((n, 4))
    return [shared @ rng.standard_normal((4, d)) + rng.standard_normal((n, d)) for d in widths]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("n", [70, 300])
def test_every_cell_of_a_heatmap_is_the_measure_of_its_pair(name: str, n: int) -> None:
    equal = MEASURES[name].needs_equal_widths
    xs, ys = layers(1, (8, 8, 8) if equal else (8, 8, 3), n), layers(2, (8, 8) if equal else (5, 8), n)
    values = heatmap(xs, ys, name)
    assert (values.shape, values.dtype, values.device.type) == ((3, 2), torch.float64, "cpu")
    assert values.numpy() == pytest.approx(reference.similarity_map(xs, ys, name), abs=1e-9)
    own = heatmap(xs, xs, name).numpy()
    assert own == pytest.approx(reference.similarity_map(xs, xs, name), abs=1e-9)
    comparison = Comparison(xs, [name])
    for others in (ys, xs[::-1]):
        expected = reference.similarity_map(xs, others, name)
        assert comparison.heatmaps(others)[name].numpy() == pytest.approx(expected, abs=1e-9)


def test_all_measures_at_once() -> None:
    xs, ys = layers(1, (8, 8)), layers(2, (8, 8))
    for name, values in Comparison(xs, ALL).heatmaps(ys).items():
        assert values.numpy() == pytest.approx(reference.similarity_map(xs, ys, name), abs=1e-9), name


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ALL)
def test_gpu_agrees_with_the_definition(name: str) -> None:
    xs, ys = ([torch.from_numpy(x).float().cuda() for x in layers(seed, (8, 8), 300)] for seed in (1, 2))
    expected = reference.similarity_map([x.cpu() for x in xs], [y.cpu() for y in ys], name)
    assert heatmap(xs, ys, name).numpy() == pytest.approx(expected, abs=1e-5)


# --- what the table declares ----------------------------------------------------------------------------------------


def orthogonal(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return x @ np.linalg.qr(rng.standard_normal((x.shape[1], x.shape[1])))[0]


def scaled(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return x * 10.0 ** rng.uniform(-8, 8)


def translated(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return x + 100 * rng.standard_normal(x.shape[1])


def invertible(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return orthogonal(x, rng) * rng.permutation(np.geomspace(0.1, 10, x.shape[1]))


TRANSFORMS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "orthogonal": orthogonal,
    "isotropic scaling": scaled,
    "translation": translated,
    "invertible linear": invertible,
}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("transform", TRANSFORMS)
@given(seed=seeds)
@settings(max_examples=8, deadline=None)
def test_invariant_to_what_it_declares(name: str, transform: str, seed: int) -> None:
    x, y = related(seed)
    rng, function, measure = np.random.default_rng(seed), MEASURES[name].function, MEASURES[name]
    before = function(x, y).item()
    if transform in measure.invariances:
        assert function(TRANSFORMS[transform](x, rng), y).item() == pytest.approx(before, abs=1e-8)
    if transform in measure.invariances | measure.invariances_of_y:
        assert function(x, TRANSFORMS[transform](y, rng)).item() == pytest.approx(before, abs=1e-8)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_not_invariant_to_anything_else(name: str, transform: str) -> None:
    measure, moved_x, moved_y = MEASURES[name], 0.0, 0.0
    for seed in range(5):
        x, y = related(seed)
        rng, before = np.random.default_rng(seed), measure.function(x, y).item()
        moved_x = max(moved_x, abs(measure.function(TRANSFORMS[transform](x, rng), y).item() - before))
        moved_y = max(moved_y, abs(measure.function(x, TRANSFORMS[transform](y, rng)).item() - before))
    assert (moved_x > 1e-3) == (transform not in measure.invariances)
    assert (moved_y > 1e-3) == (transform not in measure.invariances | measure.invariances_of_y)


@pytest.mark.parametrize("name", ALL)
def test_symmetric_where_it_says_so(name: str) -> None:
    differences = [
        abs(MEASURES[name].function(x, y).item() - MEASURES[name].function(y, x).item())
        for x, y in (related(seed) for seed in range(5))
    ]
    assert (max(differences) < 1e-10) == MEASURES[name].is_symmetric


@pytest.mark.parametrize("name", ALL)
@given(seed=seeds)
@settings(max_examples=8, deadline=None)
def test_within_its_range_and_blind_to_the_order_of_the_images(name: str, seed: int) -> None:
    x, y = related(seed)
    low, high = MEASURES[name].range
    value = MEASURES[name].function(x, y).item()
    assert low <= value <= high
    if name != "minibatch_cka":  # its batches are part of it
        order = np.random.default_rng(seed).permutation(len(x))
        assert MEASURES[name].function(x[order], y[order]).item() == pytest.approx(value, abs=1e-10)


@pytest.mark.parametrize("name", ALL)
def test_unrelated_representations_score_what_the_table_warns_of(name: str) -> None:
    """Well above 0 on few images a feature exactly where `images_a_feature` says so."""
    measure = MEASURES[name]
    draws = [np.random.default_rng(seed).standard_normal((2, 60, 24)) for seed in range(12)]
    mean = np.mean([measure.function(x, y) for x, y in draws])
    is_inflated = measure.images_a_feature > 0
    assert (mean > 0.25) == is_inflated
    assert (measure.caution(60, 24) is not None) == is_inflated
    assert measure.caution(24 * 100, 24) is None
    if is_inflated:
        assert measure.caution(60, 24) == f"{measure.label} is inflated: n = 60 is not >> d = 24"


@pytest.mark.parametrize("name", ALL)
def test_the_table_knows_the_defaults_of_its_functions(name: str) -> None:
    parameters = list(inspect.signature(MEASURES[name].function).parameters.values())
    assert [parameter.name for parameter in parameters[:2]] == ["x", "y"]
    assert {parameter.name: parameter.default for parameter in parameters[2:]} == dict(MEASURES[name].options)


# --- precision ------------------------------------------------------------------------------------------------------

UGLY: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "benign": lambda x: x,
    "constant offset": lambda x: x + 1000,
    "single channel": lambda x: x + 1000 * (np.arange(x.shape[1]) == 3),
    "tiny": lambda x: x * 1e-6,
    "huge": lambda x: x * 1e6,
    "beyond the squares of float32": lambda x: x * 1e30,
    "below the squares of float32": lambda x: x * 1e-30,
    "float16": lambda x: x.astype(np.float16),
    "float16 offset": lambda x: (x + 100).astype(np.float16),
}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("kind", UGLY)
def test_float32_is_within_1e_5_of_float64(name: str, kind: str) -> None:
    rng = np.random.default_rng(5)
    shared = rng.standard_normal((300, 48))
    stored = [UGLY[kind](shared / (depth + 1) + rng.standard_normal((300, 48)) / 2) for depth in range(4)]
    stored = [x if x.dtype == np.float16 else x.astype(np.float32) for x in stored]
    error = np.abs(
        heatmap(stored[:2], stored[2:], name).numpy() - reference.similarity_map(stored[:2], stored[2:], name)
    )
    assert error.max() <= 1e-6


@pytest.mark.parametrize("name", ALL)
def test_the_types_that_pytorch_trains_in(name: str) -> None:
    x, y = (torch.from_numpy(side).bfloat16() for side in related(9, n=300))
    expected = reference.similarity(x.double().numpy(), y.double().numpy(), name)
    assert MEASURES[name].function(x, y).item() == pytest.approx(expected, abs=1e-6)


# --- where there is no similarity -----------------------------------------------------------------------------------

CONSTANTS = {
    "zeros": np.zeros((50, 6), np.float32),
    "1e3": np.full((50, 6), 1e3, np.float32),
    "a row repeated": np.tile(np.linspace(-1e4, 1e4, 6, dtype=np.float32), (50, 1)),
}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("kind", CONSTANTS)
def test_constant_layer_has_no_similarity(name: str, kind: str) -> None:
    x, y = related(1, n=50)
    values = heatmap([CONSTANTS[kind], x], [y, CONSTANTS[kind]], name).numpy()
    assert np.isnan(values).tolist() == [[True, True], [False, True]]
    assert why_undefined(CONSTANTS[kind], name) == "constant over the images"
    assert why_undefined(x, name) is None
    rounded = (1e3 + np.spacing(np.float32(1e3)) * np.random.default_rng(0).integers(-1, 2, (50, 6))).astype(np.float32)
    assert torch.isnan(MEASURES[name].function(rounded, y))
    assert why_undefined(rounded, name) == "constant over the images, up to rounding"


@pytest.mark.parametrize("name", FITS)
def test_as_many_directions_as_images_allow_fit_everything(name: str) -> None:
    rng = np.random.default_rng(0)
    wide, other = rng.standard_normal((30, 40)), rng.standard_normal((30, 5))
    reason = "varies in 29 directions over 30 images: any other fits it perfectly"
    options = {"variance": 1.0} if name == "svcca" else {}
    assert why_undefined(wide, name, side="y", **options) == reason
    assert torch.isnan(MEASURES[name].function(other, wide, **options))
    value = MEASURES[name].function(wide, other, **options).item()
    if name == "linear_regression":  # what few features say of many is a fair question
        assert why_undefined(wide, name) is None
        assert value == pytest.approx(reference.similarity(wide, other, name), abs=1e-9)
    else:
        assert why_undefined(wide, name, **options) == reason
        assert np.isnan(value)


def test_directions_below_the_rounding_of_their_type_are_no_directions() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 4))
    dependent = np.hstack([x + 50, (x + 50) @ rng.standard_normal((4, 3))])  # seven features, four directions
    y = rng.standard_normal((200, 3))
    expected = reference.similarity(x, y, "mean_cca")
    for stored in (dependent, dependent.astype(np.float32)):
        assert mean_cca(stored, y).item() == pytest.approx(expected, abs=1e-5)


def test_a_row_of_zeros_has_no_cosine() -> None:
    x, y = related(2, n=40)
    x[17] = 0
    for name in ("row_cosine", "mutual_knn", "mutual_knn_jaccard"):
        assert torch.isnan(MEASURES[name].function(x, y))
        assert why_undefined(x, name) == "image 17 has only zeros, which have no cosine"


def test_an_image_of_equal_features_has_no_correlation_distance() -> None:
    x, y = related(2, n=40)
    x[5] = 3.0
    assert torch.isnan(rsa(y, x))
    assert why_undefined(x, "rsa") == "the features of image 5 are all equal, which have no correlation"
    two = np.array([[0.0, 1.0, 2.0], [0, 2, 4], [1, 2, 3], [5, 6, 7]])
    assert why_undefined(two, "rsa") == "all images are equally dissimilar"


def test_a_median_distance_of_zero_is_no_bandwidth() -> None:
    x, y = related(2, n=40)
    x[:30] = x[0]
    assert torch.isnan(rbf_cka(x, y))
    assert why_undefined(x, "rbf_cka") == (
        "half of the images or more are one and the same: the median distance is zero"
    )


def test_batches_that_leave_nothing() -> None:
    layer = np.eye(40)
    assert torch.isnan(minibatch_cka(layer, layer, batch_size=20))
    assert why_undefined(layer, "minibatch_cka") == "its HSIC with itself is not positive over these batches"


# --- single promises ------------------------------------------------------------------------------------------------


def test_one_batch_is_debiased_cka_and_batches_are_even() -> None:
    from engine.measures.minibatch import batches_of

    x, y = related(3)
    assert minibatch_cka(x, y, batch_size=60).item() == pytest.approx(reference.similarity(x, y, "debiased_cka"))
    parts = batches_of(300, 256, seed=3)
    assert [len(part) for part in parts] == [150, 150]
    assert sorted(torch.cat(parts).tolist()) == list(range(300))
    assert torch.equal(torch.cat(batches_of(300, 256, None)), torch.arange(300))
    assert [len(part) for part in batches_of(11, 4 * 2, 0)] == [6, 5]


def test_equally_near_neighbours_are_taken_in_the_order_of_the_images() -> None:
    axis = np.eye(8)
    x = np.vstack([axis, axis, axis])  # each image three times; all others are at cosine 0
    from engine.measures.check import as_layer
    from engine.measures.neighbours import directions, nearest_rows

    nearest = nearest_rows(directions(as_layer(x.astype(np.float32), "x"))[0], 4)
    for row in range(24):
        copies = [i for i in (row % 8, row % 8 + 8, row % 8 + 16) if i != row]
        others = [i for i in range(24) if i % 8 != row % 8][:2]
        assert sorted(nearest[row].tolist()) == sorted([*copies, *others])


def test_neighbours_are_those_of_float64() -> None:
    """Cosines that differ by less than float32 can tell."""
    rng = np.random.default_rng(0)
    x = 1e4 + rng.standard_normal((120, 32))  # all cosines are 1 within 1e-8
    y = rng.standard_normal((120, 32))
    assert mutual_knn(x, y).item() == pytest.approx(reference.similarity(x, y, "mutual_knn"), abs=1e-12)
    assert mutual_knn(x, x + 1e-9 * y).item() == pytest.approx(1)


def test_ranks_of_ties() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 2, (30, 5)).astype(float), rng.integers(0, 2, (30, 5)).astype(float)
    x[:, 0], y[:, 0] = 2, 3  # no row of equal features
    dissimilarities = reference.pdist(x, "correlation")
    assert len(np.unique(dissimilarities.round(9))) < 20
    rounded = [reference.pdist(z, "correlation").round(12) for z in (x, y)]
    expected = reference.scipy.stats.spearmanr(*rounded).statistic
    assert rsa(x, y).item() == pytest.approx(expected, abs=1e-12)


def test_forms_of_procrustes() -> None:
    x, y = related(4)
    s = procrustes(x, y).item()
    assert procrustes_distance(x, y).item() == pytest.approx(np.sqrt(2 - 2 * s))
    assert procrustes_angle(x, y).item() == pytest.approx(np.arccos(s))
    x, y = (z - z.mean(axis=0) for z in (x, y))
    x, y = (z / np.linalg.norm(z) for z in (x, y))
    rotation, _ = reference.scipy.linalg.orthogonal_procrustes(y, x)
    assert procrustes_distance(x, y).item() == pytest.approx(np.linalg.norm(x - y @ rotation))
    assert procrustes_distance(x, x).item() == pytest.approx(0, abs=1e-7)
    turned = x @ np.linalg.qr(np.random.default_rng(0).standard_normal((6, 6)))[0]
    assert procrustes_angle(x, 3 * turned).item() == pytest.approx(0, abs=1e-6)


def test_svcca_takes_the_components_that_reach_the_variance() -> None:
    rng = np.random.default_rng(0)
    axes, _ = np.linalg.qr(rng.standard_normal((100, 4)) - 0)
    axes -= axes.mean(axis=0)
    axes, _ = np.linalg.qr(axes)
    x = axes * np.sqrt([90, 9, 0.6, 0.4])  # the first two are 99 % of Σ s²
    y = axes[:, :2] @ rng.standard_normal((2, 2))
    assert svcca(x, y, variance=0.99).item() == pytest.approx(1)
    assert svcca(x, axes[:, 2:] @ rng.standard_normal((2, 2))).item() == pytest.approx(0, abs=1e-12)


def test_weights_of_pwcca_are_those_of_its_first_side() -> None:
    rng = np.random.default_rng(0)
    axes, _ = np.linalg.qr(rng.standard_normal((100, 3)) - 0)
    axes -= axes.mean(axis=0)
    axes, _ = np.linalg.qr(axes)
    x = axes[:, :2] * [9.0, 1.0]
    y = np.stack([axes[:, 0], axes[:, 2]], axis=1)  # shares the direction that carries nine tenths of x
    assert pwcca(x, y).item() == pytest.approx(0.9)
    assert pwcca(y, x).item() == pytest.approx(0.5)
    assert linear_regression(x, y).item() == pytest.approx(81 / 82)


# --- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_what_is_not_finite_names_layer_and_image(name: str) -> None:
    xs, ys = layers(1, (8, 8)), layers(2, (8, 8))
    ys[1][41, 1] = np.inf
    with pytest.raises(NonFiniteError, match=r"^ys\[1\]: 1 of 560 values are not finite, the first at image 41\n"):
        heatmap(xs, ys, name)


@pytest.mark.parametrize("name", ALL)
def test_too_few_images_and_other_row_counts(name: str) -> None:
    x, y = related(0)
    need = MEASURES[name].min_n
    with pytest.raises(ShapeError, match=rf"^x: has {need - 1} images? \(need {need} for {name}\)"):
        MEASURES[name].function(x[: need - 1], y[: need - 1])
    with pytest.raises(ShapeError, match=r"^y: has 59 images \(need 60, as x\)"):
        MEASURES[name].function(x, y[:-1])


def test_features_that_cannot_be_matched() -> None:
    x, y = related(0, d_y=4)
    with pytest.raises(ShapeError, match=r"^x: has 6 features \(need 4, as y, for row_cosine\)|^y: has 4 features"):
        row_cosine(x, y)


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        (mutual_knn, {"k": 0}, r"^k: is 0 \(need 1 to 58: 60 images\)"),
        (mutual_knn, {"k": 59}, r"^k: is 59 \(need 1 to 58: 60 images\)"),
        (rbf_cka, {"threshold": 0}, r"^threshold: is 0 \(need a number above 0\)"),
        (svcca, {"variance": 1.5}, r"^variance: is 1.5 \(need a share in \(0, 1\]\)"),
        (minibatch_cka, {"batch_size": 7}, r"^batch_size: is 7 \(need 8 or more"),
        (rsa, {"correlation": "kendall"}, r"^correlation: is 'kendall' \(need \"spearman\" or \"pearson\"\)"),
    ],
)
def test_options_out_of_range(function: Callable[..., object], options: dict[str, object], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        function(*related(0), **options)


def test_options_that_a_measure_does_not_take() -> None:
    x, y = related(0)
    with pytest.raises(StudyError, match=r"^option 'threshold': linear_cka takes no options"):
        heatmap([x], [y], "linear_cka", threshold=0.5)
    with pytest.raises(StudyError, match=r"^option 'sigma': rbf_cka takes threshold"):
        heatmap([x], [y], "rbf_cka", sigma=0.5)
