"""Files of attention maps: what is written reads back, what is damaged or does not fit together is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.errors import DamagedError
from engine.hdf5 import NamedArray, write_arrays
from engine.runs.attention_maps import AttentionMaps, read_attention, write_attention
from tests.attention import made_maps


def same(found: AttentionMaps, expected: AttentionMaps) -> None:
    assert (found.images, found.domains, found.layers) == (expected.images, expected.domains, expected.layers)
    assert found.maps.keys() == expected.maps.keys() and found.entropy.keys() == expected.entropy.keys()
    pairs = [(found.maps[each], expected.maps[each]) for each in found.maps]
    pairs += [(found.entropy[each], expected.entropy[each]) for each in found.entropy]
    for one, other in [*pairs, (found.distance, expected.distance)]:
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    made = made_maps(with_pixels=True)
    write_attention(tmp_path / "a.h5", made)
    found = read_attention(tmp_path / "a.h5", "again")
    same(found, made)
    assert found.pixels is not None and found.pixels.dtype == np.uint8
    np.testing.assert_array_equal(found.pixels, made.pixels)
    assert (found.side, found.n_heads) == (4, 3)


def test_without_pixels_and_cls_too(tmp_path: Path) -> None:
    made = made_maps(poolings=("feat",))
    write_attention(tmp_path / "a.h5", made)
    found = read_attention(tmp_path / "a.h5", "again")
    same(found, made)
    assert found.pixels is None and set(found.maps) == {"feat"}


def test_one_image_in_both_domains_and_any_name_come_back(tmp_path: Path) -> None:
    names = ("a.png", "a.png", "bad \udcff name", "line\nbreak [/] \x1b[31m")
    made = made_maps(images=names, domains=("target", "origin", "target", "origin"))
    write_attention(tmp_path / "a.h5", made)
    found = read_attention(tmp_path / "a.h5", "again")
    assert (found.images, found.domains) == (names, ("target", "origin", "target", "origin"))


def test_the_same_maps_are_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_attention(tmp_path / f"{name}.h5", made_maps(with_pixels=True))
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_xarray_reads_the_names_of_the_axes(tmp_path: Path) -> None:
    xarray = pytest.importorskip("xarray")
    write_attention(tmp_path / "a.h5", made_maps(with_pixels=True))
    with xarray.open_datatree(tmp_path / "a.h5", engine="h5netcdf") as tree:
        assert tree["maps/cls"].dims == ("image", "layer", "head", "patch")
        assert tree["entropy/feat"].dims == ("image", "layer", "head")
        assert tree["pixels"].dims == ("image", "pixel_row", "pixel", "channel")


def test_a_missing_and_a_changed_file_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with pytest.raises(DamagedError, match=r"a\.h5: cannot be read \(No such file or directory\)\n  fix: again"):
        read_attention(path, "again")
    write_attention(path, made_maps(with_pixels=True))
    content = bytearray(path.read_bytes())
    content[-3000] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedError, match="changed since it was written"):
        read_attention(path, "again")


MADE = made_maps(with_pixels=True)
assert MADE.pixels is not None


@pytest.mark.parametrize(
    ("made", "problem"),
    [
        (replace(MADE, domains=MADE.domains[1:]), "holds 4 images and 2 layers, but distances of (4, 2, 3)"),
        (replace(MADE, distance=MADE.distance[:3]), "holds 4 images and 2 layers, but distances of (3, 2, 3)"),
        (replace(MADE, layers=MADE.layers[1:]), "holds 4 images and 1 layers, but distances of (4, 2, 3)"),
        (replace(MADE, maps={}, entropy={}), "holds maps of [] and entropies of []"),
        (replace(MADE, entropy={"cls": MADE.entropy["cls"]}), "holds maps of ['cls', 'feat'] and entropies of ['cls']"),
        (
            replace(MADE, maps={**MADE.maps, "feat": MADE.maps["feat"][..., :15]}),
            "feat maps are (4, 2, 3, 15), entropies (4, 2, 3); need (4, 2, 3, 16)",
        ),
        (
            replace(MADE, maps={each: values[..., :15] for each, values in MADE.maps.items()}),
            "cls maps are (4, 2, 3, 15), entropies (4, 2, 3); need (4, 2, 3, 16)",
        ),
        (
            replace(MADE, entropy={**MADE.entropy, "cls": MADE.entropy["cls"][:, :, :2]}),
            "cls maps are (4, 2, 3, 16), entropies (4, 2, 2); need (4, 2, 3, 16)",
        ),
        (
            replace(MADE, maps={each: values[..., 0] for each, values in MADE.maps.items()}),
            "holds maps of [(4, 2, 3), (4, 2, 3)]; need four dimensions",
        ),
        (replace(MADE, pixels=MADE.pixels[:3]), "holds pixels of uint8 (3, 8, 8, 3) for 4 images"),
        (replace(MADE, pixels=MADE.pixels[:, :5]), "holds pixels of uint8 (4, 5, 8, 3) for 4 images"),
        (replace(MADE, pixels=MADE.pixels[..., :1]), "holds pixels of uint8 (4, 8, 8, 1) for 4 images"),
        (replace(MADE, pixels=MADE.pixels.astype(np.float32)), "holds pixels of float32 (4, 8, 8, 3) for 4 images"),
    ],
)
def test_shapes_that_do_not_fit_together_are_damage(tmp_path: Path, made: AttentionMaps, problem: str) -> None:
    path = tmp_path / "a.h5"
    write_loosely(path, made)
    with pytest.raises(DamagedError) as caught:
        read_attention(path, "again")
    assert (caught.value.where, caught.value.problem, caught.value.fix) == (str(path), problem, "again")


def write_loosely(path: Path, made: AttentionMaps) -> None:
    """As `write_attention`, each array with dimensions of its own, so that nothing need fit."""
    coordinates = {
        "image": np.array(made.images), "domain": np.array(made.domains), "layer": np.array(made.layers),
    }  # fmt: skip
    named = {f"/maps/{pooling}": values for pooling, values in made.maps.items()}
    named |= {f"/entropy/{pooling}": values for pooling, values in made.entropy.items()}
    named |= {"/distance": made.distance}
    if made.pixels is not None:
        named["/pixels"] = made.pixels
    arrays = {}
    for number, (name, values) in enumerate(named.items()):
        dims = tuple(f"d{number}_{axis}" for axis in range(values.ndim))
        coordinates |= {dim: np.arange(length) for dim, length in zip(dims, values.shape, strict=True)}
        arrays[name] = NamedArray(values, dims)
    write_arrays(path, arrays, coordinates, {})
