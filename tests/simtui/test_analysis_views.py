"""The views of the analyses, driven by keys and clicks: what they show is what the engine's tables say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from engine.analysis.options import TableOptions
from engine.analysis.study_data import read_study
from engine.analysis.tables import data_table
from engine.runs.record import read_record, write_record
from engine.runs.study_folder import StudyFolder
from engine.study import run_specs
from simtui.widgets.grid import Grid
from simtui.widgets.pictures import Pictures
from simtui.widgets.scatter_plot import ScatterPlot
from tests.simtui.driving import app_of, opened, press, text_of, until, view_of, written
from tests.simtui.studies import study_of, write_attention_maps, write_run, write_study

BACKBONES = ("bundled:supervised", "bundled:self-supervised")


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Two backbones, three methods, three seeds, four epochs."""
    path = write_study(tmp_path / "s", study_of(BACKBONES, seeds=3, epochs=4))
    write_attention_maps(path)
    return path


def _table(path: Path, name: str, options: TableOptions) -> list[dict[str, object]]:
    found = data_table(read_study(StudyFolder(path)), name, options)
    return [dict(zip(found.columns, row, strict=True)) for row in found.rows]


@pytest.mark.parametrize(("view", "key", "width"), [("5", "t", 60), ("5", "t", 80), ("4", "t", 60)])
async def test_a_table_says_how_many_columns_have_no_room(study: Path, view: str, key: str, width: int) -> None:
    async with opened(study, view=view, size=(width, 24)) as pilot:
        await press(pilot, key)
        grid = view_of(pilot).query_one(Grid)
        titles, sheet = grid.render_line(0).text, grid._sheet
        shown = [column.title for column in sheet.columns if f" {column.title} " in f"{titles} "]
        assert len(shown) < len(sheet.columns) and f" +{len(sheet.columns) - len(shown)}" in titles[-12:]
        await pilot.resize_terminal(140, 24)
        await press(pilot)
        assert " +" not in grid.render_line(0).text


async def test_views_of_all_runs_say_that_the_filter_of_runs_does_not_apply(study: Path) -> None:
    async with opened(study) as pilot:
        await press(pilot, "slash", *"full", "enter")
        for view in "34567":
            await press(pilot, view)
            assert "Of all runs, unfiltered." in text_of(pilot, "summary"), view
        await press(pilot, "1", "escape")
        for view in "34567":
            await press(pilot, view)
            assert "unfiltered" not in text_of(pilot, "summary")


