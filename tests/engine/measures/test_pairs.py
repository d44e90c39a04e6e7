"""Heatmaps: shapes, agreement with single pairs, what arrays are taken, every error, and switches left as they were."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch

import engine.measures
from engine.errors import NonFiniteError, ShapeError, StudyError
from engine.measures import MEASURES, Comparison, debiased_cka, heatmap, heatmaps, linear_cka, precision, why_undefined
from tests.engine.measures import reference

BOTH = ["linear_cka", "debiased_cka"]


def layers(seed: int, widths: tuple[int, ...] = (8, 8, 3, 70), n: int = 60) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    shared = np.random.default_rng(99).standard_normal((n, 4))
    return [shared @ rng.standard_normal((4, d)) + rng.standard_normal((n, d)) for d in widths]


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("n", [5, 60, 300])
def test_every_cell_is_the_measure_of_its_pair(name: str, n: int) -> None:
    xs, ys = layers(1, n=n), layers(2, widths=(5, 8), n=n)
    values = heatmap(xs, ys, name)
    assert (values.shape, values.dtype, values.device.type) == ((4, 2), torch.float64, "cpu")
    assert values.numpy() == pytest.approx(reference.similarity_map(xs, ys, name), abs=1e-10)
    assert values[2, 1].item() == pytest.approx(MEASURES[name].function(xs[2], ys[1]).item(), abs=1e-12)


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("n", [60, 3000])
def test_a_set_with_itself_is_symmetric_with_ones_on_the_diagonal(name: str, n: int) -> None:
    xs = layers(1, n=n)
    values = heatmap(xs, xs, name)
    assert values.numpy() == pytest.approx(heatmap(xs, list(xs), name).numpy(), abs=1e-12)
    assert values.numpy() == pytest.approx(values.T.numpy(), abs=1e-15)
    assert values.diagonal().numpy() == pytest.approx(np.ones(4), abs=1e-14)


def test_several_measures_from_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.measures import cka

    products = Mock(wraps=cka.inner_products)
    monkeypatch.setattr(cka, "inner_products", products)
    xs, ys = layers(1), layers(2)
    both = heatmaps(xs, ys, ["debiased_cka", "linear_cka"])
    assert (list(both), products.call_count) == (["debiased_cka", "linear_cka"], 1)
    for name, values in both.items():
        assert values.numpy() == pytest.approx(reference.similarity_map(xs, ys, name), abs=1e-10)


def test_a_set_with_itself_is_prepared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.measures import cka

    centre_all = Mock(wraps=cka.centre_all)
    monkeypatch.setattr(cka, "centre_all", centre_all)
    xs = layers(1)
    heatmap(xs, xs)
    heatmap(xs, layers(1))
    assert len(centre_all.call_args_list) == 3


@pytest.mark.parametrize("n", [60, 300])
def test_a_kept_side_is_prepared_once_and_its_values_stay(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.measures import gram

    xs = layers(1, n=n, widths=(400, 400))
    comparison = Comparison(xs, BOTH)
    bmm = Mock(wraps=torch.bmm)
    monkeypatch.setattr(gram.torch, "bmm", bmm)
    n_products = []
    for seed in (2, 3, 4):
        ys = layers(seed, n=n, widths=(400,))
        before = bmm.call_count
        found = comparison.heatmaps(ys)
        n_products.append(bmm.call_count - before)
        for name in BOTH:
            assert found[name].numpy() == pytest.approx(reference.similarity_map(xs, ys, name), abs=1e-10)
    assert n_products[0] > n_products[1] == n_products[2]


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize(("n", "d"), [(300, 40), (700, 300), (900, 20)])
def test_a_comparison_gives_the_same_bits_whatever_came_before(name: str, n: int, d: int) -> None:
    """A run that is resumed compares its next epoch first; one that never stopped has compared others before."""
    xs, before, ys = ([x.astype(np.float32) for x in layers(seed, n=n, widths=(d, d))] for seed in (1, 2, 3))
    used = Comparison(xs, [name])
    used.heatmaps(before)
    assert torch.equal(used.heatmaps(ys)[name], Comparison(xs, [name]).heatmaps(ys)[name])


def test_biased_is_the_default() -> None:
    xs = layers(1)
    assert torch.equal(heatmap(xs, xs), heatmap(xs, xs, "linear_cka"))


def read_only(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x.flags.writeable = False
    return x


@pytest.mark.parametrize(
    "form",
    [
        torch.from_numpy,
        lambda x: torch.from_numpy(x).requires_grad_(),
        lambda x: torch.from_numpy(x.T.copy()).T,
        read_only,
        lambda x: np.asfortranarray(x),
        lambda x: x.astype(">f8"),
        lambda x: x[::-1].copy()[::-1],
        lambda x: x.astype(np.longdouble),
        lambda x: x.tolist(),
    ],
    ids=["tensor", "grad", "transposed", "read-only", "fortran", "big-endian", "reversed", "longdouble", "list"],
)
def test_arrays_of_every_form_are_the_same_numbers(form) -> None:  # type: ignore[no-untyped-def]
    x, y = layers(4)[:2]
    value = linear_cka(form(x), y)
    assert value.item() == pytest.approx(linear_cka(x, y).item(), abs=1e-14)
    assert not value.requires_grad


def test_memory_map(tmp_path: Path) -> None:
    x, y = layers(4)[:2]
    np.save(tmp_path / "x.npy", x)
    assert linear_cka(np.load(tmp_path / "x.npy", mmap_mode="r"), y) == linear_cka(x, y)


def test_integers_and_float8() -> None:
    x = np.random.default_rng(0).integers(-4, 5, (30, 3))
    _, y = layers(4, n=30)[:2]
    expected = linear_cka(x.astype(float), y)
    assert linear_cka(x, y) == expected
    assert linear_cka(torch.from_numpy(x), y) == expected
    assert linear_cka(torch.from_numpy(x).to(torch.float8_e4m3fn), y) == expected
    assert linear_cka(x > 0, y) == linear_cka((x > 0).astype(float), y)


def test_the_callers_arrays_stay_as_they_were() -> None:
    for dtype in (np.float32, np.float64):
        xs = [x.astype(dtype) for x in layers(1)]
        before = [x.copy() for x in xs]
        heatmap(xs, xs, "debiased_cka")
        assert all(np.array_equal(x, y) for x, y in zip(xs, before, strict=True))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", BOTH)
def test_gpu_agrees_with_the_definition_though_tf32_is_allowed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", True)
    xs, ys = ([torch.from_numpy(x).float().cuda() + 1000 for x in layers(seed, n=700)] for seed in (1, 2))
    values = heatmap(xs, ys, name)
    expected = reference.similarity_map([x.cpu() for x in xs], [y.cpu() for y in ys], name)
    assert values.device.type == "cpu"
    assert values.numpy() == pytest.approx(expected, abs=1e-5)


# --- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_value_names_layer_and_first_image(name: str, bad: float) -> None:
    xs, ys = layers(1), layers(2)
    ys[2][41, 1] = ys[2][17, 0] = bad
    with pytest.raises(NonFiniteError, match=r"^ys\[2\]: 2 of 180 values are not finite, the first at image 17\n"):
        heatmap(xs, ys, name)
    with pytest.raises(NonFiniteError, match=r"^y: "):
        MEASURES[name].function(xs[0], ys[2])


def test_other_row_count() -> None:
    xs, ys = layers(1), layers(2)
    ys[1] = ys[1][:-3]
    with pytest.raises(ShapeError, match=r"^ys\[1\]: has 57 images \(need 60, as xs\[0\]\)"):
        heatmap(xs, ys)


@pytest.mark.parametrize(("name", "n"), [("linear_cka", 1), ("linear_cka", 0), ("debiased_cka", 3)])
def test_too_few_images(name: str, n: int) -> None:
    x = np.random.default_rng(0).standard_normal((n, 5))
    with pytest.raises(ShapeError, match=rf"^x: has {n} images? \(need {n + 1 if n else 2} for {name}\)"):
        MEASURES[name].function(x, x)
    with pytest.raises(ShapeError):
        why_undefined(x, name)


def test_fewest_images() -> None:
    x, y = layers(1, n=4)[:2]
    assert linear_cka(x[:2], y[:2]).item() == pytest.approx(1)  # two points lie on a line on either side
    assert np.isfinite(debiased_cka(x, y).item())


@pytest.mark.parametrize("shape", [(60,), (60, 0), (60, 2, 3), ()])
def test_not_a_matrix(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=rf"^xs\[0\]: has shape \({', '.join(map(str, shape))},?\) \(need \(n, d\)"):
        heatmap([np.zeros(shape)], layers(1))


@pytest.mark.parametrize(("xs", "ys", "side"), [([], [1], "xs"), ([1], [], "ys")])
def test_no_layers(xs: list[int], ys: list[int], side: str) -> None:
    with pytest.raises(ShapeError, match=f"^{side}: has no layers"):
        heatmap([layers(1)[0] for _ in xs], [layers(1)[0] for _ in ys])


def test_unknown_measure_names_the_nearest() -> None:
    with pytest.raises(StudyError, match=r"'debiased_ckq': no such measure; did you mean 'debiased_cka'\?"):
        heatmap(layers(1), layers(2), "debiased_ckq")
    with pytest.raises(StudyError, match=r"'zzz': no such measure\n  fix: use one of linear_cka debiased_cka"):
        heatmap(layers(1), layers(2), "zzz")


@pytest.mark.parametrize("value", [np.ones((5, 2), complex), torch.ones(5, 2, dtype=torch.complex64), [["a", "b"]]])
def test_not_real_numbers(value: object) -> None:
    with pytest.raises(TypeError, match=r"^x: has type .* \(need real numbers\)"):
        linear_cka(value, value)


# --- precision ------------------------------------------------------------------------------------------------------


@pytest.fixture
def reduced_precision():  # type: ignore[no-untyped-def]
    """What a training script may have set; on the CPU it stands for bfloat16 products, on a GPU for TF32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    yield
    torch.set_float32_matmul_precision(before)


