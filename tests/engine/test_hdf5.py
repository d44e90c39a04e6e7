"""The one door to HDF5: what it writes opens elsewhere, and what others wrote is refused where it leads out or lies."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from engine.errors import DamagedError
from engine.hdf5 import NamedArray, check_arrays, open_arrays, open_unvetted, write_arrays
from engine.vetting import is_known, vet

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
    with xarray.open_dataset(path, engine="h5netcdf", group="s") as dataset:
        assert dataset["cka"].dims == ("epoch", "layer_ref", "layer")
    with xarray.open_dataset(path, engine="h5netcdf") as dataset:
        assert list(dataset["layer_ref"].values) == ["a", "b", "c"]


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


def _rewritten(path: Path) -> Path:
    """The file without its seal and of the first schema, for a stranger to put things into."""
    other = path.with_name("other.h5")
    with h5py.File(path) as old, h5py.File(other, "w", libver="latest") as new:
        for name in old:
            old.copy(name, new)
        new.attrs["schema"] = 1
    return other


@pytest.mark.parametrize("kind", ["soft", "external", "virtual", "external storage"])
def test_whatever_leads_out_of_the_file_is_refused(path: Path, tmp_path: Path, kind: str) -> None:
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["x"] = np.ones(4)
    (tmp_path / "raw").write_bytes(b"\0" * 32)
    path = _rewritten(path)
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
    with open_unvetted(path, "remake") as file, pytest.raises(DamagedError, match="refers to another file; refused"):
        file.array("/bad")
    with pytest.raises(DamagedError, match="refers to another file; refused"), open_arrays(path, "remake"):
        pass


def test_absurd_sizes_other_types_and_missing_parts_are_refused(path: Path) -> None:
    path = _rewritten(path)
    with h5py.File(path, "a") as file:
        file.create_dataset("huge", (10**12,), "f8", chunks=(1024,))
        file.create_dataset("huge_in_one", (10**12,), "f8")
        file["text"] = "words"
        file.create_dataset("texts", (10**9,), h5py.string_dtype(), chunks=(1024,))
    with open_unvetted(path, "remake") as file:
        with pytest.raises(DamagedError, match=r"declares 8\.0 TB, stores 0 bytes"):
            file.array("/huge")
        with pytest.raises(DamagedError, match=r"declares 8\.0 TB, stores"):
            file.array("/huge_in_one")
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
    newer = _rewritten(path)
    too_new = "written by schema 4; this simtui reads up to 2; upgrade\n  fix: upgrade simtui"
    for schema, problem in ((4, too_new), (2, "has no seal")):
        with h5py.File(newer, "a") as file:
            file.attrs["schema"] = schema
        with pytest.raises(DamagedError, match=problem), open_arrays(newer, "r"):
            pass
    for n_bytes in (0, 300, 700):
        (tmp_path / "cut.h5").write_bytes(path.read_bytes()[:n_bytes])
        with pytest.raises(DamagedError, match=r"seal|was written with|does not begin"):
            open_arrays(tmp_path / "cut.h5", "remake").__enter__()


def test_a_file_of_the_first_schema_is_read(path: Path) -> None:
    with open_arrays(_rewritten(path), "remake") as file:
        np.testing.assert_array_equal(file.array("/s/cka"), VALUES)
        assert file.strings("/layer") == ("w", "x", "y", "z")


def test_large_arrays_have_digests_of_their_own_and_are_checked_as_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "large.h5"
    values = np.random.default_rng(0).normal(size=(3, 3000, 64))
    arrays = {f"/x{i}": NamedArray(values[i], ("row", "column")) for i in range(3)}
    write_arrays(path, arrays, {"row": np.arange(3000), "column": np.arange(64)}, {})
    whole = path.read_bytes()
    at = whole.find(values[1].tobytes()[:64]) + 999
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
    with open_arrays(path, "remake") as file:
        np.testing.assert_array_equal(file.array("/x2"), values[2])
        np.testing.assert_array_equal(np.concatenate(list(file.row_batches("/x0", 300))), values[0])
        with pytest.raises(DamagedError, match="its digest does not match"):
            file.array("/x1")
        with pytest.raises(DamagedError, match="its digest does not match"):
            next(file.row_batches("/x1", 300))
    with pytest.raises(DamagedError, match="its digest does not match"):
        check_arrays(path, "remake")


@pytest.fixture
def foreign(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sound file of another user's."""
    monkeypatch.setattr("engine.hdf5_seal.own_key", lambda: b"another secret")
    return path


def test_a_file_of_somebody_else_is_read_in_a_child_process_once(
    foreign: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_arrays(foreign, "remake") as file:
        np.testing.assert_array_equal(file.array("/s/cka"), VALUES)
    monkeypatch.setattr("engine.hdf5.vet", lambda *_: pytest.fail("asked twice"))
    with open_arrays(foreign, "remake") as file:
        assert file.names("/s") == ("cka",)


def test_files_of_the_same_name_beside_are_read_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.hdf5_seal.own_key", lambda: b"a third secret")
    paths = [tmp_path / name / "r.h5" for name in ("one", "two", "bad")]
    for i, path in enumerate(paths):
        write_arrays(path, {}, {"x": np.arange(5 + i)}, {})
    paths[2].write_bytes(paths[2].read_bytes()[:-1] + b"?")
    with open_arrays(paths[0], "remake") as file:
        assert len(file.array("/x")) == 5
    monkeypatch.setattr("engine.hdf5.vet", lambda *_: pytest.fail("asked twice"))
    with open_arrays(paths[1], "remake") as file:
        assert len(file.array("/x")) == 6
    with pytest.raises(DamagedError, match="its digest does not match"), open_arrays(paths[2], "remake"):
        pass


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("import os; os.abort()", r"crashes its reader \(exit code -6\): refused"),
        ("x = [0] * 10**10", "needs more memory than its size explains"),
        ("while True: pass", "keeps its reader busy for more than|crashes its reader"),
    ],
)
def test_a_file_that_breaks_its_reader_breaks_only_the_child(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, problem: str
) -> None:
    """The reader is replaced by one that a hostile file has got hold of."""
    (tmp_path / "sitecustomize.py").write_text(
        f"import sys\nif 'engine.hdf5_check' in sys.orig_argv:\n    import engine.hdf5 as hdf5\n"
        f"    def read(self):\n        {body}\n    hdf5.Reader.read_everything = read\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("engine.vetting._BASE_S", 4.0)
    monkeypatch.setattr("engine.vetting._refused", {})
    sound = tmp_path / "sound.h5"
    write_arrays(sound, {}, {"x": np.arange(len(body))}, {})
    with pytest.raises(DamagedError, match=problem):
        vet([(sound, "0" * 64)], "remake")
    assert not is_known("0" * 64)
