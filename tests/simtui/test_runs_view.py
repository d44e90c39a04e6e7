"""The runs view and the order of forgetting, driven by keys and clicks: filter, sort, mark, average, export."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from engine.runs.record import RunRecord, State, read_record, write_record
from simtui.screens.runs import RunsScreen
from simtui.views.parts import Row
from simtui.widgets.filter_line import FilterLine
from simtui.widgets.grid import Grid
from simtui.widgets.lines import Lines
from tests.simtui.driving import app_of, opened, press, text_of, until, view_of, written
from tests.simtui.studies import study_of, write_attention_maps, write_study

SIZES = [(80, 24), (120, 40)]


def _grid(pilot: Pilot[None]) -> Grid:
    return pilot.app.screen.query_one(Grid)


def _rows(pilot: Pilot[None]) -> tuple[Row, ...]:
    return _grid(pilot)._sheet.rows


def _records(pilot: Pilot[None]) -> dict[str, RunRecord]:
    snapshot = app_of(pilot).snapshot
    assert snapshot is not None
    return {record.run_id: record for record in snapshot.records}


def _figures(pilot: Pilot[None], name: str) -> list[float]:
    return [_records(pilot)[row.key].last[name] or 0.0 for row in _rows(pilot)]


def _titles(pilot: Pilot[None]) -> str:
    return "".join(segment.text for segment in _grid(pilot).render_line(0))


async def _type(pilot: Pilot[None], text: str) -> None:
    await press(pilot, "slash")
    pilot.app.screen.query_one(Input).value = text
    await pilot.pause()


class TestFilter:
    @pytest.mark.parametrize("size", SIZES)
    async def test_each_key_filters_and_enter_keeps(self, study: Path, size: tuple[int, int]) -> None:
        async with opened(study, size=size) as pilot:
            await press(pilot, "slash")
            assert "full acc>0.8" in pilot.app.screen.query_one(Input).placeholder
            await press(pilot, *"ful")
            assert len(_rows(pilot)) == 4 and "4 of 12 runs match ful:" in text_of(pilot, "summary")
            await press(pilot, "l", "space", *"seed:1", "enter")
            assert not pilot.app.screen.query_one(FilterLine).display
            assert [_records(pilot)[row.key].spec.seed for row in _rows(pilot)] == [1, 1]
            assert "2 of 12 runs match full seed:1" in text_of(pilot, "summary")
            await press(pilot, "j", "enter")
            assert view_of(pilot).VIEW == "map" and "seed 1" in text_of(pilot, "summary")

    async def test_keys_of_the_view_are_letters_while_a_filter_is_typed(self, study: Path) -> None:
        async with opened(study) as pilot:
            await press(pilot, "slash", *"q2obru", "space")
            assert pilot.app.screen.query_one(Input).value == "q2obru "
            assert view_of(pilot).VIEW == "runs" and pilot.app.is_running
            await press(pilot, "escape", "slash")
            assert pilot.app.screen.query_one(Input).value == ""

    async def test_escape_clears_what_is_typed_and_what_is_kept(self, study: Path) -> None:
        async with opened(study) as pilot:
            await press(pilot, "j", "j")
            run_id = _grid(pilot).key
            await press(pilot, "slash", *"scratch")
            assert _grid(pilot).key != run_id and len(_rows(pilot)) == 4
            await press(pilot, "escape")
            assert len(_rows(pilot)) == 12 and _grid(pilot).key == run_id
            await press(pilot, "slash", *"scratch", "enter")
            assert app_of(pilot).selection.run_id == _grid(pilot).key != run_id
            await press(pilot, "escape")
            assert len(_rows(pilot)) == 12 and app_of(pilot).selection.run_filter == ""

    async def test_what_is_wrong_is_said_and_the_last_good_filter_stays(self, study: Path) -> None:
        async with opened(study) as pilot:
            await press(pilot, "slash", *"full", "space", *"metod:x")
            assert text_of(pilot, "says") == "no field metod; did you mean method:x?"
            assert len(_rows(pilot)) == 4 and "match full:" in text_of(pilot, "summary")
            await press(pilot, "enter")
            assert pilot.app.screen.query_one(FilterLine).display
            await press(pilot, *["backspace"] * 8, "enter")
            assert not pilot.app.screen.query_one(FilterLine).display and len(_rows(pilot)) == 4

    async def test_a_message_never_takes_the_place_of_the_text(self, study: Path) -> None:
        async with opened(study, size=(60, 20)) as pilot:
            await _type(pilot, "thisisalongname:1")
            assert pilot.app.screen.query_one(Input).size.width >= 16
            assert pilot.app.screen.query_one("#says", Lines).region.right <= 60

    @pytest.mark.parametrize("size", SIZES)
    async def test_no_match_is_said_where_the_rows_were(self, study: Path, size: tuple[int, int]) -> None:
        async with opened(study, size=size) as pilot:
            top = _grid(pilot).region.y
            await _type(pilot, "zzz")
            assert "No run matches zzz" in written(pilot) and "esc clears the filter" in written(pilot)
            assert "0 of 12 runs match zzz." in text_of(pilot, "summary") and text_of(pilot, "detail") == ""
            await press(pilot, "enter", "enter", "space", "j", "e")
            assert view_of(pilot).VIEW == "runs" and _grid(pilot).region.y == top
            await until(pilot, lambda: any("nothing to export" in each.message for each in pilot.app._notifications))

    async def test_columns_stay_where_they_are_while_runs_come_and_go(self, study: Path) -> None:
        async with opened(study, size=(120, 40)) as pilot:
            before = _titles(pilot)
            await _type(pilot, "backbone:self method:full")
            assert _titles(pilot) == before and len(_rows(pilot)) == 2

    async def test_a_live_study_is_filtered_as_it_goes_on(self, small_study: Path) -> None:
        async with opened(small_study) as pilot:
            await _type(pilot, "state:failed")
            await press(pilot, "enter")
            assert not _rows(pilot)
            path = small_study / "runs" / next(iter(_records(pilot)))
            write_record(path, read_record(path).with_(state=State.FAILED, reason="out of memory"))
            await until(pilot, lambda: len(_rows(pilot)) == 1)
            assert "1 of 3 runs match state:failed: 1 failed" in text_of(pilot, "summary")

    async def test_names_that_could_break_the_screen_are_plain_text(self, tmp_path: Path) -> None:
        name = 'a\x1b[31m [/] "x"'
        write_study(tmp_path / "s", study_of((name, "bundled:supervised"), seeds=1, epochs=2))
        async with opened(tmp_path / "s") as pilot:
            await press(pilot, "b", "enter")
            assert [_records(pilot)[row.key].spec.backbone.name for row in _rows(pilot)] == [name]
            assert "\x1b" not in written(pilot)


class TestSort:
    async def test_o_steps_r_turns_and_the_cursor_stays_on_its_run(self, study: Path) -> None:
        async with opened(study) as pilot:
            await press(pilot, "j")
            run_id, columns = _grid(pilot).key, _grid(pilot)._columns
            study_order = [row.key for row in _rows(pilot)]
            await press(pilot, *["o"] * 7, "r")
            accuracies = _figures(pilot, "test_accuracy")
            assert accuracies == sorted(accuracies, reverse=True) and _grid(pilot).key == run_id
            assert "▼accuracy" in _titles(pilot) and _grid(pilot)._columns == columns
            assert "sorted by accuracy ▼" in text_of(pilot, "summary")
            await press(pilot, *["O"] * 7)
            assert [row.key for row in _rows(pilot)] == study_order and "▼" not in _titles(pilot)

    async def test_a_click_on_a_title_sorts_and_again_turns(self, study: Path) -> None:
        async with opened(study) as pilot:
            x = _titles(pilot).index("ECE")
            for is_descending in (False, True):
                await pilot.click("#grid", offset=(x, 0))
                await pilot.pause()
                found = _figures(pilot, "test_ece")
                assert found == sorted(found, reverse=is_descending)
            await pilot.click("#grid", offset=(_titles(pilot).index("method"), 0))
            await pilot.pause()
            assert "method▲" in _titles(pilot)

    async def test_forgetting_sorts_by_full_means_with_keys_and_clicks(self, study: Path) -> None:
        async with opened(study, view="7", size=(120, 40)) as pilot:
            await until(pilot, lambda: _rows(pilot))
            key, before = _grid(pilot).key, [row.key for row in _rows(pilot)]
            await pilot.click("#grid", offset=(_titles(pilot).index("drop"), 0))
            await press(pilot, "r")
            table = view_of(pilot).table()
            assert table is not None
            drops = [float(cell or 0) for cell in table.column("drop_mean")]
            assert drops == sorted(drops, reverse=True) and drops[0] > drops[-1]
            assert [row.key.split() for row in _rows(pilot)] == [list(map(str, row[:3])) for row in table.rows]
            assert _grid(pilot).key == key and "▼" in _titles(pilot)
            await press(pilot, *["O"] * 7)
            assert [row.key for row in _rows(pilot)] == before


class TestMarks:
    async def test_space_marks_and_n_steps_through_what_is_marked(self, study: Path, tmp_path: Path) -> None:
        path = shutil.copytree(study, tmp_path / "s")
        write_attention_maps(path)
        async with opened(path) as pilot:
            ids = [row.key for row in _rows(pilot)]
            await press(pilot, "space", "j", "space")
            assert app_of(pilot).selection.marked == {ids[0], ids[2]} and _grid(pilot).key == ids[3]
            assert "2 marked" in text_of(pilot, "summary")
            assert [row.key for row in _rows(pilot) if row.is_marked] == [ids[0], ids[2]]
            assert [y for y in range(1, 13) if "●" in _grid(pilot).render_line(y).text[:3]] == [1, 3]
            for view in ("2", "8"):
                await press(pilot, view)
                seen = []
                for _ in range(3):
                    await press(pilot, "n")
                    seen.append(app_of(pilot).shown_run_id())
                assert set(seen) == {ids[0], ids[2]} and seen[0] == seen[2]
            await press(pilot, "1", "home", "space", "u")
            assert not app_of(pilot).selection.marked and not any(row.is_marked for row in _rows(pilot))

    async def test_without_marks_n_steps_as_runs_are_filtered_and_sorted(self, study: Path) -> None:
        async with opened(study) as pilot:
            await press(pilot, "slash", *"full", "enter", *["o"] * 7, "r", "home")
            ids = [row.key for row in _rows(pilot)]
            await press(pilot, "2")
            seen = [app_of(pilot).shown_run_id()]
            for _ in range(4):
                await press(pilot, "n")
                seen.append(app_of(pilot).shown_run_id())
            assert seen == [*ids, ids[0]]

    async def test_a_damaged_run_cannot_be_marked(self, small_study: Path) -> None:
        (small_study / "runs" / "broken").mkdir()
        (small_study / "runs" / "broken" / "run.json").write_text("{")
        async with opened(small_study) as pilot:
            await press(pilot, "end", "space")
            assert _grid(pilot).key == "broken" and not app_of(pilot).selection.marked


class TestMeans:
    async def test_b_goes_through_the_groups_and_enter_shows_the_runs_of_one(self, study: Path) -> None:
        async with opened(study) as pilot:
            await press(pilot, "end", "b")
            assert len(_rows(pilot)) == 6 and "2 of 2 runs done" in text_of(pilot, "detail")
            assert "scratch" in (_grid(pilot).key or "")  # the group of the run that was under the cursor
            await press(pilot, "home", "j", "enter")
            chosen = "backbone=bundled:supervised method=linear"
            assert app_of(pilot).selection.run_filter == chosen and len(_rows(pilot)) == 2
            assert {_records(pilot)[row.key].spec.method for row in _rows(pilot)} == {"linear"}
            await press(pilot, "escape")
            assert len(_rows(pilot)) == 6 and not app_of(pilot).selection.run_filter
            await press(pilot, "b")
            assert len(_rows(pilot)) == 2 and "pool methods as well as seeds" in text_of(pilot, "detail")
            await press(pilot, "b", "b")
            assert len(_rows(pilot)) == 12

    async def test_the_footer_says_what_enter_does_as_the_details_do(self, study: Path) -> None:
        async with opened(study) as pilot:
            assert "enter map" in text_of(pilot, "footer")
            await press(pilot, "b")
            assert "enter shows them" in text_of(pilot, "detail") and "enter its runs" in text_of(pilot, "footer")
            await press(pilot, "enter")
            assert "enter map" in text_of(pilot, "footer")

    async def test_means_are_of_what_the_filter_leaves_and_sort(self, study: Path) -> None:
        async with opened(study, size=(120, 40)) as pilot:
            await press(pilot, "slash", *"seed:1", "enter", "b", "b", "b", "o", "o", "o", "r")
            full = [
                record.last["test_accuracy"] or 0.0
                for record in _records(pilot).values()
                if record.spec.seed == 1 and record.spec.method == "full"
            ]
            assert [row.key for row in _rows(pilot)] == ["full", "linear", "scratch"]
            assert _rows(pilot)[0].cells[2].text.startswith(f"{sum(full) / 2:.3f} ± ")
            assert "6 of 12 runs match seed:1, by method" in text_of(pilot, "summary")

    async def test_space_marks_all_runs_of_a_group(self, study: Path) -> None:
        async with opened(study) as pilot:
            await press(pilot, "b", "space")
            assert len(app_of(pilot).selection.marked) == 2 and _rows(pilot)[0].is_marked
            await press(pilot, "k", "space")
            assert not app_of(pilot).selection.marked


class TestExport:
    async def test_the_filtered_runs_are_written_as_they_are_sorted(self, study: Path) -> None:
        async with opened(study) as pilot:
            await press(pilot, "slash", *"full", "enter", *["o"] * 7, "r", "space", "e")
            path = Path.cwd() / "sample_study-runs.csv"
            await until(pilot, path.exists)
            written_ids = [row["run"] for row in csv.DictReader(path.read_text().splitlines())]
            assert written_ids == [row.key for row in _rows(pilot)] and len(written_ids) == 4

    async def test_groups_are_exported_as_the_runs_behind_them_and_that_is_said(self, study: Path) -> None:
        async with opened(study) as pilot:
            await press(pilot, "b", "e")
            path = Path.cwd() / "sample_study-runs.csv"
            await until(pilot, path.exists)
            assert len(list(csv.DictReader(path.read_text().splitlines()))) == 12
            said = [each.message for each in pilot.app._notifications]
            assert any("the runs behind the groups" in each for each in said)


class TestSpeed:
    async def test_a_step_of_the_cursor_makes_no_sheet_anew(self, study: Path) -> None:
        async with opened(study) as pilot:
            screen = view_of(pilot)
            assert isinstance(screen, RunsScreen)
            all_runs, sheet = screen._all, screen._sheet
            await press(pilot, "j", "pagedown")
            assert screen._all is all_runs and screen._sheet is sheet and _grid(pilot)._sheet is sheet

    async def test_only_runs_that_changed_get_a_new_row(self, small_study: Path) -> None:
        async with opened(small_study) as pilot:
            before = {row.key: row for row in _rows(pilot)}
            first, *others = before
            path = small_study / "runs" / first
            write_record(path, read_record(path).with_(state=State.FAILED, reason="out of memory"))
            await until(pilot, lambda: "1 failed" in text_of(pilot, "summary"))
            now = {row.key: row for row in _rows(pilot)}
            assert now[first] != before[first] and all(now[each] is before[each] for each in others)
