"""Two activation files compared in batches of rows: the same values as in memory, little memory, every error."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from engine.activations.compare import similarity_of_files
from engine.activations.store import Activations, ActivationStore
from engine.errors import DamagedError, NonFiniteError, ShapeError
from engine.measures import heatmaps

IDS = tuple(f"image {i}" for i in range(300))


def activations(seed: int, n: int = 300, n_layers: int = 11, d: int = 20) -> Activations:
    rng = np.random.default_rng(seed)
    shared = np.random.default_rng(9).standard_normal((n, d))
    layers = np.stack([shared / (1 + i) + rng.standard_normal((n, d)) + 5 for i in range(n_layers)])
    pooled = {"cls": layers.astype(np.float16), "feat": (layers * 2).astype(np.float32)}
    return Activations(IDS[:n], np.zeros((n, 3), np.float32), tuple(f"blocks.{i}" for i in range(n_layers)), pooled)


@pytest.fixture
def store(tmp_path: Path) -> ActivationStore:
    store = ActivationStore(tmp_path)
    store.save("x", activations(1))
    store.save("y", activations(2))
    return store


@pytest.mark.parametrize("pooling", ["cls", "feat"])
@pytest.mark.parametrize("n_rows", [7, 64, 300, 1000])
def test_as_in_memory(store: ActivationStore, pooling: str, n_rows: int) -> None:
    found = similarity_of_files(store.path("x"), store.path("y"), pooling, n_rows)
    xs, ys = (list(activations(seed).pooled[pooling].astype(np.float64)) for seed in (1, 2))
    for name, expected in heatmaps(xs, ys, ["linear_cka", "debiased_cka"]).items():
        assert found[name].numpy() == pytest.approx(expected.numpy(), abs=1e-6)


def test_layers_are_in_the_order_of_their_numbers(store: ActivationStore) -> None:
    found = similarity_of_files(store.path("x"), store.path("x"), "cls")["linear_cka"]
    assert found.diagonal().numpy() == pytest.approx(np.ones(11))
    assert bool((found[0].diff() < 0.05).all())  # blocks.10 is the last, not the third


def test_neither_file_is_held_whole(tmp_path: Path) -> None:
    n, d = 20_000, 16
    layer = np.random.default_rng(0).standard_normal((1, n, d)).astype(np.float32)
    ids = tuple(str(i) for i in range(n))
    ActivationStore(tmp_path).save("x", Activations(ids, np.zeros((n, 1), np.float32), ("blocks.0",), {"cls": layer}))
    path = tmp_path / "x.h5"
    similarity_of_files(path, path, "cls", 256)
    tracemalloc.start()
    similarity_of_files(path, path, "cls", 256)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    n_bytes_of_ids = 2 * sum(len(text) + 100 for text in ids)
    assert peak - n_bytes_of_ids < layer.nbytes


def test_other_images_or_another_order(store: ActivationStore) -> None:
    turned = activations(3)
    store.save(
        "turned", Activations((*IDS[:5], IDS[6], IDS[5], *IDS[7:]), turned.embedding, turned.layers, turned.pooled)
    )
    store.save("few", activations(3, n=200))
    with pytest.raises(ShapeError, match=r"turned\.h5: image 5 is 'image 6' \(need 'image 5', as x\.h5\)"):
        similarity_of_files(store.path("x"), store.path("turned"), "cls")
    with pytest.raises(ShapeError, match=r"few\.h5: holds 200 images \(need 300, as x\.h5\)"):
        similarity_of_files(store.path("x"), store.path("few"), "cls")


def test_what_is_not_in_the_file(store: ActivationStore) -> None:
    with pytest.raises(ShapeError, match=r"pooling 'mean': is not there \(the file has cls, feat\)"):
        similarity_of_files(store.path("x"), store.path("y"), "mean")
    store.save("none", Activations(IDS, np.zeros((300, 3), np.float32)))
    with pytest.raises(ShapeError, match="the file holds no layers"):
        similarity_of_files(store.path("x"), store.path("none"), "cls")


def test_damage_and_values_that_are_not_finite(store: ActivationStore) -> None:
    bad = activations(3)
    bad.pooled["cls"][4, 250, 1] = np.inf
    store.save("bad", bad)
    with pytest.raises(
        NonFiniteError,
        match=r"bad\.h5:/layers/blocks\.4/cls: 1 of 2000 values are not finite, the first at image 250\n",
    ):
        similarity_of_files(store.path("x"), store.path("bad"), "cls", 100)
    whole = bytearray(store.path("y").read_bytes())
    at = whole.find(activations(2).pooled["cls"][3].tobytes()[:64])
    whole[at + 10] ^= 1
    store.path("y").write_bytes(bytes(whole))
    with pytest.raises(DamagedError, match="its digest does not match"):
        similarity_of_files(store.path("x"), store.path("y"), "cls")
