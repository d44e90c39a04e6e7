"""Attention on any image file: as the study would have it, kept by content, and every way in which there is none."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from engine.analysis.attention import attention_view, find_image, study_attention
from engine.backbones.bundled import build
from engine.data.manifest import Item
from engine.data.pixels import CacheOptions, pixel_cache
from engine.data.read import read_dataset
from engine.errors import DamagedError, ImageError, MachineError, SimtuiError, StudyError
from engine.files import sha256_file
from engine.finetune.checkpoints import Checkpoints
from engine.jobs import attention, attention_child, child
from engine.jobs.attention import attention_of_image, weights_of
from engine.jobs.device import study_device
from engine.jobs.launch import make_study_folder, start_study
from engine.runs.record import RunRecord, State, write_record
from engine.runs.study_folder import StudyFolder
from engine.study import freeze_study, load_study
from tests.engine.data.making import noise, pydicom_file, save_dicom
from tests.studies import write_study

HOSTILE = b"-v \xff\n'\"[b]$(x)\x1b[31m;.png"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    """A study in which one run has trained its backbone for an epoch and another has not."""
    path = tmp_path_factory.mktemp("attention")
    folder = make_study_folder(load_study(write_study(path, methods=["full", "linear"], epochs=1)), path / "a study")
    assert start_study(folder).wait() == 0, folder.log_path.read_text()
    return folder


@pytest.fixture
def folder(finished: StudyFolder, tmp_path: Path) -> StudyFolder:
    """A copy to spoil."""
    return StudyFolder(Path(shutil.copytree(finished.path, tmp_path / "copy")))


def run_of(folder: StudyFolder, method: str = "full") -> RunRecord:
    return next(record for record in folder.listing().records if record.spec.method == method)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """Does what the child does in this process, which has torch loaded; gives what was asked. The cache is empty."""
    asked: list[list[str]] = []

    def run(command: list[str], *_: object) -> tuple[int, bytes, bytes]:
        asked.append(command)
        assert command[1:3] == ["-m", "engine.jobs.attention_child"]
        with contextlib.redirect_stdout(io.StringIO()) as said:
            code = attention_child.main(command[3:])
        return code, said.getvalue().encode(), b""

    monkeypatch.setattr(child, "run_child", run)
    monkeypatch.setattr(attention, "_cache_path", lambda: tmp_path / "cache" / "attention")
    return asked


def picture(path: Path, seed: int = 0, width: int = 90, height: int = 70) -> Path:
    Image.fromarray(noise(seed, width, height)).save(path)
    return path


# What it gives


@pytest.mark.parametrize("domain", ["target", "origin"])
def test_an_image_of_the_set_has_the_maps_that_the_study_keeps(
    finished: StudyFolder, here: list[list[str]], domain: str
) -> None:
    record = run_of(finished)
    kept = study_attention(finished, record)
    row = kept[0].domains.index(domain)
    root = Path(record.provenance.dataset_path if domain == "target" else record.provenance.origin_path)
    found = attention_of_image(finished, record, root / kept[0].images[row])
    for one, whole in zip(found, kept, strict=True):
        assert (one.domains, one.layers) == (("file",), whole.layers)
        assert one.images == (Path(whole.images[row]).name,)
        for pooling, maps in whole.maps.items():
            np.testing.assert_allclose(one.maps[pooling][0].astype(float), maps[row].astype(float), atol=2e-5)
            np.testing.assert_allclose(one.entropy[pooling][0], whole.entropy[pooling][row], rtol=1e-5)
        np.testing.assert_allclose(one.distance[0], whole.distance[row], rtol=1e-4)
    assert kept[0].pixels is not None and found[0].pixels is not None and found[1].pixels is None
    np.testing.assert_array_equal(found[0].pixels[0], kept[0].pixels[row])
    change = np.abs(found[0].maps["cls"].astype(float) - found[1].maps["cls"].astype(float))
    assert change.max() > 1e-4  # five times what is let pass above
    view = attention_view(*found, find_image(found[0], "png"), "blocks.0", None, "cls")
    assert not view.is_frozen and view.correlation is not None and view.correlation < 1


def test_a_process_of_its_own_answers_once_for_a_file_of_any_name(
    finished: StudyFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "_cache_path", lambda: tmp_path / "cache \udcff" / "attention")
    path = picture(tmp_path / "plain.png").rename(tmp_path / os.fsdecode(HOSTILE))
    record = run_of(finished)
    before, after = attention_of_image(finished, record, path)
    assert before.images == after.images == (os.fsdecode(HOSTILE),)
    monkeypatch.setattr(child, "run_child", lambda *_: pytest.fail("asked again"))
    again = attention_of_image(finished, record, Path(shutil.copy(path, tmp_path / "other name.png")))
    assert again[0].images == ("other name.png",)
    np.testing.assert_array_equal(again[1].maps["feat"], after.maps["feat"])


def test_a_frozen_backbone_has_the_maps_of_the_pre_trained_model(
    finished: StudyFolder, here: list[list[str]], tmp_path: Path
) -> None:
    path = picture(tmp_path / "a.png")
    linear = attention_of_image(finished, run_of(finished, "linear"), path)
    assert linear[0] is linear[1] and linear[0].pixels is not None
    assert {each.name for each in (tmp_path / "cache").rglob("*.h5")} == {"before.h5"}
    full = attention_of_image(finished, run_of(finished), path)
    np.testing.assert_array_equal(full[0].maps["cls"], linear[0].maps["cls"])
    assert len(here) == 2  # the answer of another run is another answer
    attention_of_image(finished, run_of(finished, "linear"), path)
    assert len(here) == 2


def test_the_answer_goes_by_the_content_of_the_file(
    finished: StudyFolder, here: list[list[str]], tmp_path: Path
) -> None:
    record = run_of(finished)
    first = attention_of_image(finished, record, picture(tmp_path / "a.png", 0))
    second = attention_of_image(finished, record, picture(tmp_path / "a.png", 1))
    assert len(here) == 2 and not np.array_equal(first[0].maps["cls"], second[0].maps["cls"])


# Images


def save_deep(path: Path) -> Path:
    Image.fromarray(np.random.default_rng(0).integers(0, 4096, (40, 50), dtype=np.uint16)).save(path)
    return path


IMAGES: dict[str, Callable[[Path], Path]] = {
    "large.jpg": lambda path: picture(path, width=700, height=300),
    "small.png": lambda path: picture(path, width=20, height=20),
    "palette.gif": lambda path: picture(path),
    "named.wrong": lambda path: Path(shutil.copy(picture(path.with_name("x.tif")), path)),
    "grey.dcm": lambda path: save_dicom(path, 3),
    "compressed.dcm": lambda path: Path(shutil.copy(pydicom_file("JPEG2000.dcm"), path)),
    "deep.png": save_deep,
}


@pytest.mark.parametrize("name", IMAGES)
def test_it_is_decoded_as_the_images_of_the_study_are(
    folder: StudyFolder, here: list[list[str]], tmp_path: Path, name: str
) -> None:
    if name in ("deep.png", "compressed.dcm"):
        data = replace(folder.study.data, window=(0.0, 4095.0))
        folder.study_file_path.write_text(freeze_study(replace(folder.study, data=data)))
        folder = StudyFolder(folder.path)
    path = IMAGES[name](tmp_path / name)
    (before, _) = attention_of_image(folder, run_of(folder), path)
    decoding = read_dataset(Path(folder.study.data.path), folder.study.data).decoding
    items = (Item("x", name, 0, "test", sha256_file(path)),)
    cached = pixel_cache(tmp_path, items, 64, tmp_path / "pixels", options=CacheOptions(decoding)).pixels[0]
    assert before.pixels is not None
    np.testing.assert_array_equal(before.pixels[0], np.asarray(cached)[4:68, 4:68])


def save_frames(path: Path) -> Path:
    frames = [Image.fromarray(noise(seed)) for seed in (0, 1)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    return path


def cut_short(path: Path) -> Path:
    content = picture(path).read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


def fifo(path: Path) -> Path:
    os.mkfifo(path)
    return path


def folder_of_its_name(path: Path) -> Path:
    path.mkdir()
    return path


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("make", "problem", "fix"),
    [
        (lambda path: path, "no such file", "copy the file again"),
        (fifo, "not a regular file", "remove it"),
        (folder_of_its_name, "not a regular file", "remove it"),
        (lambda path: written(path, b""), "file is empty", "copy the file again"),
        (lambda path: path / "\0", "no such file", "give the path of an image"),
        (lambda path: written(path, b"text"), "not an image", "copy the file again"),
        (cut_short, "image is cut short", "copy the file again"),
        (lambda path: picture(path, width=600, height=4), "aspect ratio 150; limit 50", "crop the image"),
        (save_deep, "16-bit image, and the study says nothing of how to read such", "save it as an 8-bit image of one"),
        (lambda path: save_frames(path), "2 frames, and the study says nothing of how", "save it as an 8-bit image of"),
    ],
    ids=["missing", "FIFO", "folder", "empty", "NUL", "text", "cut short", "ribbon", "16 bits", "frames"],
)
def test_an_image_that_cannot_be_used_is_named(
    finished: StudyFolder,
    here: list[list[str]],
    tmp_path: Path,
    make: Callable[[Path], Path],
    problem: str,
    fix: str,
) -> None:
    suffix = b".gif" if make.__name__ == "<lambda>" and "frames" in problem else b".png"
    path = make(tmp_path / os.fsdecode(HOSTILE.removesuffix(b".png") + suffix))
    with pytest.raises(SimtuiError) as caught:
        attention_of_image(finished, run_of(finished), path)
    assert (caught.value.where, caught.value.exit_code) == (str(path), ImageError.exit_code)
    assert problem in caught.value.problem and "data." not in caught.value.problem
    assert fix in caught.value.fix
    assert not list(tmp_path.rglob("*.h5"))


# Runs and weights


@pytest.mark.parametrize("method", ["full", "linear"])
def test_a_run_that_has_not_ended_has_no_last_weights(folder: StudyFolder, method: str, tmp_path: Path) -> None:
    record = run_of(folder, method).with_(state=State.STOPPED)
    with pytest.raises(
        StudyError, match=r"is stopped: its last weights are not there yet\n  fix: simtui run .* goes on"
    ):
        attention_of_image(folder, record, picture(tmp_path / "a.png"))


def test_weights_that_were_never_kept_are_told_from_weights_that_were_freed(folder: StudyFolder) -> None:
    record = run_of(folder)
    name = "checkpoints/epoch-001.safetensors"
    assert weights_of(folder, record) == folder.run_path(record.run_id) / name
    without = record.with_(files={each: sha256 for each, sha256 in record.files.items() if each != name})
    with pytest.raises(StudyError, match=r"its weights were freed\n  fix: rm -r .* trains it again"):
        weights_of(folder, without)
    with pytest.raises(StudyError, match=r'not kept \(study\.keep = "none"\)\n  fix: set keep = "ends" .* new folder'):
        weights_of(folder, without.with_(spec=replace(record.spec, keep="none")))
    assert weights_of(folder, run_of(folder, "linear").with_(spec=replace(record.spec, method="linear"))) is None


@pytest.mark.parametrize("epochs", [1, 20, 1000])
def test_the_last_weights_are_those_of_the_last_epoch(folder: StudyFolder, epochs: int) -> None:
    record = run_of(folder)
    names = [f"checkpoints/epoch-{epoch:03d}.safetensors" for epoch in (0, 1, 999, epochs)]
    record = record.with_(spec=replace(record.spec, epochs=epochs), files=dict.fromkeys(names, ""))
    path = weights_of(folder, record)
    assert path == folder.run_path(record.run_id) / names[-1]
    assert path == Checkpoints(folder.run_path(record.run_id)).weights_path(epochs)


def refused(folder: StudyFolder, image_path: Path) -> SimtuiError:
    with pytest.raises(SimtuiError) as caught:
        attention_of_image(folder, run_of(folder), image_path)
    return caught.value


def test_a_checkpoint_that_is_not_the_runs_is_refused(
    folder: StudyFolder, here: list[list[str]], tmp_path: Path
) -> None:
    path, image_path = weights_of(folder, run_of(folder)), picture(tmp_path / "a.png")
    assert path is not None
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    error = refused(folder, image_path)
    assert (error.where, error.problem) == (str(path), "is another file than the run ended with")
    assert error.exit_code == DamagedError.exit_code and error.fix.startswith("rm -r ")
    path.unlink()
    assert refused(folder, image_path).problem == "cannot be read (No such file or directory)"


@pytest.mark.parametrize(
    ("which", "problem"),
    [
        ("linear", "does not hold the weights of bundled:supervised"),  # only a head
        ("damaged", "its digest does not match: changed since it was written"),
    ],
)
def test_a_checkpoint_that_the_record_names_is_checked_all_the_same(
    folder: StudyFolder, here: list[list[str]], tmp_path: Path, which: str, problem: str
) -> None:
    record = run_of(folder)
    path, linear = weights_of(folder, record), folder.run_path(run_of(folder, "linear").run_id)
    assert path is not None
    if which == "linear":
        shutil.copy(linear / "checkpoints" / path.name, path)
    else:
        path.write_bytes(path.read_bytes()[:-1] + b"\0")
    files = {**record.files, f"checkpoints/{path.name}": sha256_file(path)}
    write_record(folder.run_path(record.run_id), record.with_(files=files))
    error = refused(StudyFolder(folder.path), picture(tmp_path / "a.png"))
    assert (error.where, error.problem) == (str(path), problem)
    assert error.fix.startswith(f"rm -r {folder.run_path(record.run_id)} && ")


def test_other_weights_of_the_pre_trained_model_are_refused_and_moved_ones_are_found(
    folder: StudyFolder, here: list[list[str]], tmp_path: Path
) -> None:
    study = folder.study
    (section,) = study.backbone
    assert section.weights is not None

    def with_weights(path: Path) -> StudyFolder:
        backbone = (replace(section, weights=str(path)),)
        folder.study_file_path.write_text(freeze_study(replace(study, backbone=backbone)))
        return StudyFolder(folder.path)

    save_file(build("supervised").state_dict(), tmp_path / "other.safetensors")
    error = refused(with_weights(tmp_path / "other.safetensors"), picture(tmp_path / "a.png"))
    assert error.where == 'backbone "bundled:supervised"' and error.fix == "put them back"
    assert error.problem.startswith("the weights differ from those that the run began with (were ")
    moved = with_weights(Path(shutil.copy(section.weights, tmp_path / "moved.safetensors")))
    record = run_of(moved)
    gone = replace(record.spec, backbone=replace(section, weights=str(tmp_path / "gone.safetensors")))
    write_record(moved.run_path(record.run_id), record.with_(spec=gone))
    before, _ = attention_of_image(StudyFolder(moved.path), record, tmp_path / "a.png")
    assert before.images == ("a.png",)


def test_an_input_size_that_is_not_the_runs_is_refused(
    folder: StudyFolder, here: list[list[str]], tmp_path: Path
) -> None:
    record = run_of(folder)
    other = replace(record.provenance, input_size=128)
    write_record(folder.run_path(record.run_id), record.with_(provenance=other))
    error = refused(StudyFolder(folder.path), picture(tmp_path / "a.png"))
    assert "the input size differ from those that the run began with (were 128, are 64)" in error.problem


def test_a_backbone_whose_attention_cannot_be_read_is_named(
    finished: StudyFolder, here: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise StudyError('backbone "x"', "its attention cannot be read: made up", "set attention.n = 0")

    monkeypatch.setattr(attention_child, "attention_maps", refuse)
    error = refused(finished, picture(tmp_path / "a.png"))
    assert (error.problem, error.fix) == ("its attention cannot be read: made up", "choose a run of another backbone")


# The device


@pytest.mark.parametrize(
    ("wanted", "n_gpus", "device"),
    [
        ("auto", 0, "cpu"), ("auto", 2, "cuda:0"), ("cpu", 2, "cpu"), ("cuda", 1, "cuda"), ("cuda:1", 2, "cuda:1"),
        ("cuda:1", 1, "cpu"), ("cuda", 0, "cpu"),
    ],
)  # fmt: skip
def test_the_device_is_that_of_the_study_where_this_machine_has_it(
    monkeypatch: pytest.MonkeyPatch, wanted: str, n_gpus: int, device: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: n_gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n_gpus)
    assert study_device(wanted) == torch.device(device)


def test_a_device_that_a_training_has_filled_leaves_it_to_the_cpu(
    finished: StudyFolder, here: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, tried = attention_child._maps, []

    def maps(*arguments: Any) -> Any:
        tried.append(arguments[-1].type)
        if len(tried) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(*arguments)

    monkeypatch.setattr(attention_child, "_maps", maps)
    monkeypatch.setattr(attention_child, "study_device", lambda wanted: torch.device("cuda:0"))
    before, _ = attention_of_image(finished, run_of(finished), picture(tmp_path / "a.png"))
    assert tried == ["cuda", "cpu"] and before.images == ("a.png",)


# The child


def child_that(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str) -> None:
    path = tmp_path / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setattr(child.sys, "executable", str(path))
    monkeypatch.setattr(attention, "_cache_path", lambda: tmp_path / "cache" / "attention")


FAILURE = {"where": "there", "problem": "that", "fix": "this", "exit_code": 3}


@pytest.mark.parametrize(
    ("script", "expected", "code"),
    [
        (f"echo noise; echo '{json.dumps(FAILURE)}'; exit 3", "there: that\n  fix: this", 3),
        (
            "echo Traceback >&2; echo 'ValueError: odd' >&2; exit 1",
            "ended with code 1 (ValueError: odd)\n  fix: see",
            4,
        ),
        ("kill -9 $$", "ended with code -9 (without a word)\n", 4),
        ("echo '[1]'; exit 2", "ended with code 2 (without a word)\n", 4),
        ("echo '{\"where\": 1}'; exit 2", "ended with code 2 (without a word)\n", 4),
        ("exec sleep 60", "its attention was not there after 1 s\n  fix: try again when", 4),
        ("exit 0", "before.h5: cannot be read (No such file or directory)\n", 3),
    ],
    ids=["expected", "unexpected", "killed", "no object", "other object", "too long", "nothing written"],
)
def test_however_the_child_ends_it_is_one_message(
    finished: StudyFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, expected: str, code: int
) -> None:
    child_that(monkeypatch, tmp_path, script)
    with pytest.raises(SimtuiError) as caught:
        attention_of_image(finished, run_of(finished), picture(tmp_path / "a.png"), timeout_s=1.0)
    assert expected in str(caught.value) and caught.value.exit_code == code


def test_a_child_that_cannot_be_started_is_said(
    finished: StudyFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child_that(monkeypatch, tmp_path, "")
    (tmp_path / "python").unlink()
    with pytest.raises(MachineError, match=r"no process could be started for it \(No such file or directory\)"):
        attention_of_image(finished, run_of(finished), picture(tmp_path / "a.png"))


# The cache


@pytest.mark.parametrize("name", ["before.h5", "after.h5"])
def test_a_damaged_answer_is_made_again(
    finished: StudyFolder, here: list[list[str]], tmp_path: Path, name: str
) -> None:
    path = picture(tmp_path / "a.png")
    attention_of_image(finished, run_of(finished), path)
    (answer,) = (tmp_path / "cache").rglob(name)
    whole = answer.read_bytes()
    answer.write_bytes(whole[:-50])
    attention_of_image(finished, run_of(finished), path)
    assert len(here) == 2 and answer.read_bytes() == whole


def test_an_image_that_is_exchanged_meanwhile_is_not_taken_for_the_one_asked_for(
    finished: StudyFolder, here: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = picture(tmp_path / "a.png")
    real = child.run_child

    def exchanged(*arguments: Any, **options: Any) -> Any:
        picture(path, 5)
        return real(*arguments, **options)

    monkeypatch.setattr(child, "run_child", exchanged)
    with pytest.raises(DamagedError, match="is of another image than its name says"):
        attention_of_image(finished, run_of(finished), path)


def test_a_cache_that_cannot_be_written_costs_only_the_time(
    finished: StudyFolder, here: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(attention, "_cache_path", lambda: tmp_path / "file" / "attention")
    for n in (1, 2):
        before, after = attention_of_image(finished, run_of(finished), picture(tmp_path / "a.png"))
        assert before.images == after.images == ("a.png",) and len(here) == n
    assert not any(Path(command[-1]).exists() for command in here)


def test_the_oldest_answers_go(
    finished: StudyFolder, here: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "_N_KEPT", 2)
    paths = [picture(tmp_path / f"{seed}.png", seed) for seed in range(3)]
    for age, path in zip((30, 20, 10), paths, strict=True):
        attention_of_image(finished, run_of(finished), path)
        newest = Path(here[-1][-1])
        os.utime(newest, (newest.stat().st_mtime - age,) * 2)
    assert [Path(command[-1]).exists() for command in here] == [False, True, True]


def test_answers_by_other_settings_are_other_answers(finished: StudyFolder, folder: StudyFolder) -> None:
    record = run_of(finished)
    keys = {
        attention._key(finished, record, "aa"),
        attention._key(finished, record, "bb"),
        attention._key(finished, run_of(finished, "linear"), "aa"),
        attention._key(finished, record.with_(files={**record.files, "checkpoints/epoch-001.safetensors": "0"}), "aa"),
        attention._key(finished, record.with_(provenance=replace(record.provenance, weights_sha256="0")), "aa"),
    }
    data = replace(folder.study.data, window=(0.0, 1.0))
    folder.study_file_path.write_text(freeze_study(replace(folder.study, data=data)))
    keys.add(attention._key(StudyFolder(folder.path), record, "aa"))
    assert len(keys) == 6
    assert attention._key(finished, record, "aa") in keys
