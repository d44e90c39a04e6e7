"""A study of a ViT and of a CNN, which has no CLS token: no table and no view leaves the CNN out without a word."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from click.testing import CliRunner

from engine.analysis.estimators import pooling_of
from engine.analysis.options import TableOptions
from engine.analysis.study_data import read_study
from engine.analysis.tables import DATA_TABLES, data_table
from engine.runs.results import SimilarityKey
from engine.runs.study_folder import StudyFolder
from simtui.cli import commands
from tests.simtui.driving import app_of, opened, press, text_of, written
from tests.simtui.studies import CNN, write_mixed_study

_FEAT = f"feat, not cls: 9 of 18 runs without a CLS token ({CNN})"
_CLS = f"cls: 9 of 18 runs without a CLS token ({CNN}); feat is of all"
_OF_SIMILARITY = [name for name in DATA_TABLES if name not in ("forgetting", "attention")]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two backbones, three methods, three seeds."""
    return write_mixed_study(tmp_path_factory.mktemp("mixed") / "s")


def _exported(path: Path, table: str, *options: str) -> tuple[list[dict[str, str]], str]:
    done = CliRunner().invoke(commands, ["export", str(path), table, *options])
    assert done.exit_code == 0, done.stderr
    return list(csv.DictReader(done.stdout.splitlines())), done.stderr


@pytest.mark.parametrize("name", _OF_SIMILARITY)
def test_a_table_is_of_the_pooling_that_all_have_and_says_so(mixed: Path, name: str) -> None:
    rows, said = _exported(mixed, name)
    assert _FEAT in said and rows
    if name not in ("correlation", "correlation_intervals"):
        assert {row["backbone"] for row in rows} == {"bundled:supervised", CNN}
    of_cnn = [row for row in rows if row.get("backbone") == CNN]
    similarity = [column for column in rows[0] if column.startswith("linear_cka_feat_target")]
    assert all(row[column] for row in of_cnn for column in similarity[:1])


@pytest.mark.parametrize("name", _OF_SIMILARITY)
def test_a_table_of_the_cls_token_says_who_has_none(mixed: Path, name: str) -> None:
    found = data_table(read_study(StudyFolder(mixed)), name, TableOptions(pooling="cls"))
    assert _CLS in found.notes


def test_a_layer_that_some_lack_is_said(mixed: Path) -> None:
    data = read_study(StudyFolder(mixed))
    found = data_table(data, "trajectory", TableOptions(pooling="feat", layer="block 2"))
    assert f"9 of 18 runs without layer block 2 ({CNN})" in found.notes


def test_a_similarity_that_only_some_have_is_said(mixed: Path) -> None:
    data = read_study(StudyFolder(mixed))
    half = data.only({run.record.run_id for run in data.runs if run.record.spec.backbone.name == CNN})
    assert half.partial(SimilarityKey("target", "feat", "linear_cka")) == ()
    runs = [run if run.record.spec.seed else type(run)(run.record, run.layers, {}) for run in half.runs]
    (said,) = type(half)(tuple(runs)).partial(SimilarityKey("target", "feat", "linear_cka"))
    assert said == f"3 of 9 runs without linear_cka_feat_target ({CNN})"


def test_what_is_of_one_run_goes_by_that_run(mixed: Path) -> None:
    for run, pooling in (("supervised_full_seed00", "cls"), ("in1k_full_seed00", "feat")):
        rows, _ = _exported(mixed, "heatmap", "--run", run)
        assert f"linear_cka_{pooling}_target" in rows[0]


def test_other_studies_stay_with_the_cls_token(mixed: Path) -> None:
    records = StudyFolder(mixed).listing().records
    assert pooling_of(records) == "feat"
    assert pooling_of([each for each in records if each.spec.backbone.name != CNN]) == "cls"
    assert pooling_of([]) == "cls"


def test_figures_are_of_all_runs_whatever_run_the_attention_is_of(mixed: Path, tmp_path: Path) -> None:
    out = tmp_path / "figures"
    done = CliRunner().invoke(
        commands, ["figures", str(mixed), "-o", str(out), "--only", "5", "--run", "supervised_full_seed00",
                   "--format", "png", "--dpi", "50"]
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    captions = "".join(path.read_text("utf-8") for path in out.iterdir() if path.suffix in (".txt", ".md"))
    assert _FEAT in " ".join(captions.split())


class TestViews:
    async def test_every_view_shows_the_cnn_or_says_that_it_is_left_out(self, mixed: Path) -> None:
        async with opened(mixed, size=(120, 40)) as pilot:
            assert "CKA Feat" in written(pilot)
            last_row = [text for text in written(pilot).splitlines() if "resnet" in text and "scratch" in text][-1]
            assert "–" not in last_row
            for view in "3456":
                await press(pilot, view)
                assert _FEAT in text_of(pilot, "warning"), view
            await press(pilot, "p", "3")
            assert app_of(pilot).key.pooling == "cls"
            for view in "3456":
                await press(pilot, view)
                assert _CLS in text_of(pilot, "warning"), view

    async def test_the_layer_profile_and_the_forecast_too(self, mixed: Path) -> None:
        async with opened(mixed, view="3") as pilot:
            await press(pilot, "d")
            assert _FEAT in text_of(pilot, "warning")
            await press(pilot, "4", "t")
            assert _FEAT in text_of(pilot, "warning")

    async def test_forgetting_shows_the_similarity_that_all_have(self, mixed: Path) -> None:
        async with opened(mixed, size=(160, 40), view="7") as pilot:
            assert "CKA Feat" in written(pilot) and "Feat, which all groups have" in text_of(pilot, "notes")
            (row,) = [text for text in written(pilot).splitlines() if "resnet" in text and "linear  " in text][-1:]
            assert "0.900 ± 0.000" in row

    async def test_the_map_follows_the_pooling_of_the_study(self, mixed: Path) -> None:
        async with opened(mixed, view="2") as pilot:
            assert "Feat similarity" in text_of(pilot, "summary")
            await press(pilot, "p")
            assert "CLS similarity" in text_of(pilot, "summary")

    async def test_a_filter_and_means_by_groups_are_of_the_same_similarity(self, mixed: Path) -> None:
        async with opened(mixed, size=(120, 40)) as pilot:
            await press(pilot, "/", *"cka>0.6", "enter")
            assert "12 of 18 runs" in text_of(pilot, "summary")
            await press(pilot, "escape", "b")
            row = next(text for text in written(pilot).splitlines() if "resnet" in text and "linear" in text)
            assert "0.900 ± 0.000" in row
