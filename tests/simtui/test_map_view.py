"""The map view: two runs beside each other, the epochs played, the row and the column of a cell, what is drawn anew."""

from __future__ import annotations

import csv
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.cells import cell_len
from textual.geometry import Region
from textual.pilot import Pilot

from engine.runs.record import read_record, write_record
from engine.runs.results import Results, SimilarityKey, read_results, write_results
from engine.study import RunSpec, run_specs
from simtui.screens.layer_map import MapScreen
from simtui.selection import Selection
from simtui.views import layer_map, map_panel
from simtui.views.map_cells import SIMILARITY, change_scale, limit_of, signed
from simtui.views.map_compare import Run, compared, compared_readout, linked
from simtui.views.parts import Line, line_width
from simtui.widgets.lines import Lines
from simtui.widgets.similarity_map import SimilarityMap
from tests.simtui.driving import app_of, opened, press, text_of, until, view_of, written
from tests.simtui.studies import made_record, made_results, similarity, study_of, write_run, write_study

ONE = study_of(("bundled:supervised",), seeds=2, epochs=4)
SPECS = {(spec.method, spec.seed): spec for spec in run_specs(ONE)}
FULL, LINEAR, SCRATCH = (SPECS[method, 0] for method in ("full", "linear", "scratch"))
KEY = SimilarityKey("target", "cls", "linear_cka")
PINNED, OTHER = "map", "second-map"


@pytest.fixture
def one(tmp_path: Path) -> Path:
    """1 backbone × 3 methods × 2 seeds × 4 epochs, to be changed by the test."""
    return write_study(tmp_path / "one", ONE)


def _maps(pilot: Pilot[None]) -> list[SimilarityMap]:
    return [each for each in pilot.app.screen.query(SimilarityMap) if each.display]


def _cursors(pilot: Pilot[None]) -> list[tuple[int, int]]:
    return [(each.row, each.column) for each in _maps(pilot)]


def _screen(pilot: Pilot[None]) -> MapScreen:
    screen = view_of(pilot)
    assert isinstance(screen, MapScreen)
    return screen


def _results(path: Path, run_id: str) -> Results:
    return read_results(path / "runs" / run_id)


def _text(lines: tuple[Line, ...]) -> str:
    return "\n".join("".join(span.text for span in line) for line in lines)


async def _compare(pilot: Pilot[None], pinned: str, run: str) -> None:
    """Pins one run and turns to another."""
    app_of(pilot).select(run_id=pinned)
    await press(pilot, "c")
    app_of(pilot).select(run_id=run)
    await until(pilot, lambda: app_of(pilot).answer("pinned") and app_of(pilot).answer("map"))