class TestSpace:
    async def test_thresholds_move_and_the_counts_follow(self, study: Path) -> None:
        async with opened(study, view="4") as pilot:
            for keys, eta, epsilon in (((), 0.8, 0.02), (("[",) * 3, 0.77, 0.02), (("}", "}", "{"), 0.77, 0.025)):
                await press(pilot, *keys)
                inside = [row["inside"] for row in _table(study, "space", TableOptions(eta=eta, epsilon=epsilon))]
                expected = f"η = {eta:.2f}, ε = {epsilon:.3f}) holds {inside.count('yes')} of 18 runs"
                assert expected in text_of(pilot, "summary")

    async def test_thresholds_stay_within_what_they_can_be(self, study: Path) -> None:
        async with opened(study, view="4") as pilot:
            await press(pilot, *(("{",) * 6), *(("]",) * 25))
            assert (app_of(pilot).selection.eta, app_of(pilot).selection.epsilon) == (1.0, 0.0)

    async def test_the_cursor_goes_from_run_to_run_and_enter_opens_its_map(self, study: Path) -> None:
        async with opened(study, view="4") as pilot:
            await press(pilot, "l")
            first = text_of(pilot, "detail")
            await press(pilot, "h", "up", "j")
            assert text_of(pilot, "detail") != first
            run_id = app_of(pilot).selection.run_id
            assert run_id is not None and run_id in text_of(pilot, "detail")
            await press(pilot, "enter")
            assert view_of(pilot).VIEW == "map" and app_of(pilot).shown_run_id() == run_id

    async def test_a_click_on_a_point_chooses_it(self, study: Path) -> None:
        async with opened(study, view="4", size=(120, 40)) as pilot:
            plot = pilot.app.screen.query_one(ScatterPlot)
            await until(pilot, lambda: bool(plot._places))
            assert plot._places is not None and plot._scatter is not None
            row, (column, point) = next(
                (row, place)
                for row, places in plot._places.items()
                for place in places.items()
                if place[1].key != plot._scatter.cursor
            )
            await pilot.click(ScatterPlot, offset=(column, row + 1))
            await until(pilot, lambda: app_of(pilot).selection.run_id == point.key)

    async def test_groups_layers_probes_and_measures_step(self, study: Path) -> None:
        async with opened(study, view="4") as pilot:
            await press(pilot, "b", "b")
            assert "full" in text_of(pilot, "beside") and "supervised" not in text_of(pilot, "beside")
            await press(pilot, ".")
            assert "block 1" in text_of(pilot, "control")
            await press(pilot, ",", "m")
            assert "linear CKA (debiased)" in written(pilot)
            await press(pilot, "p")
            assert "Feat" in text_of(pilot, "control")
            await press(pilot, "o")
            assert "target" in text_of(pilot, "control")

    async def test_the_forecast_is_that_of_the_table(self, study: Path) -> None:
        async with opened(study, view="4") as pilot:
            await press(pilot, "t", "[", "<")
            rows = _table(study, "prediction", TableOptions(eta=0.79, until=2))
            assert "from epochs 1 to 2" in text_of(pilot, "control")
            assert len(pilot.app.screen.query_one(Grid)._sheet.rows) == len(rows) == 18
            await press(pilot, ">", ">", ">")
            assert app_of(pilot).selection.until == 3  # the last but one
            await press(pilot, "t")
            assert pilot.app.screen.query_one(ScatterPlot).display

    async def test_runs_under_way_are_forecast_first(self, tmp_path: Path) -> None:
        request = study_of(("bundled:supervised",), seeds=4, epochs=4)
        path = write_study(tmp_path / "s", request)
        write_run(path, next(spec for spec in run_specs(request) if spec.method == "full"), epochs_done=3)
        async with opened(path, view="4") as pilot:
            await press(pilot, "t")
            first = pilot.app.screen.query_one(Grid)._sheet.rows[0]
            assert first.cells[1].text != "done" and first.cells[-1].text == "–"

    async def test_nothing_done_is_said(self, tmp_path: Path) -> None:
        path = write_study(tmp_path / "s", study_of(BACKBONES, seeds=1, epochs=4), epochs_done=1)
        async with opened(path, view="4") as pilot:
            assert "No run is done yet." in text_of(pilot, "nothing")
            await press(pilot, "5")
            assert "No run is done yet." in text_of(pilot, "nothing")
            await press(pilot, "6")
            assert "Nothing to correlate yet." in text_of(pilot, "nothing")
            await press(pilot, "v")
            assert "over 6 points" in text_of(pilot, "summary")


class TestDistributions:
    async def test_the_figures_of_a_group_are_those_of_the_table(self, study: Path) -> None:
        async with opened(study, view="5", size=(120, 40)) as pilot:
            await press(pilot, "j")
            row = next(
                row
                for row in _table(study, "distribution", TableOptions())
                if (row["backbone"], row["method"], row["layer"]) == ("bundled:supervised", "linear", "mean of layers")
            )
            assert f"{row['mean']:.3f} ± {row['sd']:.3f}" in text_of(pilot, "detail")
            assert "supervised linear" in text_of(pilot, "detail")
            await press(pilot, "k", "k", "b")
            assert text_of(pilot, "detail").startswith("supervised n = 9")

    async def test_differences_are_those_of_the_table(self, study: Path) -> None:
        async with opened(study, view="5", size=(120, 40)) as pilot:
            await press(pilot, "t", "j")
            rows = _table(study, "comparison", TableOptions())
            grid = pilot.app.screen.query_one(Grid)
            assert len(grid._sheet.rows) == len(rows)
            assert grid._sheet.rows[0].cells[4].text == f"{rows[0]['cliffs_delta']:.2f}"
            await press(pilot, "e")
            await until(pilot, lambda: any(Path.cwd().glob("*comparison*.csv")))

    @pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60), (60, 20)])
    async def test_every_group_can_be_reached_and_fits(self, study: Path, size: tuple[int, int]) -> None:
        async with opened(study, view="5", size=size) as pilot:
            for _ in range(5):
                await press(pilot, "j")
            assert "self-supervised scratch" in text_of(pilot, "groups")


