"""A whole study of networks whose layers are stages, by the command line, and what asks for more of its runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray

from engine.analysis.attention import study_attention
from engine.analysis.options import TableOptions
from engine.analysis.tables import table_of
from engine.backbones.facts import BackboneFacts
from engine.errors import StudyError
from engine.jobs import describe, estimate
from engine.jobs.attention import attention_of_image
from engine.jobs.forecast import Images, Speed, forecast
from engine.jobs.uncertainty import cell_uncertainty
from engine.runs.record import State
from engine.runs.results import SimilarityKey
from engine.runs.study_folder import StudyFolder
from engine.study_draft import Draft, DraftBackbone, draft_study, place_of
from simtui.study_form import Entry
from simtui.views.new_study import backbone_panel
from tests.studies import write_timm_study

NAMES = ("test_resnet.r160_in1k", "test_convnext.r160_in1k")
LINEAR = SimilarityKey("target", "feat", "linear_cka")


def simtui(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "simtui", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    path = tmp_path_factory.mktemp("cnn")
    file = write_timm_study(path, NAMES, methods=["full", "linear"], epochs=1, warmup_epochs=0)
    done = simtui("run", file, "--out", path / "out", "--wait")
    assert done.returncode == 0, done.stderr
    assert "no attention maps" in done.stderr
    return StudyFolder(path / "out")


def test_every_run_is_done_and_says_what_its_layers_are(folder: StudyFolder) -> None:
    records = folder.listing().records
    assert [each.state for each in records] == [State.DONE] * 4
    for record in records:
        provenance = record.provenance
        assert (provenance.layer_kind, provenance.poolings, provenance.paradigm) == ("stages", ("feat",), "supervised")
        assert provenance.layers == folder.results(record.run_id).layers
        with xarray.open_dataset(
            folder.run_path(record.run_id) / "results.h5", engine="h5netcdf", group="similarity/target/feat"
        ) as opened:
            assert opened["linear_cka"].dims == ("epoch", "layer_ref", "layer")


def test_tables_take_the_pooling_that_there_is(folder: StudyFolder) -> None:
    done = simtui("export", folder.path, "trajectory")
    assert done.returncode == 0, done.stderr
    header, first, *_ = done.stdout.splitlines()
    assert "linear_cka_feat_target_mean" in header
    assert first.split(",")[header.split(",").index("linear_cka_feat_target_mean")] == "1"
    done = simtui("export", folder.path, "trajectory", "--pooling", "cls")
    assert done.returncode == 2 and "this study has no such similarity" in done.stderr
    knn = simtui("export", folder.path, "forgetting")
    assert knn.returncode == 0 and len(knn.stdout.splitlines()) == 5


def test_attention_is_said_to_be_missing_wherever_it_is_asked_for(folder: StudyFolder) -> None:
    record = folder.listing().records[0]
    for ask in (study_attention, lambda f, r: attention_of_image(f, r, f.path / "x.png")):
        with pytest.raises(
            StudyError, match=r"has no attention maps: its layers are stages of maps, .*\n  fix: choose a"
        ):
            ask(folder, record)
    table = table_of(folder, "attention", TableOptions())
    assert not table.rows
    assert [note.partition(":")[0] for note in table.notes] == ["left out", "left out"]
    done = simtui("export", folder.path, "attention_map", "--run", record.run_id)
    assert done.returncode == 2 and "choose a run of a ViT" in done.stderr


def test_the_interval_of_layers_of_different_widths(folder: StudyFolder) -> None:
    record = next(each for each in folder.listing().records if each.spec.method == "full")
    found = cell_uncertainty(folder, record, LINEAR, 1)
    np.testing.assert_allclose(found.value, folder.results(record.run_id).similarity[LINEAR][1], atol=1e-4)
    assert (found.low <= found.value + 1e-9).all() and (found.value <= found.high + 1e-9).all()
    assert len(found.value) == len(record.provenance.layers)


def test_facts_speed_and_forecast(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "timm:resnet10t.c3_in1k"
    assert describe.main([name]) == 0
    facts = BackboneFacts.of(json.loads(capsys.readouterr().out))
    assert (facts.n_blocks, facts.widths, facts.n_heads, facts.n_patches) == (5, (64, 64, 128, 256, 512), 0, 0)
    assert (facts.n_poolings, facts.repository) == (1, "timm/resnet10t.c3_in1k")
    panel = " ".join(each.text for line in backbone_panel(Entry(facts, "absent", True, ""), 200) for each in line)
    assert "5 stages of 64 to 512 features, no CLS, no attention" in panel
    assert estimate.main(["timm:test_resnet.r160_in1k", "--probe", "16"]) == 0
    assert json.loads(capsys.readouterr().out)["compare_s"] > 0

    draft = Draft("s", "/data/x", "", (DraftBackbone(name),), methods=("full",), seeds=1)
    study = draft_study(draft, place_of(tmp_path, "s"))
    images = Images(7000, 1500, 4000, 7)
    found = forecast(study, images, {name: facts}, {name: Speed("cpu", "float32", 100.0, 300.0, 5e4, 0.5, 1, 2)})
    (activations,) = (part.amount for part in found.disk if part.name == "activations")
    stored = 2 * 2048 * (2 * sum(facts.widths) + 4 * 512) + 4 * images.n * 512
    assert stored < activations < stored * 1.01
