"""The one door to HDF5: what it writes opens elsewhere, and what others wrote is refused where it leads out or lies."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from engine.errors import DamagedError
from engine.hdf5 import NamedArray, open_arrays, write_arrays

VALUES = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a.h5"
    coordinates = {"epoch": np.arange(2), "layer_ref": np.array(["a", "b", "c"]), "layer": np.array(list("wxyz"))}
    write_arrays(path, {"/s/cka": NamedArray(VALUES, ("epoch", "layer_ref", "layer"))}, coordinates, {"kind": "test"})
    return path


def test_what_is_written_reads_back(path: Path) -> None:
    with open_arrays(path, "remake") as file:
        np.testing.assert_array_equal(file.array("/s/cka"), VALUES)
        assert file.strings("/layer") == ("w", "x", "y", "z")
        assert file.names("/s") == ("cka",)
        assert file.names("/nothing") == ()
        assert file.attribute("kind") == "test"


def test_xarray_opens_it_with_named_dimensions(path: Path) -> None:
    xarray = pytest.importorskip("xarray")
    with xarray.open_datatree(path, engine="h5netcdf") as tree:
        found = tree["s/cka"]
        assert found.dims == ("epoch", "layer_ref", "layer")
        assert list(found.coords["layer"].values) == ["w", "x", "y", "z"]


def test_no_single_flipped_bit_is_read_in_silence(path: Path) -> None:
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(150):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(damaged))
        try:
            with open_arrays(path, "remake") as file:
                np.testing.assert_array_equal(file.array("/s/cka"), VALUES)
        except DamagedError as error:
            assert "fix: remake" in str(error)


@pytest.mark.parametrize("kind", ["soft", "external", "virtual", "external storage"])
def test_whatever_leads_out_of_the_file_is_refused(path: Path, tmp_path: Path, kind: str) -> None:
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["x"] = np.ones(4)
    (tmp_path / "raw").write_bytes(b"\0" * 32)
    with h5py.File(path, "a") as file:
        if kind == "soft":
            file["bad"] = h5py.SoftLink("/s/cka")
        elif kind == "external":
            file["bad"] = h5py.ExternalLink(str(secret), "/x")
        elif kind == "virtual":
            layout = h5py.VirtualLayout((4,), "f8")
            layout[:] = h5py.VirtualSource(str(secret), "x", (4,))
            file.create_virtual_dataset("bad", layout)
        else:
            file.create_dataset("bad", (4,), "f8", external=[(str(tmp_path / "raw"), 0, 32)])
    with open_arrays(path, "remake") as file, pytest.raises(DamagedError, match="refers to another file; refused"):
        file.array("/bad")


def test_absurd_sizes_other_types_and_missing_parts_are_refused(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file.create_dataset("huge", (10**12,), "f8", chunks=(1024,))
        file["text"] = "words"
        file.create_dataset("texts", (10**9,), h5py.string_dtype(), chunks=(1024,))
    with open_arrays(path, "remake") as file:
        with pytest.raises(DamagedError, match="declares 8000000000000 bytes, stores 0"):
            file.array("/huge")
        with pytest.raises(DamagedError, match="need numbers"):
            file.array("/text")
        with pytest.raises(DamagedError, match="declares 1000000000 texts"):
            file.strings("/texts")
        with pytest.raises(DamagedError, match="is missing"):
            file.array("/s/other")
        with pytest.raises(DamagedError, match="is not a dataset"):
            file.array("/s")
        with pytest.raises(DamagedError, match="is not a list of texts"):
            file.strings("/s/cka")


def test_foreign_newer_and_broken_files_are_refused(tmp_path: Path, path: Path) -> None:
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(DamagedError, match="not written by simtui"), open_arrays(tmp_path / "foreign.h5", "remake"):
        pass
    with h5py.File(path, "a") as file:
        file.attrs["schema"] = 4
    with pytest.raises(DamagedError, match="written by schema 4; this simtui reads up to 1"), open_arrays(path, "r"):
        pass
    (tmp_path / "cut.h5").write_bytes(path.read_bytes()[:700])
    with pytest.raises(DamagedError, match="not a readable HDF5 file"), open_arrays(tmp_path / "cut.h5", "remake"):
        pass
