"""The jobs view, driven by keys, on made-up studies whose locks the test holds: what runs, states, stop, continue."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from textual.pilot import Pilot

from engine.files import atomic_write
from engine.jobs.details import JobDetails
from engine.jobs.launch import make_study_folder
from engine.jobs.machine_load import MachineLoad
from engine.jobs.progress import Condition, StudyProgress
from engine.jobs.stage import Failure, RunProgress, Stage
from engine.lock import locked
from engine.runs.record import Session, State, read_record, write_record
from engine.runs.study_folder import StudyFolder
from engine.study import load_study, run_specs
from simtui.screens.confirm import ConfirmScreen
from simtui.views.job_detail import head, lost_by_stopping
from simtui.views.job_summary import Keys, summary
from simtui.views.jobs import bar, clipped, course, sheet, sparkline
from simtui.views.parts import fit_columns, line_width
from simtui.widgets.grid import Grid
from tests import studies as real_studies
from tests.simtui.driving import app_of, opened, press, text_of, until, view_of, written
from tests.simtui.running import go_on, running, say
from tests.simtui.studies import study_of, write_run, write_study

STUDY = study_of(("bundled:supervised",), seeds=2, epochs=8)
NOW = datetime(2026, 3, 4, 23, 30)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """1 backbone × 3 methods × 2 seeds × 8 epochs; nothing has run."""
    return write_study(tmp_path / "s", STUDY, epochs_done=-1)


def _row(pilot: Pilot[None], name: str) -> str:
    """The row of the table that begins with a name."""
    return next((line for line in written(pilot).splitlines() if line[2:].startswith(name)), "")


def _said(pilot: Pilot[None]) -> str:
    return "\n".join(note.message for note in pilot.app._notifications)


class TestRunning:
    @pytest.mark.parametrize("size", [(80, 24), (120, 40)])
    async def test_what_runs_stands_first_with_its_figures(self, path: Path, size: tuple[int, int]) -> None:
        with running(path, STUDY):
            async with opened(path, view="9", size=size) as pilot:
                await until(pilot, lambda: _row(pilot, "supervised full 0"))
                row = _row(pilot, "supervised full 0")
                assert "2/8" in row and "0.500" in row and "▶ running" in row
                assert ("100" in row and "25.0 %" in row) == (size == (120, 40))
                assert "· queued" in _row(pilot, "supervised full 1")
                assert "Running on " in text_of(pilot, "summary") and "Ends about " in text_of(pilot, "summary")
                said = text_of(pilot, "head")
                assert "epoch 2 of 48" in said and "4 waiting" in said and "200 images/s" in said
                assert "CPU load" in said and "memory" in said
                assert not pilot.app.screen.query_one("#progress").display

    async def test_figures_move_and_columns_stay(self, path: Path) -> None:
        with running(path, STUDY):
            async with opened(path, view="9") as pilot:
                await until(pilot, lambda: "▶ running" in _row(pilot, "supervised full 0"))
                before = _row(pilot, "supervised full 0")
                go_on(path, run_specs(STUDY)[0], 8, 10, 10)
                await until(pilot, lambda: "8/8" in _row(pilot, "supervised full 0"))
                after = _row(pilot, "supervised full 0")
                assert before.index("▶") == after.index("▶") and len(before) == len(after)

    async def test_starting_preparing_and_a_full_disk_are_said(self, path: Path) -> None:
        with running(path, STUDY, n_running=0, stage=Stage("")):
            async with opened(path, view="9") as pilot:
                assert text_of(pilot, "summary").endswith("loading libraries.")
                say(path, Stage("decoding images", 120, 500))
                await until(pilot, lambda: "decoding images 120 of 500. The time left" in text_of(pilot, "summary"))
                say(path, Stage("paused: no space in /data (need 1.2 GB, free 3 MB)", need_bytes=1200000000))
                await until(pilot, lambda: "Paused on" in text_of(pilot, "summary"))
                assert "no space in /data (need 1.2 GB, free 3 MB). It goes on by itself" in text_of(pilot, "summary")
                assert "! paused" in _row(pilot, "whole study")

    async def test_a_run_that_loads_has_no_figures(self, path: Path) -> None:
        with running(path, STUDY, n_running=1):
            (path / "runs" / run_specs(STUDY)[0].run_id / "progress.json").unlink()
            async with opened(path, view="9") as pilot:
                assert "▶ loading" in _row(pilot, "supervised full 0")

    async def test_the_log_follows_the_cursor_and_enter_opens_the_map(self, path: Path) -> None:
        spec = run_specs(STUDY)[0]
        (path / "log.txt").write_text("the study speaks\n")
        with running(path, STUDY):
            (path / "runs" / spec.run_id / "log.txt").write_text("".join(f"line {i}\n" for i in range(5000)))
            async with opened(path, view="9") as pilot:
                await until(pilot, lambda: "the study speaks" in text_of(pilot, "log"))
                await press(pilot, "enter")
                assert "choose a run" in _said(pilot) and view_of(pilot).VIEW == "jobs"
                await press(pilot, "j")
                await until(pilot, lambda: "line 4999" in text_of(pilot, "log"))
                assert "line 4998" in text_of(pilot, "log") and "train loss" not in text_of(pilot, "summary")
                assert app_of(pilot).selection.run_id == spec.run_id
                await press(pilot, "pagedown", "pageup", "end", "home", "j", "enter")
                assert view_of(pilot).VIEW == "map" and app_of(pilot).shown_run_id() == spec.run_id

    async def test_a_run_that_ends_under_the_cursor_keeps_it(self, path: Path) -> None:
        spec = run_specs(STUDY)[0]
        with running(path, STUDY):
            async with opened(path, view="9") as pilot:
                await until(pilot, lambda: "▶ running" in _row(pilot, "supervised full 0"))
                await press(pilot, "j")
                write_run(path, spec)
                await until(pilot, lambda: "✓ done" in _row(pilot, "supervised full 0"))
                assert pilot.app.screen.query_one(Grid).key == spec.run_id == app_of(pilot).selection.job

    async def test_figures_stand_in_for_blocks_without_colour(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("NO_COLOR", "1")
        spec = run_specs(STUDY)[0]
        with running(path, STUDY):
            go_on(path, spec, 4, 3, 10)
            (path / "runs" / spec.run_id / "history.csv").write_text("epoch,train_loss,val_accuracy\n0,2,0.1\n1,1,\n")
            async with opened(path, view="9", size=(120, 40)) as pilot:
                await until(pilot, lambda: "2.00→1.00" in _row(pilot, "supervised full 0"))
                assert "##......" in _row(pilot, "supervised full 0") and "0.10→–" in _row(pilot, "supervised full 0")

    async def test_e_writes_the_runs(self, path: Path) -> None:
        async with opened(path, view="9") as pilot:
            await press(pilot, "e")
            await until(pilot, lambda: list(Path.cwd().glob("*-runs.csv")))


class TestStates:
    async def test_a_finished_study_draws_nothing(self, study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        async with opened(study, view="9") as pilot:
            assert text_of(pilot, "summary") == "Finished: 12 of 12 runs done."
            await press(pilot, "c")
            assert "every run is done" in _said(pilot)
            await pilot.pause(0.2)
            drawn: list[object] = []
            monkeypatch.setattr(type(pilot.app.screen), "_compositor_refresh", lambda *_: drawn.append(1))
            await pilot.pause(0.4)
            assert not drawn

    async def test_nothing_has_run(self, path: Path, tmp_path: Path) -> None:
        async with opened(path, view="9") as pilot:
            assert text_of(pilot, "summary") == "Not started: c starts it."
        empty = make_study_folder(STUDY, tmp_path / "empty")
        async with opened(empty.path, view="9") as pilot:
            assert text_of(pilot, "summary") == "No runs yet: c starts the study."
            assert "log.txt: the study has said nothing" in text_of(pilot, "log")
            await press(pilot, "x", "X")
            assert "it is not running" in _said(pilot) and not isinstance(pilot.app.screen, ConfirmScreen)

    async def test_stopped_and_interrupted(self, path: Path) -> None:
        spec = run_specs(STUDY)[0]
        write_run(path, spec, epochs_done=3)
        say(path, Stage("finished"))
        async with opened(path, view="9") as pilot:
            assert text_of(pilot, "summary") == "Stopped: 0 of 6 runs done, 6 left. c continues."
            assert "■ stopped" in _row(pilot, "supervised full 0")
            write_record(
                path / "runs" / spec.run_id, read_record(path / "runs" / spec.run_id).with_(state=State.RUNNING)
            )
            await until(pilot, lambda: text_of(pilot, "summary").startswith("Interrupted: its process has ended"))
            assert "! interrupted" in _row(pilot, "supervised full 0")

    async def test_failures_say_why_and_hostile_words_stay_words(self, path: Path) -> None:
        spec = run_specs(STUDY)[0]
        evil = "\x1b]0;gone\x07 [/] [@click=app.quit]x[/] \u202eabc\n" + "w" * 300
        write_run(path, spec, epochs_done=3, state=State.FAILED, reason=f"the loss is nan {evil}")
        (path / "runs" / spec.run_id / "log.txt").write_text(f"Traceback {evil}\n\udc80\n", errors="surrogateescape")
        say(path, Stage("failed", failure=Failure("/data/x[/]", f"no such folder {evil}", "mount it", 2)))
        async with opened(path, view="9") as pilot:
            assert "Failed. /data/x[/]: no such folder \\x1b]0;gone" in text_of(pilot, "summary")
            assert "fix: mount it" in text_of(pilot, "log")
            await press(pilot, "j")
            await until(pilot, lambda: "Traceback" in text_of(pilot, "log"))
            assert "failed: the loss is nan \\x1b]0;gone" in text_of(pilot, "log")
            assert all(char.isprintable() or char == "\n" for char in written(pilot))

    async def test_a_damaged_run_is_named(self, path: Path) -> None:
        run_path = path / "runs" / run_specs(STUDY)[0].run_id
        (run_path / "run.json").write_text("{")
        async with opened(path, view="9", size=(120, 40)) as pilot:
            assert "1 damaged" in text_of(pilot, "head")
            await press(pilot, "end")
            await until(pilot, lambda: "fix: rm -r" in text_of(pilot, "log"))

    async def test_a_log_that_leads_elsewhere_is_not_read(self, path: Path, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text("secret")
        (path / "log.txt").symlink_to(tmp_path / "secret")
        async with opened(path, view="9", size=(120, 40)) as pilot:
            await until(pilot, lambda: "leads out of the study folder" in text_of(pilot, "log"))
            assert "secret" not in written(pilot)


class TestStopAndContinue:
    async def test_x_asks_and_then_the_stop_file_is_there(self, path: Path) -> None:
        folder = StudyFolder(path)
        with running(path, STUDY):
            async with opened(path, view="9") as pilot:
                await press(pilot, "x", "escape")
                assert view_of(pilot).VIEW == "jobs" and not folder.stop_path.exists()
                await press(pilot, "x")
                assert "Each run finishes the epoch" in text_of(pilot, "confirming")
                await press(pilot, "x")
                await until(pilot, folder.stop_path.exists)
                assert not folder.stop_path.read_text().startswith("now")
                await until(pilot, lambda: text_of(pilot, "summary").startswith("Stopping on"))
                await press(pilot, "x", "c")
                assert "is stopping at the next epoch already" in _said(pilot) and "continue it when" in _said(pilot)
                await press(pilot, "X")
                assert re.search(r"What 2 runs did .* is lost, about \d s of work", text_of(pilot, "confirming"))
                await press(pilot, "y")
                await until(pilot, lambda: folder.stop_path.read_text().startswith("now"))

    async def test_a_folder_that_cannot_be_written_says_so(self, path: Path) -> None:
        (path / "stop").mkdir()
        (path / "stop" / "x").touch()
        with running(path, STUDY):
            async with opened(path, view="9") as pilot:
                await press(pilot, "X", "X")
                await until(pilot, lambda: "cannot be written" in _said(pilot) and "fix: " in _said(pilot))

    async def test_a_study_of_another_machine_says_where_it_runs(self, path: Path) -> None:
        holder_path = path / "study.lock" / "holder.json"
        with locked(path / "study.lock"):
            mine = json.loads(holder_path.read_text())
        holder_path.parent.mkdir()  # not held from here: who finds his lock taken over ends himself
        holder_path.write_text(json.dumps(mine | {"host": "gpu07"}))
        say(path, Stage("running"))
        async with opened(path, view="9") as pilot:
            assert "Running on gpu07" in text_of(pilot, "summary")
            assert "CPU and memory of gpu07 –" in text_of(pilot, "head")
            await press(pilot, "c", "x")
            assert f"running already: process {os.getpid()} on gpu07" in _said(pilot)
            assert f"process {os.getpid()} on gpu07" in text_of(pilot, "confirming")
            await press(pilot, "y")
            await until(pilot, (path / "stop").exists)

    async def test_c_really_continues_a_study(self, tmp_path: Path) -> None:
        request = load_study(real_studies.write_study(tmp_path, methods=["linear"]))
        folder = make_study_folder(request, tmp_path / "out")
        async with opened(folder.path, view="9") as pilot:
            await press(pilot, "c")
            await until(pilot, lambda: text_of(pilot, "summary").startswith("Finished: 1 of 1"), timeout_s=120)
            await until(pilot, lambda: "✓ done" in _row(pilot, "supervis… linear 0"))
            await press(pilot, "j")
            await until(pilot, lambda: "epoch 2 of 2: train_loss" in text_of(pilot, "log"))

    async def test_a_study_that_cannot_start_says_why(self, path: Path) -> None:
        async with opened(path, view="9") as pilot:
            atomic_write(path / "log.txt" / "x", "")
            await press(pilot, "c")
            await until(pilot, lambda: "log.txt" in _said(pilot) and "fix: " in _said(pilot))


class TestWords:
    def _progress(self, **changes: object) -> StudyProgress:
        base = StudyProgress("running", 0, 0, 2, 0, 0, 3, 16, 14400.0, True, {}, (), None, condition=Condition.RUNNING)
        return replace(base, **changes)  # type: ignore[arg-type]

    def _snapshot(self, path: Path, progress: StudyProgress):  # type: ignore[no-untyped-def]
        from simtui.reader import Snapshot

        return Snapshot(path, "s", progress.records, progress=progress)

    def test_the_end_has_a_day_where_it_is_another(self, path: Path) -> None:
        said = summary(self._snapshot(path, self._progress()), NOW, Keys())
        assert said == "Running, 1 worker. Ends about Thu 03:30, in 4 h 00 min."
        late = self._progress(time_left_s=864000.0, n_workers=2, started_s=NOW.timestamp() - 90)
        said = summary(self._snapshot(path, late), NOW, Keys())
        assert said == "Running, 2 workers, since 23:28. Ends about 2026-03-14 23:30, in 240 h 00 min."

    def test_devices_stand_with_what_was_measured(self, path: Path) -> None:
        def hint(device: str, *load: float | None) -> RunProgress:
            return RunProgress(1, 8, 1, 10, 50.0, 1.0, 0.0, device, *load)

        runs = {"a": hint("cuda:0", 12300.0, 80000.0, 0.97), "b": hint("cuda:1", 500.0, 80000.0, None)}
        runs |= {f"c{i}": hint(f"cuda:{i}", None, None, None) for i in range(2, 9)}
        load = MachineLoad("vm", 2.6, 2, 3100.0, 7800.0)
        for width, n_lines in ((80, 3), (120, 6)):
            snapshot = self._snapshot(path, self._progress(runs=runs))
            lines = head(snapshot, JobDetails("", {}, load=load), NOW.timestamp(), width, n_lines, False)
            text = "\n".join("".join(span.text for span in line) for line in lines)
            assert "CPU load  2.6 of 2 cores" in text and "3.1 of 7.8 GB" in text
            assert "cuda:0  12.3 of 80.0 GB busy  97 %" in text or width == 80
            assert "cuda:1   0.5 of 80.0 GB busy –" in text or width == 80
            assert ("+" in text) == (width == 80) and len(lines) <= n_lines
            assert max(line_width(line) for line in lines) <= width

    def test_devices_that_train_one_run_are_one_entry_and_processors_none(self, path: Path) -> None:
        runs = {
            "a": RunProgress(1, 8, 1, 10, 50.0, 1.0, 0.0, "cuda:0+1", 24600.0, 160000.0, 0.9),
            "b": RunProgress(1, 8, 1, 10, 50.0, 1.0, 0.0, "cpu ×2", None, None, None),
        }
        snapshot = self._snapshot(path, self._progress(runs=runs))
        load = MachineLoad("vm", 2.6, 2, 3100.0, 7800.0)
        lines = head(snapshot, JobDetails("", {}, load=load), NOW.timestamp(), 120, 6, False)
        text = "\n".join("".join(span.text for span in line) for line in lines)
        assert "cuda:0+1  24.6 of 160.0 GB busy  90 %" in text and "cpu ×2" not in text

    def test_a_load_that_the_system_does_not_tell_is_a_dash(self, path: Path) -> None:
        load = MachineLoad("vm", None, 2, 3100.0, 7800.0)
        lines = head(self._snapshot(path, self._progress()), JobDetails("", {}, load=load), 0.0, 80, 3, False)
        assert "CPU load    – of 2 cores" in "".join(span.text for span in lines[2])

    def test_the_reason_takes_the_room_there_is(self, path: Path) -> None:
        records = tuple(
            write_run(path, spec, epochs_done=2, state=State.FAILED, reason="the loss is nan; " * 9)
            for spec in run_specs(STUDY)
        )
        snapshot = self._snapshot(path, self._progress(records=records, is_running=False))
        for width in (77, 117, 160):
            made = sheet(snapshot, None, width, False)
            gap, columns = fit_columns(made, width)
            assert sum(each for _, each in columns) + gap * (len(columns) - 1) <= width
        assert "failed: the loss is nan; the loss" in made.rows[1].cells[-1].text

    def test_latest_done_first(self, path: Path) -> None:
        records = []
        for i, spec in enumerate(run_specs(STUDY)):
            session = Session(0, "vm", "cpu", "float32", 1, {}, started_at=f"2026-01-0{i + 1}")
            records.append(write_run(path, spec, sessions=(session,)))
        made = sheet(self._snapshot(path, self._progress(records=tuple(records))), None, 120, False)
        assert [row.key for row in made.rows[1:]] == [record.run_id for record in reversed(records)]

    def test_what_stopping_at_once_loses(self, path: Path) -> None:
        record = write_run(path, run_specs(STUDY)[0], epochs_done=2, state=State.RUNNING)
        assert lost_by_stopping(self._progress()).startswith("No run is inside an epoch")
        hints = {record.run_id: RunProgress(3, 8, 5, 10, 1.0, 1.0)}
        slow = replace(record, epoch_seconds=(60.0, 20.0))
        assert "1 run did of the epochs under way is lost, about 20 s" in lost_by_stopping(
            self._progress(runs=hints, records=(slow,))
        )
        unmeasured = replace(record, epoch_seconds=())
        assert "is lost; every" in lost_by_stopping(self._progress(runs=hints, records=(unmeasured,)))

    def test_small_drawings(self) -> None:
        assert sparkline([0.0, 1.0, None, float("nan"), float("inf"), 0.5]) == "▁█   ▅"
        assert sparkline([]) == "" and sparkline([2.0, 2.0]) == "▄▄"
        assert sparkline(range(100), 4) == "▁▃▆█" and len(sparkline(range(100))) == 10
        assert course([2.0, 1.0, 0.5], True) == "2.00→0.50" and course([], True) == "" and course([1.0], False) == "▄"
        assert bar(0.5, 4, False) == ("━━", "──") and bar(1.5, 4, True) == ("####", "")
        assert bar(-1, 2, True) == ("", "..")
        assert clipped("abcdef", 4) == "abc…" and clipped("abc", 3) == "abc" and clipped("abc", 0) == ""
        assert clipped("漢字漢字", 5) == "漢字…"
