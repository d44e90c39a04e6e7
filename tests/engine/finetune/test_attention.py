"""Attention maps of a set of images: whose they are, what of them is kept and counted, and where θ*'s lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.activations.extract import key_of, normalised
from engine.activations.store import ActivationStore
from engine.backbones.attention import attention_of
from engine.backbones.backbone import Backbone
from engine.data.manifest import Item, Manifest
from engine.data.pixels import PixelCache, chosen
from engine.finetune import attention as attention_module
from engine.finetune.attention import attention_digest, attention_metrics, take_attention
from engine.finetune.inputs import Inputs
from engine.finetune.reference import Reference, take_reference
from engine.quality.attention import map_correlation, map_overlap
from engine.runs.attention_maps import AttentionMaps, read_attention, write_attention
from tests.attention import made_maps
from tests.engine.backbones.test_attention import tiny_timm

KEPT = 37  # what images for 32 pixels are kept at


def cache(seed: int, n: int, prefix: str = "") -> PixelCache:
    pixels = np.random.default_rng(seed).integers(0, 256, (n, KEPT, KEPT, 3), dtype=np.uint8)
    items = tuple(Item(f"{prefix}{i}.png", f"{i}.png", i % 2, "test", f"{seed}{i:063d}") for i in range(n))
    return PixelCache(pixels, items, (), f"digest {seed}")


@pytest.fixture
def backbone() -> Backbone:
    return tiny_timm()


def test_the_maps_are_those_of_the_middle_of_each_image(backbone: Backbone) -> None:
    target, origin = cache(0, 3), cache(1, 2)
    found = take_attention(backbone, {"target": target, "origin": origin}, with_pixels=True)
    assert found.images == ("0.png", "1.png", "2.png", "0.png", "1.png")
    assert found.domains == ("target", "target", "target", "origin", "origin")
    assert found.layers == ("blocks.0", "blocks.1")
    middle = np.concatenate([np.asarray(each.pixels[:])[:, 2:34, 2:34] for each in (target, origin)])
    assert found.pixels is not None
    np.testing.assert_array_equal(found.pixels, middle)
    exact = attention_of(backbone, normalised(torch.from_numpy(middle), backbone.info))
    assert exact.cls is not None and exact.cls_entropy is not None
    assert found.maps["cls"].dtype == found.maps["feat"].dtype == np.float16
    np.testing.assert_array_equal(found.maps["cls"], exact.cls.numpy().astype(np.float16))
    np.testing.assert_array_equal(found.maps["feat"], exact.feat.numpy().astype(np.float16))
    np.testing.assert_array_equal(found.entropy["cls"], exact.cls_entropy.numpy())
    np.testing.assert_array_equal(found.distance, exact.distance.numpy())


def test_pixels_are_kept_only_where_asked_for_and_cls_only_where_there_is_one() -> None:
    found = take_attention(tiny_timm(class_token=False, global_pool="avg"), {"target": cache(0, 2)})
    assert found.pixels is None and set(found.maps) == set(found.entropy) == {"feat"}


def test_the_batches_do_not_matter(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    images = {"target": cache(0, 5)}
    whole = take_attention(backbone, images)
    monkeypatch.setattr(attention_module, "_MAX_BATCH_SIZE", 2)
    parts = take_attention(backbone, images)
    np.testing.assert_allclose(parts.maps["feat"].astype(float), whole.maps["feat"].astype(float), atol=1e-3)
    np.testing.assert_allclose(parts.distance, whole.distance, rtol=1e-4)


@pytest.mark.parametrize(("input_size", "batch_size"), [(32, 64), (224, 8), (256, 4), (384, 1), (518, 1), (1024, 1)])
def test_large_images_are_looked_at_one_by_one(input_size: int, batch_size: int) -> None:
    assert attention_module._batch_size(input_size) == batch_size


def test_metrics_are_means_over_the_images_and_heads_of_each_domain() -> None:
    before, after = made_maps(0), made_maps(1)
    found = attention_metrics(before, after)
    names = {"entropy", "correlation", "overlap"}
    assert found.keys() == {
        f"attention_{name}_{domain}_{pooling}"
        for domain in ("target", "origin")
        for pooling in ("cls", "feat")
        for name in (names | {"distance"} if pooling == "feat" else names)
    }
    for domain, rows in (("target", slice(0, 2)), ("origin", slice(2, 4))):
        expected = {
            "entropy": after.entropy["feat"][rows].mean((0, 2)),
            "distance": after.distance[rows].mean((0, 2)),
            "correlation": over_images(before, after, rows, map_correlation),
            "overlap": over_images(before, after, rows, map_overlap),
        }
        for name, values in expected.items():
            np.testing.assert_allclose(found[f"attention_{name}_{domain}_feat"], values, rtol=1e-6)


def over_images(before: AttentionMaps, after: AttentionMaps, rows: slice, measure) -> list[float]:  # type: ignore[no-untyped-def]
    """Mean over the images of a measure of the maps averaged over the heads, layer by layer, in plain loops."""
    n_images, n_layers = range(4)[rows], len(before.layers)
    return [
        float(np.mean([
            measure(*(each.maps["feat"][image, layer].astype(float).mean(0) for each in (before, after)))
            for image in n_images
        ]))
        for layer in range(n_layers)
    ]  # fmt: skip


def test_heads_that_change_places_leave_the_similarity_at_1() -> None:
    before = made_maps(0)
    after = replace(before, maps={each: values[:, :, ::-1] for each, values in before.maps.items()})
    found = attention_metrics(before, after)
    for name in ("correlation", "overlap"):
        np.testing.assert_allclose(found[f"attention_{name}_target_cls"], 1, atol=1e-12)


def test_an_image_without_an_answer_leaves_its_domain_without_one() -> None:
    before = made_maps(0)
    constant = before.maps["cls"].copy()
    constant[0, 1] = 0.05
    found = attention_metrics(before, replace(before, maps={**before.maps, "cls": constant}))
    assert np.isnan(found["attention_correlation_target_cls"]).tolist() == [False, True]
    assert np.isfinite(found["attention_correlation_origin_cls"]).all()
    assert np.isfinite(found["attention_overlap_target_cls"]).all()


def test_the_digest_goes_by_the_images_and_their_domains() -> None:
    whole = cache(0, 6)
    part, other = (chosen(whole, whole.items[:n]) for n in (3, 4))
    sets: Sequence[dict[str, PixelCache]] = [
        {"target": part}, {"target": other}, {"origin": part}, {"target": part, "origin": other},
    ]  # fmt: skip
    assert len({attention_digest(each) for each in sets}) == 4
    assert attention_digest({"target": chosen(whole, whole.items[:3])}) == attention_digest({"target": part})


# θ*


@pytest.fixture
def inputs() -> Inputs:
    splits = {split: cache(seed, 4) for seed, split in enumerate(("train", "val", "test"))}
    origin = cache(3, 5, "o")
    attention = {"target": chosen(splits["test"], splits["test"].items[:2]), "origin": origin}
    manifest = Manifest(Path("/"), "folder", ("a", "b"), ())
    probe = chosen(origin, origin.items[1:])
    return Inputs(manifest, splits, np.array([0, 2]), manifest, origin, probe, attention)


def taken(backbone: Backbone, inputs: Inputs, folder: Path) -> Reference:
    return take_reference(backbone, inputs, ActivationStore(folder), lambda what: lambda done, total: None)


def test_the_reference_has_the_origin_probe_and_the_maps_with_their_pixels(
    backbone: Backbone, inputs: Inputs, tmp_path: Path
) -> None:
    found = taken(backbone, inputs, tmp_path)
    assert found.origin_probe is not None and found.attention is not None
    assert found.origin_probe.ids == ("o1.png", "o2.png", "o3.png", "o4.png")
    assert [each.shape for each in found.origin_probe.pooled["cls"]] == [(4, 32)] * 2
    assert found.probes == {"target": found.probe, "origin": found.origin_probe}
    assert found.attention.images == ("0.png", "1.png", *(f"o{i}.png" for i in range(5)))
    assert found.attention.pixels is not None and found.notes == ()
    assert found.attention_key in found.keys and len(set(found.keys)) == len(found.keys) == 7
    assert all((tmp_path / f"{key}.h5").exists() for key in found.keys)


def test_the_second_time_they_come_from_the_store(
    backbone: Backbone, inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = taken(backbone, inputs, tmp_path)
    monkeypatch.setattr("engine.finetune.reference.take_attention", lambda *_, **__: pytest.fail("made again"))
    second = taken(backbone, inputs, tmp_path)
    assert first.attention is not None and second.attention is not None
    assert second.keys == first.keys
    for pooling, maps in first.attention.maps.items():
        np.testing.assert_array_equal(second.attention.maps[pooling], maps)


@pytest.mark.parametrize("damage", ["cut short", "other images", "no pixels"])
def test_maps_that_are_not_what_their_name_says_are_made_again(
    backbone: Backbone, inputs: Inputs, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    first = taken(backbone, inputs, tmp_path)
    assert first.attention is not None
    path = tmp_path / f"{first.attention_key}.h5"
    whole = path.read_bytes()
    if damage == "cut short":
        path.write_bytes(whole[:-100])
    else:
        other = {"other images": {"images": first.attention.images[::-1]}, "no pixels": {"pixels": None}}[damage]
        write_attention(path, replace(first.attention, **other))  # type: ignore[arg-type]
    taken(backbone, inputs, tmp_path)
    assert path.read_bytes() == whole and "it is made again" in caplog.text


def test_what_is_made_is_what_reads_back(backbone: Backbone, inputs: Inputs, tmp_path: Path) -> None:
    made = taken(backbone, inputs, tmp_path).attention
    key = key_of(backbone.info, attention_digest(inputs.attention))
    read = read_attention(tmp_path / f"{key}.h5", "")
    assert made is not None
    np.testing.assert_array_equal(made.maps["feat"], read.maps["feat"])
    np.testing.assert_array_equal(made.entropy["feat"], read.entropy["feat"])


def test_a_backbone_without_readable_attention_is_said_and_does_without(inputs: Inputs, tmp_path: Path) -> None:
    found = taken(tiny_timm(attn_layer="diff"), inputs, tmp_path)
    assert (found.attention, found.attention_key, len(found.keys)) == (None, "", 6)
    (note,) = found.notes
    assert note.startswith('no attention maps: backbone "test:tiny": its attention cannot be read: its shape is (7, 8,')


def test_without_an_attention_set_and_an_origin_probe_there_are_neither(
    backbone: Backbone, inputs: Inputs, tmp_path: Path
) -> None:
    found = taken(backbone, replace(inputs, attention={}, origin_probe=None), tmp_path)
    assert (found.attention, found.attention_key, found.origin_probe, found.notes) == (None, "", None, ())
    assert set(found.probes) == {"target"} and len(found.keys) == 5
