"""Bad inputs one by one, each with the sentence that the user reads: names, checkpoints, HDF5, mathematics, requests.

The numbers are those of the project's list of bad inputs; images, tables and DICOM are in `test_bad_data.py`.
"""

from __future__ import annotations

import csv
import os
import shlex
import sys
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, replace
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from engine.activations.compare import similarity_of_files
from engine.activations.extract import extract
from engine.activations.store import Activations, ActivationStore
from engine.analysis.table import Table
from engine.backbones import load_backbone
from engine.backbones.bundled import build
from engine.data.manifest import Item, read_manifest
from engine.data.pixels import pixel_cache
from engine.data.read import read_dataset
from engine.errors import DataError, NonFiniteError, ShapeError, SimtuiError, StudyError, WeightsError
from engine.export import to_csv
from engine.files import sha256_file
from engine.jobs.launch import make_study_folder
from engine.jobs.plan import read_plan
from engine.jobs.prepare import Preparation
from engine.measures import debiased_cka, heatmap, linear_cka, why_undefined
from engine.runs.record import State, read_record, write_record
from engine.runs.results import read_results, write_results
from engine.study import Study, load_study
from simtui import cli
from simtui.widgets.similarity_map import SimilarityMap
from tests import studies
from tests.engine.backbones.conftest import hub  # noqa: F401
from tests.hostile import test_hdf5 as made
from tests.simtui.conftest import _terminal  # noqa: F401
from tests.simtui.driving import app_of, opened, press, text_of, written
from tests.simtui.studies import study_of, write_study

BAD_INPUT, DAMAGED = 2, 3


@dataclass(frozen=True)
class Said:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


