"""Activation files of layers of one width and of several: what is read is what was written, in its order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray

from engine.activations.compare import similarity_of_files
from engine.activations.store import Activations, ActivationStore, as_stored, block_number
from engine.errors import DamagedError
from engine.hdf5 import NamedArray, write_arrays
from engine.measures import heatmaps, linear_cka

IDS = tuple(f"image {i}" for i in range(20))
STAGES = ("stem", "s1", "features.norm0", "features.denseblock1", "s10")  # no order of names or numbers


def of_widths(widths: tuple[int, ...], layers: tuple[str, ...], seed: int = 0) -> Activations:
    rng = np.random.default_rng(seed)
    shared = rng.standard_normal((len(IDS), 3))
    pooled = tuple((shared @ rng.standard_normal((3, d))).astype(np.float16) for d in widths)
    return Activations(IDS, rng.standard_normal((len(IDS), 7)).astype(np.float32), layers, {"feat": pooled})


def check_equal(one: Activations | None, other: Activations) -> None:
    assert one is not None
    assert (one.ids, one.layers, set(one.pooled)) == (other.ids, other.layers, set(other.pooled))
    np.testing.assert_array_equal(one.embedding, other.embedding)
    for pooling, layers in other.pooled.items():
        for mine, theirs in zip(one.pooled[pooling], layers, strict=True):
            assert mine.dtype == theirs.dtype
            np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("widths", [(4, 4, 4, 4, 4), (4, 4, 8, 16, 2)])
def test_layers_come_back_in_their_order(tmp_path: Path, widths: tuple[int, ...]) -> None:
    store, made = ActivationStore(tmp_path), of_widths(widths, STAGES)
    store.save("x", made)
    check_equal(store.load("x", IDS), made)
    store.save("y", other := of_widths(widths[::-1], STAGES, seed=1))
    found = similarity_of_files(store.path("x"), store.path("y"), "feat", 7)
    xs, ys = ([x.astype(np.float64) for x in each.pooled["feat"]] for each in (made, other))
    for name, expected in heatmaps(xs, ys, ["linear_cka", "debiased_cka"]).items():
        np.testing.assert_allclose(found[name], expected, atol=1e-6)


@pytest.mark.parametrize("widths", [(4, 4, 4), (4, 8, 16)])
def test_other_programs_open_it(tmp_path: Path, widths: tuple[int, ...]) -> None:
    store, made = ActivationStore(tmp_path), of_widths(widths, ("stem", "stages.0", "stages.1"))
    store.save("x", made)
    with xarray.open_dataset(store.path("x"), engine="h5netcdf") as opened:
        assert opened["embedding"].dims == ("image", "embedding_feature")
        assert list(opened["layer"].values) == list(made.layers)
    for layer, values in zip(made.layers, made.pooled["feat"], strict=True):
        with xarray.open_dataset(store.path("x"), engine="h5netcdf", group=f"layers/{layer}") as opened:
            scale = "feature" if len(set(widths)) == 1 else f"feature_{layer}"
            assert opened["feat"].dims == ("image", scale)
            np.testing.assert_array_equal(opened["feat"], values)


def test_a_file_that_does_not_say_its_order_goes_by_numbers(tmp_path: Path) -> None:
    """As simtui wrote them before layers had other names than blocks."""
    layers = tuple(f"blocks.{i}" for i in range(12))
    made = of_widths((4,) * 12, layers)
    arrays = {f"/layers/{layer}/feat": NamedArray(values, ("image", "feature"))
              for layer, values in zip(layers, made.pooled["feat"], strict=True)}  # fmt: skip
    arrays["/embedding"] = NamedArray(made.embedding, ("image", "embedding_feature"))
    scales = {"feature": np.arange(4, dtype=np.int32), "embedding_feature": np.arange(7, dtype=np.int32)}
    write_arrays(tmp_path / "x.h5", arrays, {"image": np.array(IDS), **scales}, {"kind": "activations", "key": "x"})
    check_equal(ActivationStore(tmp_path).load("x", IDS), made)


def test_a_file_that_says_other_layers_than_it_holds(tmp_path: Path) -> None:
    made = of_widths((4,), ("a",))
    arrays = {"/layers/a/feat": NamedArray(made.pooled["feat"][0], ("image", "feature")),
              "/embedding": NamedArray(made.embedding, ("image", "embedding_feature"))}  # fmt: skip
    scales = {"image": np.array(IDS), "feature": np.arange(4), "embedding_feature": np.arange(7)}
    write_arrays(tmp_path / "x.h5", arrays, {**scales, "layer": np.array(["b"])}, {"kind": "activations", "key": "x"})
    with pytest.raises(DamagedError, match="holds other layers than it says"):
        ActivationStore(tmp_path).load("x", IDS)


def test_one_value_that_overflows_makes_all_layers_float32() -> None:
    small, large = np.ones((2, 3), np.float32), np.full((2, 5), 70_000, np.float32)
    assert {each.dtype for each in as_stored((small, small))} == {np.dtype(np.float16)}
    stored = as_stored((small, large))
    assert {each.dtype for each in stored} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(stored[1], large)


def test_numbers_at_the_end_of_names() -> None:
    names = ["layer10", "stages.2", "layer1", "act1", "stages.11", "stem"]
    assert sorted(names, key=block_number) == ["stem", "act1", "layer1", "stages.2", "layer10", "stages.11"]


@pytest.mark.parametrize("scale", [1.0, 1e-9], ids=["huge mean", "tiny"])
def test_what_differs_between_images_is_stored_though_it_is_little(scale: float) -> None:
    """Similarity does not see the mean of a layer; float16 is as coarse as the mean is large."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((256, 64))
    y = x @ rng.standard_normal((64, 64)) * 0.1 + rng.standard_normal((256, 64))
    plain = scale * x.astype(np.float32)
    layer = plain + (1000 * np.sign(rng.standard_normal(64)).astype(np.float32) if scale == 1.0 else np.float32(0))
    truth = float(linear_cka(torch.from_numpy(layer.astype(np.float64)), torch.from_numpy(y)))

    def wrong_by(stored: np.ndarray) -> float:
        return abs(float(linear_cka(torch.from_numpy(stored.astype(np.float64)), torch.from_numpy(y))) - truth)

    (stored,) = as_stored([layer])
    assert stored.dtype == np.float32 and wrong_by(stored) < 1e-5
    (usual,) = as_stored([x.astype(np.float32)])
    assert usual.dtype == np.float16
    if scale == 1.0:
        assert wrong_by(layer.astype(np.float16)) > 1e-3  # what it would have been
    assert as_stored([np.full((8, 3), 3.3, np.float32)])[0].dtype == np.float16  # constant: nothing differs