class TestCorrelation:
    async def test_the_coefficients_are_those_of_the_table(self, study: Path) -> None:
        async with opened(study, view="6") as pilot:
            row = _table(study, "correlation", TableOptions())[0]
            assert f"Pearson {row['pearson']:.2f}" in text_of(pilot, "summary")
            await press(pilot, "v")
            row = _table(study, "correlation", TableOptions(over="runs and epochs"))[0]
            assert f"Pearson {row['pearson']:.2f}" in text_of(pilot, "summary")
            assert f"over {row['n_points']} points" in text_of(pilot, "summary")

    async def test_metrics_step_and_the_cursor_opens_a_map(self, study: Path) -> None:
        async with opened(study, view="6") as pilot:
            await press(pilot, "M")
            assert text_of(pilot, "control").startswith("metric origin_knn")
            await press(pilot, "l", "h")
            run_id = app_of(pilot).selection.run_id
            assert run_id is not None and run_id in text_of(pilot, "detail")
            await press(pilot, "enter")
            assert view_of(pilot).VIEW == "map" and app_of(pilot).shown_run_id() == run_id


class TestLayers:
    async def test_the_profile_reads_out_the_layers_of_the_table(self, study: Path) -> None:
        async with opened(study, view="3", size=(120, 40)) as pilot:
            await press(pilot, "d", *(("j",) * 5))
            row = next(row for row in _table(study, "layers", TableOptions()) if row["layer"] == "block 6")
            assert f"{row['linear_cka_cls_target_drop_mean']:.3f}" in text_of(pilot, "legend")
            assert "block 6 of supervised full" in text_of(pilot, "legend")
            await press(pilot, "e")
            await until(pilot, lambda: any(Path.cwd().glob("*layers*.csv")))
            await press(pilot, "d")
            assert "epoch 4 of 4" in text_of(pilot, "control")

    async def test_the_band_steps_from_sd_to_interval_to_runs(self, study: Path) -> None:
        async with opened(study, view="3") as pilot:
            for word in ("95 % of the mean", "single runs", "± sd"):
                await press(pilot, "b")
                assert word in text_of(pilot, "control")