@pytest.fixture
def simtui(monkeypatch: pytest.MonkeyPatch, capsysbinary: Any) -> Callable[..., Said]:
    """The commands as a user types them, in this process."""

    def run(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["simtui", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "300")
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = (part.decode("utf-8", "surrogateescape") for part in capsysbinary.readouterr())
        return Said(code, out, err)

    return run


def refused(said: Said | SimtuiError, code: int, where: object, sentence: str) -> None:
    """One message that names the place, has the sentence word for word, and a fix."""
    if isinstance(said, SimtuiError):
        said = Said(said.exit_code, "", f"simtui: {said}\n")
    problem, _, fix = said.err.partition("\n  fix: ")
    assert said.code == code, said.err
    assert problem.startswith("simtui: ") and str(where) in problem, said.err
    assert sentence in problem, said.err
    assert fix.strip() and "Traceback" not in said.err, said.err


# Names and paths


def _with_name(path: Path, name: str) -> Path:
    """A study in which a dataset, and the reason of a failure, are called by a name from outside."""
    write_study(path, study_of(("bundled:supervised",), seeds=1, epochs=1))
    for run_path in sorted((path / "runs").iterdir()):
        record = read_record(run_path)
        spec = replace(record.spec, dataset=name)
        write_record(run_path, record.with_(spec=spec, state=State.FAILED, reason=f"no image {name}"))
    return path


def _shown(simtui: Callable[..., Said], folder: Path, name: str) -> tuple[Said, Said]:
    """`status` of a study with a name from outside, and the error for a path of that name: nothing raw gets out."""
    said = simtui("status", _with_name(folder, name)), simtui("verify", folder / name.replace("/", ""))
    for text in (said[0].out, said[1].err):
        assert all(line.isprintable() for line in text.split("\n")), text
    return said


def test_row_17_escape_sequence_in_a_name(simtui: Callable[..., Said], tmp_path: Path) -> None:
    status, error = _shown(simtui, tmp_path / "s", "a\x1b[31mb\x1b]0;owned\x07c")
    assert "no image a\\x1b[31mb\\x1b]0;owned\\x07c" in status.out
    assert "a\\x1b[31mb\\x1b]0;owned\\x07c: " in error.err


async def test_row_18_markup_in_a_name(simtui: Callable[..., Said], tmp_path: Path) -> None:
    name = "[/] [@click=app.quit]x[/] [bold]y"
    status, error = _shown(simtui, tmp_path / "s", name)
    assert f"no image {name}" in status.out and name.replace("/", "") in error.err
    async with opened(tmp_path / "s", size=(120, 40)) as pilot:
        assert name[:20] in written(pilot)


def test_row_19_line_break_and_tab_in_a_name(simtui: Callable[..., Said], tmp_path: Path) -> None:
    status, error = _shown(simtui, tmp_path / "s", "one\n\ttwo")
    assert "no image one\\n\\ttwo" in status.out and "one\\n\\ttwo: " in error.err
    exported = simtui("export", tmp_path / "s", "runs").out
    assert '"one\n\ttwo"' in exported
    assert {row["dataset"] for row in csv.DictReader(exported.splitlines(keepends=True))} == {"one\n\ttwo"}


def test_row_20_bidirectional_override_in_a_name(simtui: Callable[..., Said], tmp_path: Path) -> None:
    status, error = _shown(simtui, tmp_path / "s", "a\u202egnp\u2066b")
    assert "no image a\\u202egnp\\u2066b" in status.out and "a\\u202egnp\\u2066b" in error.err


def test_row_21_name_that_is_not_utf_8(simtui: Callable[..., Said], tmp_path: Path) -> None:
    request = studies.write_study(tmp_path, methods=["linear"])
    odd = os.fsdecode(b"n\xe4vus\xff")
    (tmp_path / "images" / "red").rename(tmp_path / "images" / odd)
    (tmp_path / "images" / odd / "red000.png").rename(tmp_path / "images" / odd / f"{odd}.png")
    folder = make_study_folder(load_study(request), tmp_path / "out")
    for _ in range(2):  # made, then read back
        Preparation(folder, reports=True).prepare()
    manifest = read_manifest(folder.path / read_plan(folder.path / "plan.json").manifest)
    assert odd in manifest.classes and f"{odd}/{odd}.png" in [item.id for item in manifest.items]
    folder.path.rename(tmp_path / odd)
    verified = simtui("verify", tmp_path / odd)
    assert (verified.code, "all as they were written" in verified.out) == (0, True), verified
    assert "n\\udce4vus\\udcff: " in simtui("status", tmp_path / odd / odd).err


def test_row_22_classes_that_differ_only_in_unicode_form(tmp_path: Path) -> None:
    images = studies.make_images(tmp_path / "images", 4)
    (images / "red").rename(images / unicodedata.normalize("NFC", "nävus"))
    (images / "blue").rename(images / unicodedata.normalize("NFD", "nävus"))
    with pytest.raises(DataError) as caught:
        read_dataset(images)
    refused(caught.value, BAD_INPUT, images, "differ only in Unicode form ('na\\u0308vus', 'n\\xe4vus')")


def test_row_23_formula_in_a_name(simtui: Callable[..., Said], tmp_path: Path) -> None:
    exported = simtui("export", _with_name(tmp_path / "s", "=cmd()"), "runs").out
    assert {row["dataset"] for row in csv.DictReader(exported.splitlines())} == {"'=cmd()"}
    for start in "=+-@\t\r":
        table = Table("t", ("name", "number"), ((f"{start}1", -1.5),))
        assert to_csv(table).replace('"', "").endswith(f"'{start}1,-1.5\n")


# Checkpoints

FITS = "not the weights of bundled:supervised: "


def _weights_refused(path: Path, code: int, sentence: str, name: str = "bundled:supervised") -> str:
    """Refuses a weights file as a study that names it would; returns the fix."""
    with pytest.raises(SimtuiError) as caught:
        load_backbone(name, weights=path)
    refused(caught.value, code, path, sentence)
    return caught.value.fix


def _changed_weights(path: Path, changes: dict[str, torch.Tensor], without: tuple[str, ...] = ()) -> Path:
    state = {key: value for key, value in build("supervised").state_dict().items() if key not in without}
    save_file(state | changes, path)
    return path


@pytest.mark.parametrize("name", ["w.pth", "w.bin", "w.safetensors"])
def test_row_40_pickle(tmp_path: Path, name: str) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return (Path.touch, (tmp_path / "owned",))  # type: ignore[return-value]

    torch.save({"a": Evil()}, tmp_path / name)
    _weights_refused(tmp_path / name, BAD_INPUT, "pickle files can run code; convert it")
    assert not (tmp_path / "owned").exists()


def test_row_41_wrong_shape(tmp_path: Path) -> None:
    path = _changed_weights(tmp_path / "w.safetensors", {"pos_embed": torch.ones(1, 65, 96)})
    _weights_refused(path, BAD_INPUT, "pos_embed is (1, 65, 96), model needs (1, 65, 128)")


def test_row_42_missing_and_extra_keys(tmp_path: Path) -> None:
    missing = tuple(f"blocks.0.{part}.{kind}" for part in ("norm1", "attn.qkv", "norm2") for kind in ("weight", "bias"))
    extra = {f"decoder.{i}": torch.ones(1) for i in range(7)}
    path = _changed_weights(tmp_path / "w.safetensors", extra, missing)
    firsts = ", ".join(missing[:5]), ", ".join(list(extra)[:5])
    sentence = f"missing {firsts[0]} and 1 more; not in the model: {firsts[1]} and 2 more"
    _weights_refused(path, BAD_INPUT, FITS + sentence)


def test_row_43_weights_that_are_no_numbers(tmp_path: Path) -> None:
    weight = torch.zeros(384, 128)
    weight[0, :11], weight[5, 5] = torch.nan, torch.inf
    path = _changed_weights(tmp_path / "w.safetensors", {"blocks.3.attn.qkv.weight": weight})
    _weights_refused(path, BAD_INPUT, "blocks.3.attn.qkv.weight has 12 non-finite values")


def test_row_44_truncated(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"a": torch.zeros(2_000_000)}, path)
    os.truncate(path, 3_000_000)
    _weights_refused(path, DAMAGED, "header promises 8 MB, file has 3 MB")