class TestPinning:
    async def test_c_pins_a_run_and_unpins_it(self, one: Path) -> None:
        async with opened(one, view="2") as pilot:
            await press(pilot, "c")
            assert app_of(pilot).selection.pinned == app_of(pilot).shown_run_id()
            assert "pinned" in text_of(pilot, "epochs") and len(_maps(pilot)) == 1
            await press(pilot, "n")
            await until(pilot, lambda: len(_maps(pilot)) == 2)
            assert "seed 1, minus pinned full, seed 0" in text_of(pilot, "summary")
            await press(pilot, "c")
            assert len(_maps(pilot)) == 1 and app_of(pilot).selection.pinned is None
            assert "seed 1" in text_of(pilot, "summary") and "pinned" not in written(pilot)

    async def test_a_run_chosen_in_the_runs_view_stands_beside_the_pinned_one(self, one: Path) -> None:
        async with opened(one, view="2") as pilot:
            await press(pilot, "c", "1", "G", "enter")
            await until(pilot, lambda: len(_maps(pilot)) == 2)
            assert "Scratch, seed 1, minus pinned full, seed 0" in text_of(pilot, "summary")

    async def test_the_maps_share_cursor_epoch_and_similarity(self, one: Path) -> None:
        async with opened(one, view="2") as pilot:
            await _compare(pilot, FULL.run_id, LINEAR.run_id)
            await press(pilot, "l", "l", "j", "left_square_bracket", "p", "m")
            assert _cursors(pilot) == [(1, 2), (1, 2)]
            found = _screen(pilot)._comparison
            assert found is not None and found.pinned.epoch == found.run.epoch == 3
            assert found.pinned.key == found.run.key == SimilarityKey("target", "feat", "debiased_cka")
            for widget, run_id in zip(_maps(pilot), (FULL.run_id, LINEAR.run_id), strict=True):
                assert np.array_equal(widget._picture.matrix, _results(one, run_id).similarity[found.run.key][3])
                assert widget._picture.scale == SIMILARITY

    async def test_a_click_in_either_map_moves_both(self, one: Path) -> None:
        async with opened(one, view="2") as pilot:
            await _compare(pilot, FULL.run_id, LINEAR.run_id)
            for name, cell in ((PINNED, (2, 3)), (OTHER, (4, 1))):
                layout = pilot.app.screen.query_one(f"#{name}", SimilarityMap)._layout
                assert layout is not None
                await pilot.click(f"#{name}", offset=(layout.x_of(cell[1]) + 1, layout.lines_of(cell[0]).start))
                await until(pilot, lambda cell=cell: _cursors(pilot) == [cell, cell])  # type: ignore[misc]
                assert (app_of(pilot).selection.row, app_of(pilot).selection.column) == cell

    async def test_the_difference_is_that_of_the_matrices(self, one: Path) -> None:
        async with opened(one, view="2") as pilot:
            await _compare(pilot, LINEAR.run_id, FULL.run_id)
            await press(pilot, "x", "l", "l", "l")
            mine, other = (
                _results(one, each).similarity[KEY][4].astype(float) for each in (FULL.run_id, LINEAR.run_id)
            )
            right = _maps(pilot)[1]
            assert np.array_equal(right._picture.matrix, mine - other)
            values = mine[0, 3], other[0, 3], mine[0, 3] - other[0, 3]
            assert math.isclose(
                values[2], similarity("full", 0, 4, 0, 3) - similarity("linear", 0, 4, 0, 3), abs_tol=1e-6
            )
            assert f"pinned {values[1]:.3f}" in text_of(pilot, "readout")
            assert f"this run {values[0]:.3f}" in text_of(pilot, "readout")
            assert f"difference {values[2]:+.3f}" in text_of(pilot, "readout")
            assert "-0.5 " in text_of(pilot, "legend") and "+0.5 difference" in text_of(pilot, "legend")
            await press(pilot, "x")
            assert np.array_equal(_maps(pilot)[1]._picture.matrix, mine)

    async def test_the_summary_is_computed(self, one: Path) -> None:
        async with opened(one, view="2", size=(120, 40)) as pilot:
            await _compare(pilot, LINEAR.run_id, FULL.run_id)
            moved = [similarity("full", 0, 4, i, i) - 1 for i in range(6)]
            assert text_of(pilot, "summary") == (
                "Full, seed 0, minus pinned linear, seed 0 (bundled:supervised, epoch 4, CLS): mean difference on the "
                f"diagonal {sum(moved) / 6:+.3f}, largest at block 6 ({moved[5]:+.3f})."
            )
            app_of(pilot).select(run_id=SPECS["linear", 1].run_id)
            await until(pilot, lambda: "no block differs on the diagonal" in text_of(pilot, "summary"))

    async def test_x_says_what_it_needs(self, one: Path) -> None:
        async with opened(one, view="2") as pilot:
            await press(pilot, "x")
            assert any("first pin a run" in each.message for each in pilot.app._notifications)
            await pilot.resize_terminal(200, 60)
            await _compare(pilot, FULL.run_id, LINEAR.run_id)
            await press(pilot, "x")
            assert any("beside both" in each.message for each in pilot.app._notifications)

    async def test_enter_opens_the_curves_of_the_selected_run(self, one: Path) -> None:
        async with opened(one, view="2") as pilot:
            await _compare(pilot, FULL.run_id, LINEAR.run_id)
            await press(pilot, "l", "enter")
            assert view_of(pilot).VIEW == "trajectories" and "layer block 2" in text_of(pilot, "control")

    async def test_the_export_has_both_runs_and_the_difference(self, one: Path) -> None:
        async with opened(one, view="2") as pilot:
            await _compare(pilot, LINEAR.run_id, FULL.run_id)
            await press(pilot, "e")
            await until(pilot, lambda: list(Path.cwd().glob("*.csv.sources.json")))
            rows = list(csv.DictReader(next(Path.cwd().glob("*.csv")).read_text().splitlines()))
            assert len(rows) == 36 and {row["pinned_run"] for row in rows} == {LINEAR.run_id}
            name = "linear_cka_cls_target"
            for row in rows:
                difference = float(row[name]) - float(row[f"{name}_pinned"])
                assert float(row[f"{name}_difference"]) == pytest.approx(difference, abs=1e-9)
            sources = json.loads(next(Path.cwd().glob("*.csv.sources.json")).read_text())
            assert set(sources["runs"]) == {FULL.run_id, LINEAR.run_id}


