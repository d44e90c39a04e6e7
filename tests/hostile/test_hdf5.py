"""HDF5 files that lead elsewhere, lie about their size, loop or need code: none reads anything but itself, or hangs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest

from engine.errors import DamagedError
from engine.hdf5 import open_arrays
from engine.integrity import verify
from engine.jobs.launch import make_study_folder
from engine.jobs.progress import study_progress
from engine.jobs.scheduler import queue_runs
from engine.runs.record import State, write_record
from engine.runs.results import read_results
from engine.runs.study_folder import StudyFolder
from engine.study import load_study
from tests.studies import write_study

SECRET = 20_417.0


def _soft(file: h5py.File, outside: Path) -> None:
    file["similarity"] = h5py.SoftLink("/quality")


def _soft_to_itself(file: h5py.File, outside: Path) -> None:
    file["similarity"] = h5py.SoftLink("/similarity")


def _external(file: h5py.File, outside: Path) -> None:
    file["quality/loss"] = h5py.ExternalLink(str(outside), "/x")


def _external_to_a_pipe(file: h5py.File, outside: Path) -> None:
    os.mkfifo(outside.with_name("pipe"))
    file["quality/loss"] = h5py.ExternalLink(str(outside.with_name("pipe")), "/x")


def _virtual(file: h5py.File, outside: Path) -> None:
    layout = h5py.VirtualLayout((2,), "f4")
    layout[:] = h5py.VirtualSource(str(outside), "x", (2,))
    file.create_virtual_dataset("quality/loss", layout)


def _external_storage(file: h5py.File, outside: Path) -> None:
    file.create_dataset("quality/loss", (2,), "f4", external=[("/etc/passwd", 0, 8)])


def _texts_outside(file: h5py.File, outside: Path) -> None:
    del file["layer"]
    file.create_dataset("layer", (1,), "S8", external=[("/etc/passwd", 0, 8)])


def _huge(file: h5py.File, outside: Path) -> None:
    file.create_dataset("quality/loss", (2 * 10**12,), "f8", chunks=(1024,))


def _bomb(file: h5py.File, outside: Path) -> None:
    file.create_dataset("quality/loss", data=np.zeros(50_000_000, "f4"), compression="gzip", compression_opts=9)


def _huge_texts(file: h5py.File, outside: Path) -> None:
    del file["layer"]
    file.create_dataset("layer", (10**11,), h5py.string_dtype(), chunks=(1024,))


def _unknown_filter(file: h5py.File, outside: Path) -> None:
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((2,))
    plist.set_filter(32_015, h5py.h5z.FLAG_OPTIONAL, ())
    space = h5py.h5s.create_simple((2,))
    dataset = h5py.h5d.create(file["quality"].id, b"loss", h5py.h5t.IEEE_F32LE, space, plist)
    dataset.write_direct_chunk((0,), b"01234567")


def _group_in_itself(file: h5py.File, outside: Path) -> None:
    file["quality/again"] = file["quality"]


def _object_type(file: h5py.File, outside: Path) -> None:
    file.create_dataset("quality/loss", (2,), h5py.ref_dtype)


def _compound(file: h5py.File, outside: Path) -> None:
    file.create_dataset("quality/loss", (2,), np.dtype([("a", "f4"), ("b", "i4")]))


def _many_dimensions(file: h5py.File, outside: Path) -> None:
    file.create_dataset("quality/loss", (1,) * 32, "f4")


def _wrong_shape(file: h5py.File, outside: Path) -> None:
    file.create_dataset("quality/loss", (7,), "f4")


MADE: list[Callable[[h5py.File, Path], None]] = [
    _soft, _soft_to_itself, _external, _external_to_a_pipe, _virtual, _external_storage, _texts_outside, _huge, _bomb,
    _huge_texts, _unknown_filter, _group_in_itself, _object_type, _compound, _many_dimensions, _wrong_shape,
]  # fmt: skip


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A file that must not be read."""
    path = tmp_path / "outside.h5"
    with h5py.File(path, "w") as file:
        file["x"] = np.full(2, SECRET, "f4")
    return path


@contextmanager
def _results_file(run_path: Path) -> Iterator[h5py.File]:
    """A results file of the first schema, which has no seal, for more to be put into."""
    with h5py.File(run_path / "results.h5", "w", libver="latest") as file:
        file.attrs["schema"] = 1
        file["epoch"] = np.arange(2)
        file.create_dataset("layer", data=["blocks.0"], dtype=h5py.string_dtype())
        yield file


@pytest.mark.parametrize("make", MADE, ids=[make.__name__ for make in MADE])
def test_nothing_outside_the_file_is_read(tmp_path: Path, outside: Path, make: Callable[..., None]) -> None:
    with _results_file(tmp_path) as file:
        file.create_group("quality")
        make(file, outside)
    with pytest.raises(DamagedError) as caught:
        read_results(tmp_path)
    assert str(SECRET) not in caught.value.problem and "root:" not in caught.value.problem


def test_the_same_file_without_tricks_is_read(tmp_path: Path) -> None:
    with _results_file(tmp_path) as file:
        file.create_dataset("quality/loss", data=np.ones(2, "f4"))
    assert read_results(tmp_path).quality["loss"].tolist() == [1, 1]


def test_an_attribute_that_lies_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", libver="latest") as file:
        file.attrs["schema"] = np.ones((3, 4))
    with pytest.raises(DamagedError, match="has no schema version"), open_arrays(path, "remake"):
        pass


@pytest.mark.parametrize("name", ["results.h5", "run.json", "progress.json", "study.lock/holder.json", "catalog.json"])
def test_a_pipe_in_the_place_of_a_file_never_blocks(tmp_path: Path, name: str) -> None:
    """A reader that opened it would wait for ever."""
    write_study(tmp_path, methods=["linear"])
    folder = make_study_folder(load_study(tmp_path / "study.toml"), tmp_path / "out")
    queue_runs(folder)
    run_id = folder.listing().records[0].run_id
    record = folder.listing().records[0]
    write_record(folder.run_path(run_id), record.with_(state=State.RUNNING))
    (folder.path / "study.lock").mkdir()
    path = folder.path / name if "/" in name or name == "catalog.json" else folder.run_path(run_id) / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    study_progress(StudyFolder(folder.path))
    verify(StudyFolder(folder.path))
    with pytest.raises(DamagedError):
        folder.results(run_id)