def test_row_45_weights_of_another_backbone(tmp_path: Path) -> None:
    path = studies.save_random_weights(tmp_path / "w.safetensors", "image-text")
    fix = _weights_refused(path, BAD_INPUT, f"{FITS}missing cls_token, pos_embed")
    assert fix == "give the weights of this backbone, or name the backbone they belong to"


def test_row_46_weights_that_are_nowhere(hub: object) -> None:  # noqa: F811
    name = "timm:vit_tiny_patch16_224.augreg_in21k"
    with pytest.raises(WeightsError) as caught:
        load_backbone(name)
    refused(caught.value, BAD_INPUT, f'backbone "{name}"', "its weights are not in the hub cache /")
    place = "https://huggingface.co/timm/vit_tiny_patch16_224.augreg_in21k/resolve/main/model.safetensors"
    assert caught.value.fix == (
        f"fetch {place} on a machine with network, put it anywhere here, "
        'and add weights = "path/to/model.safetensors" under this [[backbone]]'
    )


# HDF5


@pytest.fixture
def run_path(tmp_path: Path) -> Path:
    """The one run of a study that is done; a foreign results file may take the place of its own."""
    folder = write_study(tmp_path / "s", _request_of_one_run())
    return next((folder / "runs").iterdir())


def _request_of_one_run() -> Study:
    study = study_of(("bundled:supervised",), seeds=1, epochs=1)
    return replace(study, finetune=replace(study.finetune, methods=("full",)))


def _exported(simtui: Callable[..., Said], run_path: Path) -> Said:
    return simtui("export", run_path.parents[1], "heatmap", "--run", "full")


def _remake(run_path: Path) -> str:
    return f"\n  fix: rm -r {shlex.quote(str(run_path))} && simtui run {shlex.quote(str(run_path.parents[1]))}\n"