class TestWhatCannotBeCompared:
    async def test_other_layers_have_linked_cursors_and_no_difference(self, one: Path) -> None:
        write_run(one, LINEAR, n_layers=12)
        async with opened(one, view="2") as pilot:
            await _compare(pilot, FULL.run_id, LINEAR.run_id)
            assert "no difference, as the pinned run has 6 layers and this run 12" in text_of(pilot, "summary")
            await press(pilot, *["l"] * 11, *["j"] * 5)
            assert _cursors(pilot) == [(2, 5), (5, 11)]
            assert "difference" not in text_of(pilot, "readout")
            assert "block 3 × block 6" in text_of(pilot, "readout") and "block 6 × block 12" in text_of(
                pilot, "readout"
            )
            layout = pilot.app.screen.query_one(f"#{PINNED}", SimilarityMap)._layout
            assert layout is not None
            await pilot.click(f"#{PINNED}", offset=(layout.x_of(0) + 1, layout.lines_of(5).start))
            await until(pilot, lambda: _cursors(pilot) == [(5, 0), (11, 0)])
            await press(pilot, "x", "e")
            assert any("there is no difference" in each.message for each in pilot.app._notifications)
            await until(pilot, lambda: list(Path.cwd().glob("*.csv")))
            assert "pinned_run" not in next(Path.cwd().glob("*.csv")).read_text()

    async def test_layers_of_other_names_have_no_difference(self, one: Path) -> None:
        results = _results(one, LINEAR.run_id)
        write_results(one / "runs" / LINEAR.run_id, replace(results, layers=tuple("abcdef")))
        async with opened(one, view="2") as pilot:
            await _compare(pilot, FULL.run_id, LINEAR.run_id)
            assert "their layers have other names" in text_of(pilot, "summary")

    async def test_another_backbone_is_named_and_warned_of(self, study: Path) -> None:
        specs = run_specs(study_of(("bundled:supervised", "bundled:self-supervised"), seeds=2, epochs=4))
        other = next(
            each for each in specs if each.backbone.name == "bundled:self-supervised" and each.method == "full"
        )
        async with opened(study, view="2", size=(120, 40)) as pilot:
            await _compare(pilot, FULL.run_id, other.run_id)
            assert "Self-supervised, full, seed 0, minus pinned supervised, full, seed 0" in text_of(pilot, "summary")
            assert "each run is compared with its own pre-trained model" in text_of(pilot, "warning")

    async def test_a_similarity_that_the_pinned_run_lacks_is_named(self, one: Path) -> None:
        results = _results(one, FULL.run_id)
        kept = {key: values for key, values in results.similarity.items() if key.measure != "debiased_cka"}
        write_results(one / "runs" / FULL.run_id, replace(results, similarity=kept))
        async with opened(one, view="2") as pilot:
            await _compare(pilot, FULL.run_id, LINEAR.run_id)
            assert len(_maps(pilot)) == 2
            await press(pilot, "m")
            assert len(_maps(pilot)) == 1
            assert "the pinned run has no debiased CKA, CLS" in text_of(pilot, "warning")
            assert "debiased" in text_of(pilot, "legend")

    async def test_a_run_with_fewer_epochs_stays_at_its_last(self, one: Path) -> None:
        write_run(one, FULL, epochs_done=2)
        async with opened(one, view="2") as pilot:
            await _compare(pilot, FULL.run_id, LINEAR.run_id)
            assert "epoch 4 of 4" in text_of(pilot, "epochs")
            assert "pinned run ends at epoch 2" in text_of(pilot, "epochs")
            await press(pilot, "x")
            assert "epoch 4 - epoch 2" in written(pilot)
            await press(pilot, "left_square_bracket", "left_square_bracket")
            assert "ends" not in text_of(pilot, "epochs")
            app_of(pilot).select(run_id=FULL.run_id, pinned=LINEAR.run_id, epoch=3)
            await until(pilot, lambda: "this run ends at epoch 2" in text_of(pilot, "epochs"))

    async def test_other_probe_images_are_warned_of(self, one: Path) -> None:
        record = read_record(one / "runs" / FULL.run_id)
        few = replace(record.provenance, n_probe=96)
        write_record(one / "runs" / FULL.run_id, record.with_(provenance=few))
        async with opened(one, view="2") as pilot:
            await _compare(pilot, FULL.run_id, LINEAR.run_id)
            assert "on 96 images (pinned) and on 512: the figures do not compare" in text_of(pilot, "warning")

    def test_the_same_number_of_other_images_is_warned_of_too(self) -> None:
        runs = [_made(spec) for spec in (FULL, LINEAR)]
        found = compared(_with_digest(runs[0], "a"), _with_digest(runs[1], "b"), Selection())
        assert not isinstance(found, str) and "the images of the two runs are not the same" in found.warnings[0]
        found = compared(_with_digest(runs[0], "a"), _with_digest(runs[1], "a"), Selection())
        assert not isinstance(found, str) and len(found.warnings) == 1 and "inflated" in found.warnings[0]

    @pytest.mark.parametrize("name", ["results.h5", "run.json"])
    async def test_a_pinned_run_that_is_damaged_while_it_is_shown_says_so(self, one: Path, name: str) -> None:
        async with opened(one, view="2") as pilot:
            await _compare(pilot, FULL.run_id, LINEAR.run_id)
            (one / "runs" / FULL.run_id / name).write_bytes(b"x" * 99)
            await until(pilot, lambda: "the pinned run cannot be shown" in text_of(pilot, "warning"))
            assert len(_maps(pilot)) == 1 and "Linear probe" in text_of(pilot, "summary")

    async def test_a_pinned_run_that_is_removed_while_it_is_shown_says_so(self, one: Path) -> None:
        async with opened(one, view="2") as pilot:
            await _compare(pilot, FULL.run_id, LINEAR.run_id)
            shutil.rmtree(one / "runs" / FULL.run_id)
            await until(pilot, lambda: "is not there any more; c unpins" in text_of(pilot, "warning"))
            await press(pilot, "c")
            assert not pilot.app.screen.query_one("#warning", Lines).text.count("pinned")

    async def test_a_pinned_run_without_results_says_so(self, one: Path) -> None:
        async with opened(one, view="2") as pilot:
            await _compare(pilot, FULL.run_id, LINEAR.run_id)
            (one / "runs" / FULL.run_id / "results.h5").unlink()
            await until(pilot, lambda: "the pinned run has no results yet" in text_of(pilot, "warning"))
            write_results(one / "runs" / FULL.run_id, Results(tuple("abcdef"), {}, {"test_accuracy": np.ones(1)}))
            await until(pilot, lambda: "the pinned run has no similarity yet" in text_of(pilot, "warning"))


