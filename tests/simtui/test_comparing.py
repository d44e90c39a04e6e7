"""`simtui compare`: in print, in a file, in the app; and what the app says of a folder that holds a comparison."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.errors import MachineError
from engine.files import sha256_file
from engine.jobs.compare import ComparisonRequest, parse_checkpoint
from engine.runs.record import Provenance, Reference, RunRecord, State, read_record, write_record
from engine.runs.results import Results, SimilarityKey, write_results
from engine.study import BackboneSection, FinetuneSection, MeasureSection, RunSpec
from simtui import comparing
from tests.simtui.driving import app_of, opened, press, text_of, until, view_of, written
from tests.studies import make_images, save_random_weights, save_timm_weights

RESNET = "timm:test_resnet.r160_in1k"


def simtui(cache: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "simtui", "compare", *map(str, arguments)]
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files")
    make_images(path / "images", 8)
    save_random_weights(path / "vit.safetensors")
    save_timm_weights(path / "resnet.safetensors", RESNET.partition(":")[2])
    return path


def test_the_map_in_print_in_a_file_and_at_once_the_second_time(files: Path, tmp_path: Path) -> None:
    models = f"bundled:supervised={files}/vit.safetensors", f"{RESNET}={files}/resnet.safetensors"
    asked = (*models, "--images", files / "images", "--n", 20)
    first = simtui(tmp_path, *asked)
    assert first.returncode == 0, first.stderr
    lines = first.stdout.splitlines()
    assert lines[0].strip() == "linear CKA (biased), Feat"
    assert lines[1].split() == ["A", "↓", "B", "→", "act1", "layer1", "layer2", "layer3", "layer4"]
    printed = np.array([[float(cell) for cell in line.split()[1:]] for line in lines[2:8]])
    assert "cls: left out, as timm:test_resnet" in first.stdout
    started_s = time.monotonic()
    second = simtui(tmp_path, *asked, "-o", tmp_path / "map.csv")
    assert second.returncode == 0, second.stderr
    assert second.stdout == "" and "wrote 30 rows" in second.stderr
    assert time.monotonic() - started_s < 20  # nothing that loads torch was started: that is told by the next
    with (tmp_path / "map.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [rows[0]["layer_ref"], rows[7]["layer_ref"], rows[7]["layer"]] == ["blocks.0", "blocks.1", "layer2"]
    values = np.array([float(row["linear_cka_feat_target"]) for row in rows]).reshape(6, 5)
    np.testing.assert_allclose(values, printed, atol=6e-4)
    sources = json.loads((tmp_path / "map.csv.sources.json").read_text())
    (run,) = sources["runs"].values()
    assert run["weights_sha256"] == sha256_file(files / "resnet.safetensors")
    assert run["reference"]["weights_sha256"] == sha256_file(files / "vit.safetensors")
    assert run["probe_digest"] and run["images_digest"] and run["images"] == str((files / "images").resolve())
    assert sources["options"]["pooling"] == "feat" and sources["options"]["measure"] == "linear_cka, debiased_cka"


def test_what_was_computed_is_not_asked_of_a_process_again(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    model = parse_checkpoint(f"bundled:supervised={files}/vit.safetensors")
    request = ComparisonRequest(model, model, files / "images", 20)
    folder = comparing.compared(request)

    def refused(request: ComparisonRequest) -> Path:
        raise AssertionError

    monkeypatch.setattr(comparing, "_computed", refused)
    assert comparing.compared(request).path == folder.path


def test_how_images_are_read_comes_to_the_process_that_reads_them(files: Path, tmp_path: Path) -> None:
    shutil.copytree(files / "images", tmp_path / "some")
    for name in ("bad", "worse"):
        next((tmp_path / "some").iterdir()).joinpath(f"{name}.png").write_bytes(b"no picture")
    model = f"bundled:supervised={files}/vit.safetensors"
    asked = (model, model, "--images", tmp_path / "some", "--n", 26, "--print")
    refused = simtui(tmp_path / "cache", *asked)
    assert refused.returncode == 2 and "images cannot be used (limit 5%)" in refused.stderr
    done = simtui(tmp_path / "cache", *asked, "--max-skipped", "0.5", "--window", "0,255")
    assert done.returncode == 0 and "images: 24 of" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("bundled:x", "bundled:supervised"), 'checkpoint "bundled:x": bundled has no backbone of this name'),
        (("vit", "bundled:supervised"), 'checkpoint "vit": no family'),
        (("bundled:supervised=none.safetensors", "bundled:supervised"), "none.safetensors: no such file"),
        (("bundled:supervised", "bundled:supervised", "--images", "nowhere"), "nowhere: no such folder"),
        (("bundled:supervised", "bundled:supervised", "--measure", "cka"), "no such measure\n  fix: choose one of lin"),
        (("bundled:supervised", "bundled:supervised", "--format", "csv"), "--format: is of a file"),
        (("bundled:supervised", "bundled:supervised", "--frame", "0"), "are of --images\n  fix: add --images PATH"),
        (("bundled:supervised", "bundled:supervised", "--n", "8", "--measure", "mutual_knn"), "needs 12 images"),
    ],
)
def test_errors_are_one_message_and_exit_code_2(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    done = simtui(tmp_path, *arguments)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr and "fix: " in done.stderr and "Traceback" not in done.stderr


def test_help_has_examples(tmp_path: Path) -> None:
    done = simtui(tmp_path, "--help")
    assert done.returncode == 0 and "Examples:" in done.stdout and "NAME=FILE.safetensors" in done.stdout


def test_a_process_that_dies_is_said_to_have(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    dying = tmp_path / "dying"
    dying.write_text("#!/bin/sh\necho not json\necho it broke >&2\nexit 9\n")
    dying.chmod(0o755)
    monkeypatch.setattr(comparing.sys, "executable", str(dying))
    model = parse_checkpoint(f"bundled:supervised={files}/vit.safetensors")
    with pytest.raises(MachineError, match=r"its process ended with code 9 \(it broke\)"):
        comparing.compared(ComparisonRequest(model, model, files / "images", 20))


def made_comparison(path: Path, n_rows: int = 3, n: int = 5, *, is_same: bool = False) -> Path:
    """The folder of a comparison with known figures: cell (i, j) is (n · i + j) / 100."""
    key = SimilarityKey("target", "feat", "linear_cka")
    layers = tuple(f"layer{i}" for i in range(n))
    rows = () if is_same else tuple(f"blocks.{i}" for i in range(n_rows))
    n_rows = n if is_same else n_rows
    matrix = (np.arange(n)[None] + n * np.arange(n_rows)[:, None]) / 100
    results = Results(layers, layers_ref=rows).with_epoch({key: matrix}, {})
    spec = RunSpec(
        "A × B", "photos", BackboneSection(RESNET), "compared", 0, 0, 500, None, FinetuneSection(),
        MeasureSection(("linear_cka",), ()), "none", attention_n=0,
    )  # fmt: skip
    provenance = Provenance(
        weights_checkpoint=f"{RESNET}=/long/way/to/resnet.safetensors", layers=layers, poolings=("feat",),
        n_features=40, n_probe=500, layer_kind="stages",
    )  # fmt: skip
    reference = Reference("bundled:supervised", "bundled:supervised", layers=rows or layers, n_features=32)
    run_path = path / "runs" / "one"
    run_path.mkdir(parents=True)
    write_results(run_path, results)
    write_record(
        run_path, RunRecord("one", spec, State.DONE, epochs_done=0, provenance=provenance, reference=reference)
    )
    (path / "study.toml").write_text(
        f'[study]\nname = "A × B"\nkind = "comparison"\n[data]\npath = "/photos"\n[[backbone]]\nname = "{RESNET}"\n'
    )
    return path


class TestApp:
    @pytest.mark.parametrize("size", [(80, 24), (120, 40)])
    async def test_rows_and_columns_are_other_layers(self, tmp_path: Path, size: tuple[int, int]) -> None:
        async with opened(made_comparison(tmp_path / "s"), size=size, view="2") as pilot:
            shown = written(pilot)
            assert "blocks.2" in shown and "layer4" in shown
            summary = text_of(pilot, "summary")
            summary = " ".join(summary.split())
            assert "A (rows): bundled:supervised." in summary
            assert f"B (columns): {RESNET}=resnet.safetensors; other layers, so no diagonal." in summary
            assert summary.startswith(
                "Most alike are blocks.2 of A and layer4 of B (0.14), Feat on 500 images of photos."
            )
            assert "nothing was trained, there are no epochs" in text_of(pilot, "epochs")
            await press(pilot, *["down"] * 9, *["right"] * 9)
            assert (app_of(pilot).selection.row, app_of(pilot).selection.column) == (2, 4)
            assert "0.140" in text_of(pilot, "readout") and "A blocks.2 × B layer4" in text_of(pilot, "readout")
            await press(pilot, "up")
            assert "0.090" in text_of(pilot, "readout")
            if size[0] == 120:
                side = text_of(pilot, "side")
                assert "each layer of B, and the layer" in side and "itself" not in side
                assert "0.10 blocks.2" in " ".join(side.split())
            await press(pilot, "y")
            assert "most like" in written(pilot) and "itself" not in written(pilot)

    async def test_of_the_same_layers_the_diagonal_is_read(self, tmp_path: Path) -> None:
        async with opened(made_comparison(tmp_path / "s", is_same=True), size=(120, 40), view="2") as pilot:
            assert "no diagonal" not in text_of(pilot, "summary")
            assert "same-named layers of A and B" in text_of(pilot, "side")
            await press(pilot, "y")
            assert "itself" not in text_of(pilot, "side")

    async def test_what_the_images_lack_stands_above_the_map(self, tmp_path: Path) -> None:
        path = made_comparison(tmp_path / "s")
        record = read_record(path / "runs" / "one")
        notes = "taken as they lie, without labels: no", "left out: 4 of 28 images, which cannot be used; first a"
        write_record(path / "runs" / "one", record.with_(provenance=replace(record.provenance, notes=notes)))
        async with opened(path, view="2") as pilot:
            said = " ".join(text_of(pilot, "warning").split())
            assert f"! {notes[0]}" in said and f"! {notes[1]}" in said

    async def test_views_that_need_training_say_so(self, tmp_path: Path) -> None:
        async with opened(made_comparison(tmp_path / "s")) as pilot:
            assert "Two checkpoints, compared as they are" in text_of(pilot, "summary")
            assert "A bundled:supervised" in written(pilot)
            for key in "3456789":
                await press(pilot, key)
                assert "This is a comparison of two checkpoints: nothing was trained" in text_of(pilot, "nothing")
            await press(pilot, "2", "enter")
            assert view_of(pilot).VIEW == "map"

    async def test_export_pin_and_interval(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = made_comparison(tmp_path / "s")
        monkeypatch.chdir(tmp_path)
        async with opened(path, size=(120, 40), view="2") as pilot:
            await press(pilot, "e")
            await until(pilot, lambda: any(tmp_path.glob("*heatmap*.csv")))
            (file,) = tmp_path.glob("*heatmap*.csv")
            assert len(file.read_text().splitlines()) == 16
            await press(pilot, "c", "i")
            await until(pilot, lambda: "keeps no activations" in text_of(pilot, "uncertainty"))