def _hostile_results_refused(
    simtui: Callable[..., Said], run_path: Path, make: Callable[[h5py.File, Path], None], sentence: str
) -> None:
    """Results that somebody else wrote, with something bad in them, are refused with the command that mends it."""
    outside = run_path / "outside.h5"
    with h5py.File(outside, "w") as file:
        file["x"] = np.full(2, made.SECRET, "f4")
    with made._results_file(run_path) as file:
        file.create_group("quality")
        make(file, outside)
    said = _exported(simtui, run_path)
    refused(said, DAMAGED, run_path / "results.h5", sentence)
    assert said.err.endswith(_remake(run_path)) and not said.out


@pytest.mark.parametrize(
    "make",
    [made._soft, made._external, made._virtual, made._external_storage, made._texts_outside],
    ids=["soft link", "external link", "virtual dataset", "external storage", "external storage of texts"],
)
def test_row_47_reference_to_another_file(
    simtui: Callable[..., Said], run_path: Path, make: Callable[[h5py.File, Path], None]
) -> None:
    _hostile_results_refused(simtui, run_path, make, "refers to another file; refused")


def test_row_48_absurd_size(simtui: Callable[..., Said], run_path: Path) -> None:
    _hostile_results_refused(simtui, run_path, made._huge, "declares 16.0 TB, stores 0 bytes")


def test_row_49_wrong_type(simtui: Callable[..., Said], run_path: Path) -> None:
    _hostile_results_refused(simtui, run_path, made._object_type, "quality/loss has type object; need numbers")


def test_row_50_missing_dataset(simtui: Callable[..., Said], run_path: Path) -> None:
    def without_layers(file: h5py.File, outside: Path) -> None:
        del file["layer"]

    _hostile_results_refused(simtui, run_path, without_layers, "/layer: is missing")


def test_row_51_newer_schema(simtui: Callable[..., Said], run_path: Path) -> None:
    with made._results_file(run_path) as file:
        file.attrs["schema"] = 4
    said = _exported(simtui, run_path)
    refused(said, DAMAGED, run_path / "results.h5", "written by schema 4; this simtui reads up to 2; upgrade")
    assert said.err.endswith("\n  fix: upgrade simtui\n"), "results must not be thrown away"


def test_row_52_older_schema(simtui: Callable[..., Said], run_path: Path) -> None:
    (key, matrix), *_ = sorted(read_results(run_path).similarity.items())
    with h5py.File(run_path / "results.h5", "w", libver="latest") as file:
        file.attrs["schema"] = 1
        file["epoch"] = np.arange(2)
        file.create_dataset("layer", data=[f"block {i + 1}" for i in range(6)], dtype=h5py.string_dtype())
        file[f"similarity/{key.probe}/{key.pooling}/linear_cka"] = matrix
    said = _exported(simtui, run_path)
    assert (said.code, said.out.count("\n")) == (0, 1 + 6 * 6), said.err


def test_row_53_digest_that_does_not_match(simtui: Callable[..., Said], run_path: Path) -> None:
    path = run_path / "results.h5"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    said = _exported(simtui, run_path)
    refused(said, DAMAGED, path, "its digest does not match: changed since it was written")
    assert said.err.endswith(_remake(run_path))
    verified = simtui("verify", run_path.parents[1])
    assert verified.code == DAMAGED
    line = f"{path.relative_to(run_path.parents[1])}: its digest does not match: changed since it was written"
    assert line + _remake(run_path) in verified.out


def test_row_54_unknown_filter(simtui: Callable[..., Said], run_path: Path) -> None:
    _hostile_results_refused(
        simtui, run_path, made._unknown_filter, "/quality/loss needs HDF5 filter 32015, which is not simtui's; refused"
    )


# Mathematics