def float32_maps() -> torch.Tensor:
    xs = [x.astype(np.float32) for x in layers(3, widths=(96, 96, 96), n=400)]
    return torch.stack(list(heatmaps(xs, xs, BOTH).values()))


def test_no_product_is_rounded_whatever_training_allowed(reduced_precision: None) -> None:
    reduced = float32_maps()
    assert torch.get_float32_matmul_precision() == "medium"
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside_autocast = float32_maps()
        assert torch.is_autocast_enabled("cpu")
    torch.set_float32_matmul_precision("highest")
    exact = float32_maps()
    assert torch.equal(reduced, exact)
    assert torch.equal(inside_autocast, exact)


def test_autocast_would_change_a_product() -> None:
    """What the test above guards against is real on this machine."""
    x = torch.randn(64, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not torch.equal((x @ x).float(), x.double() @ x.double())
        with precision.full_precision(x.device):
            assert (x @ x).dtype == torch.float32


def test_switches_are_restored_after_an_error(reduced_precision: None) -> None:
    switch = torch.backends.cuda.matmul
    before = switch.fp32_precision
    with pytest.raises(ZeroDivisionError), precision.full_precision(torch.device("cpu")):
        assert switch.fp32_precision == "ieee"
        raise ZeroDivisionError
    assert switch.fp32_precision == before == "tf32"


def test_torch_with_one_switch_for_all(reduced_precision: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As torch before 2.9 is."""
    monkeypatch.delattr(torch.backends.mkldnn.__class__, "matmul", raising=False)
    monkeypatch.setattr(precision.torch, "backends", Mock(mkldnn=object()))
    with precision.full_precision(torch.device("cpu")):
        assert torch.get_float32_matmul_precision() == "highest"
    assert torch.get_float32_matmul_precision() == "medium"


# --- table ----------------------------------------------------------------------------------------------------------


def test_table_knows_its_functions() -> None:
    for name, measure in MEASURES.items():
        assert measure.name == name == measure.function.__name__
        assert getattr(engine.measures, name) is measure.function
        assert name in engine.measures.__all__
    assert len({measure.label for measure in MEASURES.values()}) == len(MEASURES)


def test_no_module_hides_a_function() -> None:
    """Importing `engine.measures.a` sets the attribute `a` of the package, which loads its functions when asked."""
    modules = {module.name for module in pkgutil.iter_modules(engine.measures.__path__)}
    assert "table" in modules
    assert not modules & set(engine.measures.__all__)


def test_unknown_attribute() -> None:
    with pytest.raises(AttributeError, match=r"'engine\.measures' has no attribute 'nothing'"):
        _ = engine.measures.nothing


def test_table_can_be_read_without_torch() -> None:
    script = "import sys; from engine.measures import MEASURES; print(len(MEASURES), 'torch' in sys.modules)"
    output = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    assert output == f"{len(MEASURES)} False\n"