class TestAttention:
    async def test_layers_heads_images_and_poolings_step(self, study: Path) -> None:
        async with opened(study, view="8", size=(120, 40)) as pilot:
            assert "image 1 of 4 (target) layer block 6 head mean of heads from CLS" in text_of(pilot, "control")
            await press(pilot, "k", "right", "]", "]", "p")
            assert "image 3 of 4 (origin) layer block 5 head 1 of 2 from Feat" in text_of(pilot, "control")
            pictures = pilot.app.screen.query_one(Pictures)._pictures
            assert [each.title for each in pictures] == ["image", "pre-trained θ*", "this run", "difference"]
            assert pictures[0].note == "one"
            await press(pilot, "left", "[", "[", "[")
            assert "image 4 of 4" in text_of(pilot, "control") and "mean of heads" in text_of(pilot, "control")

    async def test_a_frozen_backbone_is_said_to_look_as_before(self, study: Path) -> None:
        async with opened(study, view="8") as pilot:
            await press(pilot, "n", "n", "n")
            assert "the backbone is frozen, so its attention is that of θ*" in text_of(pilot, "summary")
            await press(pilot, "N")
            assert "its map correlates" in text_of(pilot, "summary")

    async def test_a_study_without_maps_says_what_to_do(self, tmp_path: Path) -> None:
        path = write_study(tmp_path / "s", study_of(("bundled:supervised",), seeds=1, epochs=2))
        async with opened(path, view="8") as pilot:
            assert "kept no attention maps" in text_of(pilot, "nothing") and "fix:" in text_of(pilot, "nothing")

    async def test_a_backbone_of_stages_says_that_it_has_none_and_what_to_do(self, tmp_path: Path) -> None:
        path = write_study(tmp_path / "s", study_of(("bundled:supervised",), seeds=1, epochs=2))
        for run_path in (path / "runs").iterdir():
            record = read_record(run_path)
            provenance = replace(record.provenance, layer_kind="stages", poolings=("feat",))
            write_record(run_path, record.with_(provenance=provenance))
        async with opened(path, view="8") as pilot:
            said = text_of(pilot, "nothing")
            assert "has no attention maps: its layers are stages of maps, which have no CLS token" in said
            assert "fix: choose a run of a ViT" in said

    async def test_an_image_that_cannot_be_shown_is_one_message(self, study: Path, tmp_path: Path) -> None:
        """The weights of a made-up run were never kept."""
        async with opened(study, view="8") as pilot:
            await press(pilot, "i", *"/no/such.png", "enter")
            await until(pilot, lambda: any("weights" in str(each.message) for each in pilot.app._notifications))
            await press(pilot, "i", "escape")
            assert view_of(pilot).VIEW == "attention"

    @pytest.mark.parametrize("size", [(60, 20), (80, 24), (200, 60)])
    async def test_pictures_are_square_and_fit(self, study: Path, size: tuple[int, int]) -> None:
        async with opened(study, view="8", size=size) as pilot:
            await until(pilot, lambda: bool(pilot.app.screen.query_one(Pictures)._pictures))
            pictures = pilot.app.screen.query_one(Pictures)._pictures
            side = pictures[0].pixels.shape[0]
            assert {each.pixels.shape for each in pictures} == {(side, side, 3)} and side >= 8
            assert len(pictures) * (side + 2) <= size[0] + 2
            assert "block 6" in text_of(pilot, "layers")


class TestExport:
    async def test_a_file_is_named_by_what_was_chosen_and_its_sources_lie_beside_it(self, study: Path) -> None:
        async with opened(study, view="4") as pilot:
            await press(pilot, "[", "p", ".", "e")
            path = Path.cwd() / "sample_study-space-block-1-feat-linear_cka-eta0.79.csv"
            sources = path.with_name(f"{path.name}.sources.json")
            await until(pilot, sources.exists)
            found = json.loads(sources.read_text())
            assert (found["options"]["eta"], found["options"]["pooling"]) == (0.79, "feat") and len(found["runs"]) == 18

    @pytest.mark.parametrize("keys", [("2", "["), ("8", "right"), ("6", "M"), ("3", "d")])
    async def test_every_view_writes_its_sources(self, study: Path, keys: tuple[str, ...]) -> None:
        async with opened(study) as pilot:
            await press(pilot, *keys, "e")
            await until(pilot, lambda: any(Path.cwd().glob("*.sources.json")))
            found = json.loads(next(Path.cwd().glob("*.sources.json")).read_text())
            assert found["runs"] and found["options"]

    async def test_groups_of_one_view_do_not_change_what_another_cannot_group(self, study: Path) -> None:
        async with opened(study, view="7") as pilot:
            await press(pilot, "b", "b", "3", "d", "e")
            await until(pilot, lambda: any(Path.cwd().glob("*layers*.csv")))
            rows = next(Path.cwd().glob("*layers*.csv")).read_text().splitlines()
            assert rows[0].startswith("backbone,method,layer") and len(rows) == 1 + 6 * 6