async def test_row_55_constant_layer(run_path: Path) -> None:
    results = read_results(run_path)
    matrices = {key: matrix.copy() for key, matrix in results.similarity.items()}
    for matrix in matrices.values():
        matrix[:, 2, :] = matrix[:, :, 2] = np.nan
    write_results(run_path, replace(results, similarity=matrices))
    async with opened(run_path.parents[1], size=(120, 40), view="2") as pilot:
        await press(pilot, "down", "down")
        assert text_of(pilot, "readout").startswith("– ██ pre-trained block 3 × this run block 1")
        assert "undefined: a block is constant" in text_of(pilot, "readout")
        cells = pilot.app.screen.query_one(SimilarityMap)
        assert sum(cells.render_line(y).text.count("–") for y in range(cells.size.height)) == 6 + 6 - 1
    constant = np.ones((9, 3))
    assert torch.isnan(linear_cka(constant, np.random.default_rng(0).normal(size=(9, 3))))
    assert why_undefined(constant) == "constant over the images"


async def test_row_56_fewer_images_than_features(run_path: Path) -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 20, 500))
    assert float(linear_cka(x, y)) > 0.9 and abs(float(debiased_cka(x, y))) < 0.1
    record = read_record(run_path)
    write_record(run_path, record.with_(provenance=replace(record.provenance, n_probe=20, n_features=500)))
    async with opened(run_path.parents[1], view="2") as pilot:
        warning = "linear CKA (biased) is inflated: n = 20 is not >> d = 500; m: debiased CKA"
        assert warning in text_of(pilot, "warning")
        await press(pilot, "m")
        assert "debiased" in text_of(pilot, "readout") and "inflated" not in text_of(pilot, "warning")


def test_row_57_one_image(simtui: Callable[..., Said], tmp_path: Path) -> None:
    with pytest.raises(ShapeError) as caught:
        heatmap([np.ones((1, 3))], [np.ones((1, 3))])
    refused(caught.value, BAD_INPUT, "xs[0]", "has 1 image (need 2 for linear_cka)")
    said = simtui("run", _request(tmp_path, "[probe]\nn = 1\n"))
    refused(said, BAD_INPUT, "study.toml line 2", "probe.n = 1: need a number from 4")


def _stored(folder: Path, ids: str, bad: tuple[int, int] | None = None) -> Path:
    """An activation file of two layers; `bad` is the place of a value that is not finite: layer and image."""
    values = np.random.default_rng(len(ids)).normal(size=(2, len(ids), 3)).astype(np.float32)
    if bad:
        values[*bad, 1] = np.inf
    key = f"{ids}{'-bad' if bad else ''}"
    embedding = np.zeros((len(ids), 1), np.float32)
    ActivationStore(folder).save(key, Activations(tuple(ids), embedding, ("blocks.0", "blocks.1"), {"cls": values}))
    return folder / f"{key}.h5"


def test_row_58_another_order_of_the_images(tmp_path: Path) -> None:
    x, y = _stored(tmp_path, "abcdef"), _stored(tmp_path, "abdcef")
    with pytest.raises(ShapeError) as caught:
        similarity_of_files(x, y, "cls")
    refused(caught.value, BAD_INPUT, y, "image 2 is 'd' (need 'c', as abcdef.h5)")
    with pytest.raises(SimtuiError) as kept:
        ActivationStore(tmp_path).load("abcdef", "abdcef")
    refused(kept.value, DAMAGED, x, "holds other images than its name says")


def test_row_59_activation_that_is_not_finite(tmp_path: Path) -> None:
    x, bad = _stored(tmp_path, "abcdef"), _stored(tmp_path, "abcdef", bad=(1, 4))
    with pytest.raises(NonFiniteError) as caught:
        similarity_of_files(x, bad, "cls", 2)
    refused(caught.value, BAD_INPUT, f"{bad}:/layers/blocks.1/cls", "values are not finite, the first at image 4")

    images = studies.make_images(tmp_path / "images", 1)
    paths = sorted(images.rglob("*.png"))
    items = tuple(Item(path.name, str(path.relative_to(images)), 0, "test", sha256_file(path)) for path in paths)
    backbone = load_backbone("bundled:supervised", weights=studies.save_random_weights(tmp_path / "w.safetensors"))
    with torch.no_grad():
        backbone.get_parameter("model.blocks.2.mlp.fc2.bias").fill_(torch.inf)
    with pytest.raises(NonFiniteError) as caught:
        extract(backbone, pixel_cache(images, items, 64, tmp_path / "pixels"), layer_rows=np.arange(3))
    refused(caught.value, BAD_INPUT, "activations of blocks.2", "not finite for 3 images, first 'blue000.png'")


