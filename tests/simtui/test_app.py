"""The app, driven by keys: every view, every action, what stays when data or the terminal change."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest
from rich.cells import cell_len
from textual.command import CommandPalette
from textual.pilot import Pilot

from engine.analysis.options import MEAN_OF_LAYERS
from engine.lock import locked
from engine.measures import MEASURES
from engine.runs.record import State, read_record, write_record
from engine.study import run_specs
from simtui.app import ReaderNews
from simtui.reader import Answer, Broken, RunQuestion, Snapshot
from simtui.screens.help import HelpScreen
from simtui.widgets.grid import Grid
from simtui.widgets.lines import Lines
from simtui.widgets.similarity_map import SimilarityMap
from tests.simtui.driving import app_of, opened, press, text_of, until, view_of, written
from tests.simtui.studies import accuracy, similarity, study_of, write_run, write_study

SMALL = study_of(("bundled:supervised",), seeds=1, epochs=2)


def _cursor(pilot: Pilot[None]) -> tuple[int, int]:
    shown = pilot.app.screen.query_one(SimilarityMap)
    return shown.row, shown.column


def _rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


async def test_numbers_open_the_views(study: Path) -> None:
    async with opened(study) as pilot:
        for key, view in (
            ("2", "map"),
            ("3", "trajectories"),
            ("4", "space"),
            ("5", "distributions"),
            ("6", "correlation"),
            ("7", "forgetting"),
            ("1", "runs"),
        ):
            await press(pilot, key)
            assert view == view_of(pilot).VIEW
            assert text_of(pilot, "summary")


async def test_the_cursor_walks_over_the_runs_and_enter_opens_the_map(study: Path) -> None:
    async with opened(study) as pilot:
        grid = pilot.app.screen.query_one(Grid)
        first = grid.key
        await press(pilot, "j", "down", "k")
        second = grid.key
        assert second != first
        await press(pilot, "G")
        assert grid.key == app_of(pilot).snapshot.records[-1].run_id  # type: ignore[union-attr]
        await press(pilot, "g", "pagedown", "pageup", "end", "home", "j", "enter")
        assert view_of(pilot).VIEW == "map"
        assert app_of(pilot).shown_run_id() == second
        assert "seed 1" in text_of(pilot, "summary")


async def test_the_map_reads_out_the_cell_under_the_cursor(study: Path) -> None:
    async with opened(study, view="2") as pilot:
        await press(pilot, "j", "l", "l", "down", "right", "h", "k")
        assert _cursor(pilot) == (1, 2)
        text = text_of(pilot, "readout")
        assert text.startswith(f"{similarity('full', 0, 4, 1, 2):.3f} ")
        assert "pre-trained block 2 × this run block 3" in text
        await press(pilot, "h", "h", "h", "k", "k")
        assert _cursor(pilot) == (0, 0)
        app_of(pilot).select(row=5, column=5)
        await press(pilot, "l", "j")
        assert _cursor(pilot) == (5, 5)


async def test_the_map_steps_through_epochs_poolings_measures_and_runs(study: Path) -> None:
    async with opened(study, view="2") as pilot:
        await press(pilot, "left_square_bracket", "left_square_bracket", "left_square_bracket")
        assert "epoch 1:" in text_of(pilot, "summary") and "epoch 1 of 4" in text_of(pilot, "epochs")
        await press(pilot, *["left_square_bracket"] * 5)
        assert "epoch 0 of 4" in text_of(pilot, "epochs") and "before training" in text_of(pilot, "epochs")
        await press(pilot, *["right_square_bracket"] * 9)
        assert app_of(pilot).selection.epoch is None
        await press(pilot, "p")
        assert "Feat similarity" in text_of(pilot, "summary") and "Feat" in text_of(pilot, "readout")
        assert text_of(pilot, "readout").startswith(f"{0.9 * similarity('full', 0, 4, 0, 0):.3f} ")
        assert "inflated" in text_of(pilot, "warning")
        await press(pilot, "m")
        assert "linear CKA (debiased)" in text_of(pilot, "readout") and not text_of(pilot, "warning")
        await press(pilot, "n")
        assert "seed 1" in text_of(pilot, "summary") and app_of(pilot).key.measure == "debiased_cka"
        await press(pilot, "N", "N")
        assert "scratch" in text_of(pilot, "summary")


async def test_every_measure_of_the_study_is_stepped_through_and_kept_between_views(tmp_path: Path) -> None:
    measures = ("rsa", "procrustes", "linear_cka")
    write_study(tmp_path / "s", study_of(("bundled:supervised",), seeds=1, epochs=2, measures=measures))
    async with opened(tmp_path / "s", view="3") as pilot:
        assert "RSA (Spearman), CLS" in written(pilot)
        await press(pilot, "m", "2")
        assert "Procrustes similarity, CLS" in text_of(pilot, "readout")
        await press(pilot, "m")
        assert "linear CKA (biased), CLS" in text_of(pilot, "readout")
        await press(pilot, "m", "3")
        assert "RSA (Spearman), CLS" in written(pilot)


async def test_values_below_0_stand_apart_in_the_map(study: Path) -> None:
    async with opened(study, view="2") as pilot:
        snapshot = app_of(pilot).snapshot
        assert snapshot is not None
        scratch = next(record.run_id for record in snapshot.records if record.spec.method == "scratch")
        app_of(pilot).select(run_id=scratch, row=0, column=5)
        await press(pilot, "m", "l")  # debiased CKA is 0.08 lower
        values = [similarity("scratch", 0, 4, 0, j) - 0.08 for j in range(6)]
        assert values[5] < -0.005 and values[3] > 0.005
        assert text_of(pilot, "readout").startswith(f"{values[5]:.3f} ")
        expected = [f"{value:z.2f}".replace("-0.", "-.") for value in values]
        for size in ((80, 24), (60, 20), (140, 40)):
            await pilot.resize_terminal(*size)
            await pilot.pause()
            shown = pilot.app.screen.query_one(SimilarityMap)
            lines = ("".join(s.text for s in shown.render_line(y)) for y in range(2, shown.size.height))
            cells = next(line for line in lines if "block 1 " in line).replace("▌", " ").replace("▐", " ")
            assert cells.split()[2:] == expected, size


async def test_enter_on_a_cell_opens_the_trajectory_of_its_block(study: Path) -> None:
    async with opened(study, view="2") as pilot:
        await press(pilot, "l", "l", "l", "enter")
        assert view_of(pilot).VIEW == "trajectories"
        assert "layer block 4 (4 of 6)" in text_of(pilot, "control")
        assert "methods of supervised" in text_of(pilot, "control")


async def test_trajectories_step_through_layers_epochs_and_groups(study: Path) -> None:
    async with opened(study, view="3") as pilot:
        assert app_of(pilot).selection.layer == MEAN_OF_LAYERS
        await press(pilot, "j")
        assert "of block 1 at epoch 4, over 2 seeds" in text_of(pilot, "summary")
        await press(pilot, "k", "k")
        assert "layer block 6 (6 of 6)" in text_of(pilot, "control")
        await press(pilot, "left_square_bracket")
        assert "at epoch 3" in text_of(pilot, "legend")
        await press(pilot, "right_square_bracket", "right_square_bracket")
        assert "at epoch 4" in text_of(pilot, "legend")
        await press(pilot, "n")
        assert "methods of self-supervised" in text_of(pilot, "control")
        await press(pilot, "v")
        assert "backbones, full" in text_of(pilot, "control")
        await press(pilot, "N")
        assert "backbones, scratch" in text_of(pilot, "control")
        await press(pilot, "v")
        assert "all backbones and methods" in text_of(pilot, "control")
        assert text_of(pilot, "legend").count("n = 2") == 6
        await press(pilot, "n", "v", "p", "m")
        assert "linear CKA (debiased), Feat" in written(pilot)


async def test_forgetting_reads_out_its_rows(study: Path) -> None:
    async with opened(study, view="7") as pilot:
        assert text_of(pilot, "summary").startswith("Origin k-NN drops most for full, bundled:")
        await press(pilot, "j")
        assert "linear · n = 2" in text_of(pilot, "detail")
        await press(pilot, "end")
        assert "bundled:self-supervised · self-supervised · scratch" in text_of(pilot, "detail")
        await press(pilot, "1", "7")
        assert "scratch" in text_of(pilot, "detail")


@pytest.mark.parametrize(
    ("view", "name", "n_rows"),
    [("1", "sample_study-runs.csv", 12), ("3", "sample_study-trajectory-linear_cka.csv", 15),
     ("4", "sample_study-space-linear_cka.csv", 12),
     ("5", "sample_study-distribution-linear_cka.csv", 12), ("7", "sample_study-forgetting.csv", 6)],
)  # fmt: skip
async def test_e_writes_what_is_on_the_screen(study: Path, view: str, name: str, n_rows: int) -> None:
    async with opened(study, view=view) as pilot:
        await press(pilot, "e", "e")
        second_path = Path.cwd() / name.replace(".csv", "-2.csv")
        await until(pilot, second_path.exists)
        assert len(_rows(Path.cwd() / name)) == n_rows
        await until(pilot, lambda: any(str(Path.cwd() / name) in each.message for each in pilot.app._notifications))


async def test_e_on_the_map_writes_the_matrix_of_its_epoch(study: Path) -> None:
    async with opened(study, view="2") as pilot:
        await press(pilot, "left_square_bracket", "e")
        await until(pilot, lambda: list(Path.cwd().glob("*.csv")))
        path = next(Path.cwd().glob("*.csv"))
        assert path.name.startswith("sample_study-heatmap-bundled-supervised_full_seed00") and "epoch3" in path.name
        rows = _rows(path)
        assert len(rows) == 36 and {row["epoch"] for row in rows} == {"3"}
        cell = next(row for row in rows if (row["layer_ref"], row["layer"]) == ("block 2", "block 5"))
        assert float(cell["linear_cka_cls_target"]) == pytest.approx(similarity("full", 0, 3, 1, 4), abs=1e-6)


async def test_an_export_that_fails_says_why(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simtui.exporting.os.access", lambda *_: False)
    async with opened(study) as pilot:
        await press(pilot, "e")
        await until(pilot, lambda: any("cannot be written" in each.message for each in pilot.app._notifications))


async def test_help_says_what_the_view_shows_and_goes_away(study: Path) -> None:
    async with opened(study, view="2") as pilot:
        await press(pilot, "question_mark")
        assert isinstance(pilot.app.screen, HelpScreen)
        assert "pre-trained model (rows)" in text_of(pilot, "help") and "one epoch back" in text_of(pilot, "help")
        await pilot.press("escape")
        assert view_of(pilot).VIEW == "map"


async def test_the_palette_lists_the_actions_of_the_view(study: Path) -> None:
    async with opened(study) as pilot:
        titles = {command.title for command in app_of(pilot).get_system_commands(pilot.app.screen)}
        assert {"Map of this run", "Export the view as CSV", "Leave"} <= titles
        command = next(c for c in app_of(pilot).get_system_commands(pilot.app.screen) if c.title == "Forgetting view")
        command.callback()
        await pilot.pause()
        assert view_of(pilot).VIEW == "forgetting"
        await pilot.press("ctrl+p")
        await pilot.pause()
        assert isinstance(pilot.app.screen, CommandPalette)


async def test_q_quits(study: Path) -> None:
    async with opened(study, view="3") as pilot:
        await pilot.press("q")
        await pilot.pause()
        assert pilot.app.return_code == 0


async def test_clicks_do_what_keys_do(study: Path) -> None:
    async with opened(study) as pilot:
        await pilot.click("#grid", offset=(5, 3))
        assert app_of(pilot).selection.run_id == app_of(pilot).snapshot.records[2].run_id  # type: ignore[union-attr]
        await pilot.click("#grid", offset=(5, 3))
        await until(pilot, lambda: view_of(pilot).VIEW == "map" and "Linear" in text_of(pilot, "summary"))
        layout = pilot.app.screen.query_one(SimilarityMap)._layout
        assert layout is not None
        place = (layout.x_of(3) + 1, layout.lines_of(1).start)
        await pilot.click("#map", offset=place)
        assert _cursor(pilot) == (1, 3)
        await pilot.click("#map", offset=place)
        await until(pilot, lambda: view_of(pilot).VIEW == "trajectories")
        await pilot.click("#tabs", offset=(3, 0))
        await until(pilot, lambda: view_of(pilot).VIEW == "runs")


async def test_the_wheel_moves_the_cursor(study: Path) -> None:
    async with opened(study) as pilot:
        grid = pilot.app.screen.query_one(Grid)
        first = grid.key
        grid.on_mouse_scroll_down()
        assert grid.key != first
        grid.on_mouse_scroll_up()
        assert grid.key == first


class TestLive:
    async def test_a_rewritten_record_appears_and_the_cursor_stays(self, small_study: Path) -> None:
        async with opened(small_study) as pilot:
            await press(pilot, "j")
            path = small_study / "runs" / run_specs(SMALL)[0].run_id
            write_record(path, read_record(path).with_(state=State.FAILED, reason="out of memory"))
            await until(pilot, lambda: "1 failed" in text_of(pilot, "summary"))
            assert "✗ failed" in written(pilot)
            assert pilot.app.screen.query_one(Grid).key == run_specs(SMALL)[1].run_id

    async def test_a_new_epoch_is_followed_only_where_the_last_one_is_shown(self, tmp_path: Path) -> None:
        study = study_of(("bundled:supervised",), seeds=1, epochs=6)
        write_study(tmp_path / "s", study, epochs_done=3)
        spec = run_specs(study)[0]
        async with opened(tmp_path / "s", view="2") as pilot:
            await press(pilot, "l")
            assert "epoch 3 of 3" in text_of(pilot, "epochs")
            write_run(tmp_path / "s", spec, epochs_done=4)
            await until(pilot, lambda: "epoch 4 of 4" in text_of(pilot, "epochs"))
            assert _cursor(pilot) == (0, 1)
            await press(pilot, "left_square_bracket")
            write_run(tmp_path / "s", spec, epochs_done=5)
            await until(pilot, lambda: "epoch 3 of 5" in text_of(pilot, "epochs"))

    async def test_trajectories_grow(self, tmp_path: Path) -> None:
        study = study_of(("bundled:supervised",), seeds=1, epochs=6)
        write_study(tmp_path / "s", study, epochs_done=3)
        async with opened(tmp_path / "s", view="3") as pilot:
            write_run(tmp_path / "s", run_specs(study)[0], epochs_done=6)
            await until(pilot, lambda: "epoch 6 of 6" in text_of(pilot, "control"))
            assert f"{accuracy('full', 0, 6):.3f}" in text_of(pilot, "legend")

    async def test_a_running_study_shows_its_progress(self, small_study: Path) -> None:
        async with opened(small_study) as pilot:
            assert not pilot.app.screen.query_one("#progress").display
            with locked(small_study / "study.lock"):
                await until(pilot, lambda: "3 of 3 runs" in text_of(pilot, "progress"))
                assert pilot.app.screen.query_one("#progress").display
            await until(pilot, lambda: not pilot.app.screen.query_one("#progress").display)

    async def test_a_first_run_appears(self, tmp_path: Path) -> None:
        write_study(tmp_path / "s", SMALL)
        import shutil

        shutil.rmtree(tmp_path / "s" / "runs")
        async with opened(tmp_path / "s") as pilot:
            for view in "1234":
                await press(pilot, view)
                assert "No " in text_of(pilot, "nothing")
            await press(pilot, "1")
            write_run(tmp_path / "s", run_specs(SMALL)[0])
            await until(pilot, lambda: "1 run (" in text_of(pilot, "summary"))
            assert not pilot.app.screen.query_one("#nothing").display

    async def test_nothing_is_drawn_while_nothing_happens(self, study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        async with opened(study, view="2") as pilot:
            await pilot.pause(0.2)
            drawn: list[object] = []
            monkeypatch.setattr(type(pilot.app.screen), "_compositor_refresh", lambda *_: drawn.append(1))
            await pilot.pause(0.4)
            assert not drawn

    async def test_stale_answers_are_dropped(self, study: Path) -> None:
        async with opened(study, view="2") as pilot:
            app = app_of(pilot)
            before = text_of(pilot, "summary")
            app.post_message(ReaderNews(Answer(RunQuestion("another run"), None)))
            app.post_message(ReaderNews(Snapshot(Path("another study"), "another")))
            await pilot.pause()
            assert text_of(pilot, "summary") == before and app.snapshot is not None
            assert app.snapshot.name == "sample_study"

    async def test_news_that_comes_while_the_app_ends_is_dropped(self, study: Path) -> None:
        async with opened(study) as pilot:
            app = app_of(pilot)
            assert app.snapshot is not None
            news = replace(app.snapshot, name="later")
        app.on_reader_news(ReaderNews(news))
        assert app.snapshot.name == "sample_study"


class TestStates:
    async def test_a_queued_and_a_failed_run_say_so_on_the_map(self, small_study: Path) -> None:
        specs = run_specs(SMALL)
        for spec, state, reason in ((specs[0], State.QUEUED, ""), (specs[1], State.FAILED, "loss is not finite")):
            (small_study / "runs" / spec.run_id / "results.h5").unlink()
            write_run(small_study, spec, epochs_done=-1, state=state, reason=reason)
        async with opened(small_study, view="2") as pilot:
            assert "no results yet; this run is queued" in text_of(pilot, "nothing")
            await press(pilot, "n")
            assert "failed before its first epoch. loss is not finite" in text_of(pilot, "nothing")
            await press(pilot, "e")
            assert any("nothing to export" in each.message for each in pilot.app._notifications)
            await press(pilot, "n")
            assert "bundled:supervised" in text_of(pilot, "summary")

    async def test_damaged_results_say_what_mends_them(self, small_study: Path) -> None:
        run_id = run_specs(SMALL)[0].run_id
        (small_study / "runs" / run_id / "results.h5").write_bytes(b"x" * 99)
        async with opened(small_study, view="2") as pilot:
            assert "results.h5" in text_of(pilot, "nothing") and "fix: rm -r " in text_of(pilot, "nothing")
            await press(pilot, "j", "p", "m", "enter", "left_square_bracket")
            await press(pilot, "3")
            assert "1 run with damaged results left out" in text_of(pilot, "warning")

    async def test_damaged_records_say_what_mends_them(self, small_study: Path) -> None:
        (small_study / "runs" / run_specs(SMALL)[0].run_id / "run.json").write_text("{")
        async with opened(small_study) as pilot:
            await press(pilot, "G")
            assert "fix: rm -r " in text_of(pilot, "detail")
            await press(pilot, "enter")
            assert "fix: rm -r " in text_of(pilot, "nothing")

    async def test_only_damaged_results_are_an_error_in_the_trajectories_too(self, small_study: Path) -> None:
        for spec in run_specs(SMALL):
            (small_study / "runs" / spec.run_id / "results.h5").write_bytes(b"x")
        async with opened(small_study, view="3") as pilot:
            assert "fix: rm -r " in text_of(pilot, "nothing")
            await press(pilot, "j", "n", "v", "p", "left_square_bracket")

    async def test_a_folder_that_is_no_study(self, tmp_path: Path) -> None:
        async with opened(tmp_path) as pilot:
            for view in "1234":
                await press(pilot, view, "j", "e", "enter")
                assert "not a study folder" in text_of(pilot, "nothing")

    async def test_a_run_that_is_gone(self, small_study: Path) -> None:
        import shutil

        async with opened(small_study, view="2") as pilot:
            await press(pilot, "n")
            shutil.rmtree(small_study / "runs" / run_specs(SMALL)[1].run_id)
            await until(pilot, lambda: "not there any more" in text_of(pilot, "nothing"))
            await press(pilot, "n")
            assert "bundled:supervised" in text_of(pilot, "summary")

    async def test_one_seed_has_no_sd(self, small_study: Path) -> None:
        async with opened(small_study, view="3") as pilot:
            assert "± –" in text_of(pilot, "legend") and "n = 1" in text_of(pilot, "legend")
            await press(pilot, "7")
            assert "0.640 ± –" in written(pilot)

    async def test_a_study_without_an_origin_set(self, tmp_path: Path) -> None:
        write_study(tmp_path / "s", study_of(("bundled:supervised",), seeds=1, epochs=1, has_origin=False))
        async with opened(tmp_path / "s", view="7") as pilot:
            assert text_of(pilot, "summary") == "This study has no origin set."
            assert "add [origin] to the study file" in text_of(pilot, "notes")

    async def test_a_defect_of_the_reader_ends_the_app_with_its_traceback(self, study: Path) -> None:
        with pytest.raises(ZeroDivisionError, match="a defect"):
            async with opened(study) as pilot:
                pilot.app.post_message(ReaderNews(Broken(ZeroDivisionError("a defect"))))
                await pilot.pause()


async def test_several_studies_are_turned_through(study: Path, small_study: Path) -> None:
    async with opened(study, small_study) as pilot:
        assert "(1/2) · synthetic" in text_of(pilot, "tabs")
        await press(pilot, "j", "w")
        await until(pilot, lambda: text_of(pilot, "summary").startswith("3 runs"))
        assert "(2/2) · synthetic" in text_of(pilot, "tabs")
        await press(pilot, "2")
        assert "bundled:supervised, seed 0" in text_of(pilot, "summary")
        await press(pilot, "w")
        await until(pilot, lambda: "epoch 4 of 4" in text_of(pilot, "epochs"))


@pytest.mark.parametrize("width", [80, 100, 110, 120, 130, 140, 160])
async def test_the_tabs_give_way_before_the_name_of_the_study_does(tmp_path: Path, width: int) -> None:
    made = study_of()
    for name in ("skin-lesions-2018", "of-a-name-that-is-as-long-as-names-get"):
        path = write_study(tmp_path / name, replace(made, study=replace(made.study, name=name)))
        async with opened(path, path, size=(width, 24)) as pilot:
            tabs = text_of(pilot, "tabs").rstrip()
            assert tabs.endswith("(1/2) · synthetic")
            head, _, tail = tabs.removesuffix(" (1/2) · synthetic").rpartition(" ")[2].partition("…")
            assert name.startswith(head) and name.endswith(tail)
            assert (head == name) or (len(name) > 24 <= len(f"{head}…{tail}"))


async def test_the_only_study_has_no_next(study: Path) -> None:
    async with opened(study) as pilot:
        await press(pilot, "w")
        assert any("only one study" in each.message for each in pilot.app._notifications)


class TestSizes:
    @pytest.mark.parametrize("view", "1234")
    async def test_any_size_is_survived_and_nothing_is_lost(self, study: Path, view: str) -> None:
        async with opened(study) as pilot:
            await press(pilot, "j", "2", "j", "l", "left_square_bracket", view)
            before, selection = written(pilot), app_of(pilot).selection
            for size in ((20, 5), (1, 1), (400, 100), (60, 19), (80, 24)):
                await pilot.resize_terminal(*size)
                await pilot.pause()
                is_small = size[0] < 60 or size[1] < 20
                assert pilot.app.screen.query_one("#small").display == is_small
                assert pilot.app.screen.query_one("#body").display != is_small
            assert app_of(pilot).selection == selection
            await until(pilot, lambda: written(pilot) == before)

    @pytest.mark.parametrize("size", [(80, 24), (120, 40)])
    async def test_no_label_of_a_measure_is_cut(self, tmp_path: Path, size: tuple[int, int]) -> None:
        measures = tuple(sorted(MEASURES, key=lambda name: -len(MEASURES[name].label)))[:4]
        study = study_of(("bundled:supervised",), seeds=2, epochs=2, measures=measures)
        write_study(tmp_path / "s", study, n_layers=12)
        async with opened(tmp_path / "s", size=size) as pilot:
            for keys in (
                ("1",),
                ("2",),
                *([("m",)] * 4),
                ("3",),
                *([("m",)] * 4),
                ("4",),
                ("5",),
                ("5", "t"),
                ("6",),
                ("7",),
                ("4", "t", "t"),
            ):
                await press(pilot, *keys)
                for lines in pilot.app.screen.query(Lines):
                    room = lines.content_size.width
                    if lines.display and lines.id not in ("tabs", "footer", "small"):
                        said = lines.text.splitlines()
                        assert max(map(cell_len, said), default=0) <= room, (keys, lines.id, said)

    async def test_a_small_terminal_says_what_it_needs(self, study: Path) -> None:
        async with opened(study, size=(50, 15)) as pilot:
            assert text_of(pilot, "small") == "needs 60 × 20; this terminal is 50 × 15"

    @pytest.mark.parametrize("size", [(60, 20), (80, 24), (120, 40), (200, 60)])
    async def test_the_value_and_both_layers_are_always_in_sight(self, study: Path, size: tuple[int, int]) -> None:
        async with opened(study, size=size, view="2") as pilot:
            app_of(pilot).select(row=5, column=5)
            await pilot.pause()
            text = written(pilot)
            assert f" {similarity('full', 0, 4, 5, 5):.3f} " in text
            assert "pre-trained block 6 × this run block 6" in text
            assert "↓ pre-trained   → fully fine-tuned" in text


class TestWithoutColour:
    @pytest.fixture(autouse=True)
    def _no_color(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NO_COLOR", "1")

    async def test_numbers_and_letters_say_it_all(self, study: Path) -> None:
        async with opened(study, view="2") as pilot:
            assert f"{similarity('full', 0, 4, 0, 5):.2f}" in written(pilot).split("each block")[0]
            assert "one digit means tenths" in text_of(pilot, "legend")
            await press(pilot, "3")
            assert "a full" in text_of(pilot, "legend") and "aaaa" in written(pilot) and "░" in written(pilot)
            assert "━" not in text_of(pilot, "legend")

    async def test_a_large_map_is_made_of_digits(self, tmp_path: Path) -> None:
        study = study_of(("bundled:supervised",), seeds=1, epochs=1)
        write_study(tmp_path / "s", study, n_layers=48)
        async with opened(tmp_path / "s", view="2") as pilot:
            await press(pilot, "l", "j")
            rows = pilot.app.screen.query_one(SimilarityMap)
            text = "".join(segment.text for segment in rows.render_line(2))
            values = [similarity("full", 0, 1, 0, j, 48) for j in range(48)]
            assert "".join(str(min(int(value * 10), 9)) for value in values) in text
            assert "▀" not in written(pilot)


async def test_a_map_that_does_not_fit_moves_with_its_cursor(tmp_path: Path) -> None:
    study = study_of(("bundled:supervised",), seeds=1, epochs=1)
    write_study(tmp_path / "s", study, n_layers=48)
    async with opened(tmp_path / "s", view="2") as pilot:
        assert "in sight: rows 1–" in written(pilot)
        app_of(pilot).select(row=46, column=46)
        await press(pilot, "j", "l", "j", "l")
        assert "–48 of 48" in written(pilot)
        assert "pre-trained block 48 × this run block 48" in text_of(pilot, "readout")
        assert "block 48" in written(pilot).split("in sight")[1]