class TestLooks:
    @pytest.mark.parametrize(("size", "n_maps"), [((60, 20), 2), ((80, 24), 2), ((120, 40), 2), ((200, 60), 3)])
    @pytest.mark.parametrize("n_layers", [6, 12])
    async def test_all_maps_are_in_sight_and_no_word_is_cut(
        self, tmp_path: Path, size: tuple[int, int], n_maps: int, n_layers: int
    ) -> None:
        path = write_study(tmp_path / "s", ONE, n_layers=n_layers)
        async with opened(path, view="2", size=size) as pilot:
            await _compare(pilot, FULL.run_id, SCRATCH.run_id)
            for keys in ((), ("x",), ("d",), ("m",), ("left_square_bracket",)):
                await press(pilot, *keys)
                maps = _maps(pilot)
                assert len(maps) == n_maps and len({each.size for each in maps}) == 1
                if size > (60, 20):
                    assert not any(each._layout.window for each in maps if each._layout)
                for lines in pilot.app.screen.query(Lines):
                    if lines.display and lines.id not in ("tabs", "footer", "small"):
                        said = lines.text.splitlines()
                        assert max(map(cell_len, said), default=0) <= lines.content_size.width, (keys, lines.id, said)

    async def test_at_120_columns_the_cells_of_12_layers_have_numbers(self, tmp_path: Path) -> None:
        path = write_study(tmp_path / "s", ONE, n_layers=12)
        async with opened(path, view="2", size=(120, 40)) as pilot:
            await _compare(pilot, FULL.run_id, SCRATCH.run_id)
            assert {each._layout.digits for each in _maps(pilot) if each._layout} == {3}

    async def test_beside_wide_maps_each_block_has_both_figures(self, one: Path) -> None:
        async with opened(one, view="2", size=(160, 50)) as pilot:
            await _compare(pilot, FULL.run_id, LINEAR.run_id)
            side = " ".join(pilot.app.screen.query_one("#side", Lines).text.split())
            for i in range(6):
                value = similarity("full", 0, 4, i, i)
                assert f"block {i + 1} {value:.3f} 1.000 {1 - value:+.3f}" in side
            await press(pilot, "d")
            assert "most like" in text_of(pilot, "side")

    async def test_very_many_layers_scroll_together(self, tmp_path: Path) -> None:
        path = write_study(tmp_path / "s", study_of(("bundled:supervised",), seeds=1, epochs=1), n_layers=48)
        async with opened(path, view="2") as pilot:
            await press(pilot, "c", "n")
            await until(pilot, lambda: len(_maps(pilot)) == 2)
            app_of(pilot).select(row=47, column=47)
            await pilot.pause()
            assert written(pilot).count("–48 × ") == 2 and written(pilot).count("–48 of 48") == 2

    async def test_without_colour_differences_are_signed_digits(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("NO_COLOR", "1")
        path = write_study(tmp_path / "s", ONE, n_layers=12)
        async with opened(path, view="2") as pilot:
            await _compare(pilot, FULL.run_id, LINEAR.run_id)
            await press(pilot, "x")
            values = [1 - similarity("full", 0, 4, i, i, 12) for i in range(12)]
            right = _maps(pilot)[1]
            layout = right._layout
            assert layout is not None and layout.cell_width == 2 and not layout.window
            for i, value in enumerate(values):
                x, tenths = layout.x_of(i), round(value * 10)
                shown = right.render_line(layout.lines_of(i).start).text[x : x + 2]
                assert shown == (f"{tenths:+d}" if tenths else " 0"), i
            assert "+2 is 0.2 more" in text_of(pilot, "legend")
            assert "██" not in text_of(pilot, "readout")

    @pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
    async def test_hostile_names_of_layers_stay_names(self, one: Path, size: tuple[int, int]) -> None:
        names = ("[/]", "\x1b[31mred", "a\nb", "\u202eevil", "層" * 30, "x" * 200)
        for spec in (FULL, LINEAR):
            write_results(one / "runs" / spec.run_id, replace(_results(one, spec.run_id), layers=names))
        async with opened(one, view="2", size=size) as pilot:
            await _compare(pilot, FULL.run_id, LINEAR.run_id)
            for keys in (("d",), ("x",), *[("l", "j")] * 5, ("c",)):
                await press(pilot, *keys)
                text = written(pilot)
                assert "\x1b" not in text and "\u202e" not in text
                assert "nan" not in text
            assert "[/]" in text

    def test_a_readout_has_as_many_words_as_fit(self) -> None:
        found = compared(_made(FULL), _made(LINEAR), Selection(row=5, column=5))
        assert not isinstance(found, str)
        for width in (60, 80, 100, 120, 200):
            said = compared_readout(found, width, False, True)
            assert line_width(said) <= width and "+0." in _text((said,))
            assert ("linear CKA (biased), CLS" in _text((said,))) == (width >= 120)

    def test_an_undefined_cell_has_no_difference(self) -> None:
        run = _made(LINEAR)
        matrices = run.results.similarity[KEY].copy()
        matrices[:, 2, :] = np.nan
        holed = replace(run, results=replace(run.results, similarity={**run.results.similarity, KEY: matrices}))
        found = compared(_made(FULL), holed, Selection(row=2, column=2))
        assert not isinstance(found, str) and math.isnan(found.value)
        assert "difference –" in _text((compared_readout(found, 120, False, True),))
        assert "largest at block 6" in found.summary
        matrices[:] = np.nan
        found = compared(_made(FULL), holed, Selection())
        assert not isinstance(found, str) and found.summary.endswith("the difference is undefined for every block.")


class TestPlaying:
    async def test_space_plays_from_the_start_to_the_end_and_stops(self, one: Path) -> None:
        async with opened(one, view="2") as pilot:
            assert app_of(pilot).selection.epoch is None
            await pilot.press("space")
            await until(pilot, lambda: "epoch 0 of 4" in text_of(pilot, "epochs"))
            assert text_of(pilot, "epochs").startswith("▶")
            seen: set[int | None] = set()
            await until(pilot, lambda: seen.add(app_of(pilot).selection.epoch) or not _screen(pilot)._player.is_playing)
            assert seen == {0, 1, 2, 3, None}
            assert text_of(pilot, "epochs").startswith("epoch 4 of 4")

    async def test_it_plays_on_from_where_it_is(self, one: Path) -> None:
        async with opened(one, view="2") as pilot:
            app_of(pilot).select(epoch=2)
            await pilot.press("space")
            await until(pilot, lambda: app_of(pilot).selection.epoch == 3)

    @pytest.mark.parametrize("key", ["space", "left_square_bracket", "n", "3"])
    async def test_a_key_that_goes_elsewhere_stops_it(self, one: Path, key: str) -> None:
        async with opened(one, view="2") as pilot:
            screen = _screen(pilot)
            await pilot.press("space")
            await press(pilot, key)
            assert not screen._player.is_playing
            assert "▶" not in written(pilot)

    async def test_other_keys_do_not(self, one: Path) -> None:
        async with opened(one, view="2") as pilot:
            await pilot.press("space")
            await press(pilot, "l", "p")
            assert _screen(pilot)._player.is_playing

    async def test_one_epoch_is_soon_played(self, one: Path) -> None:
        write_run(one, FULL, epochs_done=0)
        async with opened(one, view="2") as pilot:
            await pilot.press("space")
            await until(pilot, lambda: not _screen(pilot)._player.is_playing)
            assert "epoch 0 of 0" in text_of(pilot, "epochs")


class TestRowAndColumn:
    def _shown(self, values: list[list[float]], row: int = 0, column: int = 0) -> layer_map.LayerMap:
        record = _made(FULL).record
        results = Results(("a", "b", "c"), {KEY: np.array([values], np.float32)})
        shown = layer_map.layer_map(record, results, Selection(row=row, column=column))
        assert shown is not None
        return shown

    def test_a_block_that_is_more_like_another_is_named(self) -> None:
        shown = self._shown([[0.9, 0.2, 0.81], [0.1, 0.5, 0.3], [0.95, 0.4, 0.74]], row=0, column=2)
        assert map_panel.likeness(shown) == (
            "c of this run is most like pre-trained a (0.81), itself 0.74",
            "pre-trained a is most like itself (0.90)",
        )
        text = _text(map_panel.cross_panel(shown, 30, 20))
        marked = [line for line in text.splitlines() if "▶" in line]
        assert len(marked) == 1 and marked[0].startswith("a") and marked[0].count("▶") == 2

    def test_figures_that_look_alike_are_not_told_apart(self) -> None:
        shown = self._shown([[0.7401, 0, 0], [0.7431, 0, 0], [0.1, 0, 0]])
        assert map_panel.likeness(shown)[0] == "a of this run is as much like pre-trained b (0.74) as like itself"

    def test_what_is_undefined_is_said(self) -> None:
        nothing = math.nan
        shown = self._shown([[nothing, nothing, nothing], [nothing, 0.4, 0.3], [nothing, 0.2, 0.6]], row=0, column=0)
        assert map_panel.likeness(shown) == ("a of this run: undefined", "pre-trained a: undefined")
        shown = self._shown([[nothing, 0.1, 0.2], [0.3, 0.4, 0.3], [0.2, 0.2, 0.6]], row=1, column=0)
        assert map_panel.likeness(shown)[0] == "a of this run is most like pre-trained b (0.30), itself undefined"
        assert "–" in _text(map_panel.cross_panel(shown, 30, 20))

    def test_many_layers_are_those_around_the_cursor(self) -> None:
        run = Run(_made(FULL).record, made_results(FULL, 40, 1))
        shown = layer_map.layer_map(run.record, run.results, Selection(row=39, column=39))
        assert shown is not None
        lines = map_panel.cross_panel(shown, 30, 20)
        assert len(lines) <= 20 and "block 40" in _text(lines) and "block 30 " in _text(lines)

    async def test_d_turns_the_side_panel(self, one: Path) -> None:
        async with opened(one, view="2", size=(120, 40)) as pilot:
            assert "each block against itself" in text_of(pilot, "side")
            await press(pilot, "d", "j", "l", "l")
            side = text_of(pilot, "side")
            assert "pre-trained block 2" in side and "this run's block 3" in side and "most like" in side
            column = [similarity("full", 0, 4, i, 2) for i in range(6)]
            assert all(f"{value:.2f}" in side for value in column)
            assert not text_of(pilot, "likeness")
            await press(pilot, "d")
            assert "each block against itself" in text_of(pilot, "side")

    async def test_where_there_is_no_side_panel_the_words_have_a_line(self, tmp_path: Path) -> None:
        path = write_study(tmp_path / "s", ONE, n_layers=12)
        async with opened(path, view="2") as pilot:
            assert not text_of(pilot, "likeness")
            await press(pilot, "d")
            value = similarity("full", 0, 4, 0, 0, 12)
            assert text_of(pilot, "likeness") == f"block 1 of this run is most like itself ({value:.2f})"
            await press(pilot, "d")
            assert not pilot.app.screen.query_one("#likeness").display


class TestDrawing:
    async def test_another_matrix_draws_only_the_rows_that_look_different(
        self, one: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with opened(one, view="2") as pilot:
            (shown,) = _maps(pilot)
            layout = shown._layout
            assert layout is not None
            regions: list[Region] = []
            monkeypatch.setattr(shown, "refresh", lambda *given, **_: regions.extend(given))
            matrix = shown._picture.matrix.copy()
            matrix[2, 3:5] = 0.01
            matrix[5, 0] += 1e-6
            shown.show(replace(shown._picture, matrix=matrix))
            lines = layout.lines_of(2)
            assert regions == [Region(0, lines.start, shown.size.width, len(lines))]
            assert shown.render_line(lines.start + (len(lines) - 1) // 2).text.count("0.01") == 2
            regions.clear()
            shown.show(replace(shown._picture, matrix=matrix.copy()))
            assert not regions

    async def test_a_step_draws_two_cells_and_the_names_that_change(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = write_study(tmp_path / "s", study_of(("bundled:supervised",), seeds=1, epochs=1), n_layers=48)
        async with opened(path, view="2", size=(120, 40)) as pilot:
            (shown,) = _maps(pilot)
            regions: list[Region] = []
            monkeypatch.setattr(shown, "refresh", lambda *given, **_: regions.extend(given))
            await press(pilot, "l")
            assert sum(each.area for each in regions) <= 12
            whole = [shown.render_line(y).text for y in range(shown.size.height)]
            shown._draw_anew()
            assert whole == [shown.render_line(y).text for y in range(shown.size.height)]

    async def test_what_is_drawn_step_by_step_is_what_is_drawn_at_once(self, one: Path) -> None:
        async with opened(one, view="2") as pilot:
            await _compare(pilot, FULL.run_id, SCRATCH.run_id)
            for key in ("l", "x", "left_square_bracket", "j", "m", "x", "right_square_bracket", "N", "l", "p"):
                await press(pilot, key)
                for each in _maps(pilot):
                    now = [each.render_line(y) for y in range(each.size.height)]
                    each._draw_anew()
                    assert now == [each.render_line(y) for y in range(each.size.height)], key

    async def test_names_of_columns_never_run_into_each_other(self, one: Path) -> None:
        names = tuple(f"{char}-layer" for char in "abcdef")
        write_results(one / "runs" / FULL.run_id, replace(_results(one, FULL.run_id), layers=names))
        async with opened(one, view="2") as pilot:
            for _ in range(6):
                (shown,) = _maps(pilot)
                assert set(shown.render_line(1).text.split()) <= set(names)
                await press(pilot, "l")


class TestFigures:
    def test_depths_are_linked_end_to_end(self) -> None:
        assert [linked(i, 6, 12) for i in range(6)] == [0, 2, 4, 7, 9, 11]
        assert [linked(i, 3, 3) for i in range(3)] == [0, 1, 2]
        assert linked(0, 1, 12) == 0

    @pytest.mark.parametrize(
        ("values", "limit"),
        [
            ([0.0], 0.1),
            ([-0.05, 0.1], 0.1),
            ([0.11], 0.2),
            ([-0.21], 0.5),
            ([0.9], 1.0),
            ([-1.4], 2),
            ([math.nan], 0.1),
        ],
    )
    def test_the_colours_of_differences_reach_as_far_as_they_must(self, values: list[float], limit: float) -> None:
        assert limit_of(np.array(values)) == limit

    @pytest.mark.parametrize(
        ("value", "wide", "four", "narrow"),
        [(0.071, "+0.07", "+.07", "+1"), (-0.31, "-0.31", "-.31", "-3"), (0.0, " 0.00", " .00", " 0"),
         (-0.004, " 0.00", " .00", " 0"), (1.0, "+1.00", "+1.0", "+9"), (math.nan, "–", "–", "–")],
    )  # fmt: skip
    def test_a_difference_has_its_sign_in_every_width(self, value: float, wide: str, four: str, narrow: str) -> None:
        scale = change_scale(0.5)
        assert (scale.written(value, 4, 6), scale.written(value, 3, 4), scale.written(value, 1, 2)) == (
            wide, four, narrow,
        )  # fmt: skip
        assert scale.written(value, 0, 2) == ""
        small = round(value * 100) if not math.isnan(value) else 0
        assert abs(small) > 9 or not small or change_scale(0.1).written(value, 1, 2) == f"{small:+d}"
        assert scale.color(value, True).startswith("#") and scale.color(value, False).startswith("#")

    def test_a_difference_in_words(self) -> None:
        assert [signed(each) for each in (0.0312, -0.12, -0.0004, math.nan)] == ["+0.031", "-0.120", "0.000", "–"]


def _made(spec: RunSpec) -> Run:
    results = made_results(spec, 6, 5)
    return Run(made_record(spec, results, 4), results)


def _with_digest(run: Run, digest: str) -> Run:
    return replace(run, record=run.record.with_(provenance=replace(run.record.provenance, probe_digest=digest)))