def test_row_60_other_counts_of_images() -> None:
    with pytest.raises(ShapeError) as caught:
        heatmap([np.ones((6, 3))], [np.ones((6, 3)), np.ones((5, 3))])
    refused(caught.value, BAD_INPUT, "ys[1]", "has 5 images (need 6, as xs[0])")


# Study file and terminal


def _request(folder: Path, first: str) -> Path:
    """A study file whose first lines are given."""
    path = folder / "study.toml"
    path.write_text(f'{first}[study]\nname = "s"\n[data]\npath = "d"\n[[backbone]]\nname = "bundled:supervised"\n')
    return path


def test_row_61_misspelt_key(simtui: Callable[..., Said], tmp_path: Path) -> None:
    said = simtui("run", _request(tmp_path, "[finetune]\n\n\nlerning_rate = 1e-4\n"))
    sentence = 'study.toml line 4: unknown key "lerning_rate"; did you mean "learning_rate"?'
    refused(said, BAD_INPUT, "study.toml line 4", sentence)


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ('batch_size = "8"', 'batch_size = "8": need an integer from 1'),
        ("batch_size = 0", "batch_size = 0: need a number from 1"),
        ("seeds = 1.5", "seeds = 1.5: need an integer from 1 up to 1000"),
        ("weight_decay = nan", "weight_decay = nan: need a number"),
    ],
)
def test_row_62_wrong_type_or_range(simtui: Callable[..., Said], tmp_path: Path, setting: str, sentence: str) -> None:
    said = simtui("run", _request(tmp_path, f"[finetune]\n{setting}\n"))
    refused(said, BAD_INPUT, "study.toml line 2", sentence)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("timm:vit_tny_patch16_224.augreg_in21k", "timm:vit_tiny_patch16_224.augreg_in21k"),
        ("open_clip:ViT-B-61/openai", "open_clip:ViT-B-16/openai"),
        ("bundled:supervized", "bundled:supervised"),
    ],
)
def test_row_63_unknown_backbone(name: str, nearest: str) -> None:
    with pytest.raises(StudyError) as caught:
        load_backbone(name)
    refused(caught.value, BAD_INPUT, f'backbone "{name}"', "has no backbone of this name")
    assert f'"{nearest}"' in caught.value.fix


@pytest.mark.parametrize("limit", ["NO_COLOR", "TERM=dumb", "ASCII"])
async def test_row_64_terminal_without_colour(run_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    if limit == "NO_COLOR":
        monkeypatch.setenv("NO_COLOR", "1")
    elif limit == "TERM=dumb":
        monkeypatch.setenv("TERM", "dumb")
    else:
        monkeypatch.setattr(sys, "__stderr__", TextIOWrapper(BytesIO(), "ascii"))
    async with opened(run_path.parents[1], size=(60, 20), view="2") as pilot:
        assert app_of(pilot).is_colorless
        cells = pilot.app.screen.query_one(SimilarityMap)
        rows = [cells.render_line(y).text for y in range(2, 8)]
        assert all(sum(char.isdigit() for char in row) >= 6 for row in rows), rows
        await press(pilot, "3")
        assert " a " in text_of(pilot, "legend")
        if limit == "ASCII":
            print(written(pilot), file=sys.__stderr__)  # as Textual does


def test_row_65_no_terminal(simtui: Callable[..., Said], run_path: Path) -> None:
    said = simtui(run_path.parents[1])
    refused(said, BAD_INPUT, "standard output", 'needs a terminal; use "simtui export"')
