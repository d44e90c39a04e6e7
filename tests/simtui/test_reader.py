"""The reader thread: what it posts when files change, when they are damaged, and when nothing happens."""

from __future__ import annotations

import queue
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.analysis.options import TableOptions
from engine.errors import DamagedError, MachineError, StudyError
from engine.lock import locked
from engine.runs.record import State, read_record, write_record
from engine.runs.results import Results, SimilarityKey
from engine.study import run_specs
from simtui.analyses import Found, found_of
from simtui.reader import (
    CALM_POLLS,
    Answer,
    Broken,
    News,
    Reader,
    RunQuestion,
    Snapshot,
    StudyQuestion,
    _ResultsCache,
    _StudyReader,
)
from tests.simtui.studies import study_of, write_run, write_study

KEY = SimilarityKey("target", "cls", "linear_cka")


class Listening:
    """A reader and what it has posted."""

    def __init__(self, *paths: Path) -> None:
        self.posted: queue.Queue[News] = queue.Queue()
        self.reader = Reader(paths, self.posted.put, poll_s=0.02)
        self.reader.start()

    def next(self, is_wanted: Callable[[News], bool], timeout_s: float = 30.0) -> News:
        while not is_wanted(news := self.posted.get(timeout=timeout_s)):
            pass
        return news

    def snapshot(self, is_wanted: Callable[[Snapshot], object] = lambda _: True) -> Snapshot:
        news = self.next(lambda each: isinstance(each, Snapshot) and bool(is_wanted(each)))
        assert isinstance(news, Snapshot)
        return news

    def answer(self) -> Answer:
        news = self.next(lambda each: isinstance(each, Answer))
        assert isinstance(news, Answer)
        return news

    def assert_quiet(self, for_s: float = 0.2) -> None:
        with pytest.raises(queue.Empty):
            self.posted.get(timeout=for_s)


@pytest.fixture
def listening(small_study: Path) -> Iterator[Listening]:
    found = Listening(small_study)
    yield found
    found.reader.stop()


def _spec_ids() -> list[str]:
    return [spec.run_id for spec in run_specs(study_of(("bundled:supervised",), seeds=1, epochs=2))]


def test_a_study_is_read_once_and_then_only_when_it_changes(listening: Listening, small_study: Path) -> None:
    first = listening.snapshot()
    assert [record.spec.method for record in first.records] == ["full", "linear", "scratch"]
    assert (first.name, first.measures, first.has_origin) == ("sample_study", ("linear_cka", "debiased_cka"), True)
    listening.assert_quiet()
    path = small_study / "runs" / first.records[0].run_id
    write_record(path, read_record(path).with_(state=State.STOPPED, reason="by hand"))
    assert listening.snapshot().records[0].reason == "by hand"
    listening.assert_quiet()


def test_runs_that_come_and_go_are_seen(listening: Listening, small_study: Path) -> None:
    listening.snapshot()
    gone = small_study / "runs" / _spec_ids()[1]
    shutil.rmtree(gone)
    assert len(listening.snapshot().records) == 2
    write_run(small_study, run_specs(study_of(("bundled:supervised",), seeds=1, epochs=2))[1])
    assert len(listening.snapshot(lambda s: len(s.records) == 3).records) == 3


def test_a_running_run_is_seen_to_have_died_though_no_file_changes(tmp_path: Path) -> None:
    study = study_of(("bundled:supervised",), seeds=1, epochs=2)
    write_study(tmp_path, study)
    spec = run_specs(study)[0]
    lock_path = tmp_path / "runs" / spec.run_id / "run.lock"
    with locked(lock_path):
        write_run(tmp_path, spec, epochs_done=1, state=State.RUNNING)
        found = Listening(tmp_path)
        try:
            assert found.snapshot().records[0].state is State.RUNNING
            shutil.rmtree(lock_path)
            assert found.snapshot().records[0].state is State.INTERRUPTED
        finally:
            found.reader.stop()


def test_a_question_is_answered_and_answered_again_when_its_file_changes(
    listening: Listening, small_study: Path
) -> None:
    listening.snapshot()
    spec = run_specs(study_of(("bundled:supervised",), seeds=1, epochs=2))[0]
    listening.reader.watch("map", RunQuestion(spec.run_id))
    first = listening.answer()
    assert isinstance(first.value, Results) and first.value.n_epochs == 3
    listening.assert_quiet()
    write_run(small_study, spec, epochs_done=1)
    again = listening.answer()
    assert isinstance(again.value, Results) and again.value.n_epochs == 2
    listening.reader.watch("map", None)
    # Not the state at the start: a reader that missed the one between would see no change.
    write_run(small_study, spec, epochs_done=0)
    listening.snapshot(lambda snapshot: snapshot.records[0].epochs_done == 0)
    listening.assert_quiet()


def test_similarities_come_in_the_order_of_the_study(tmp_path: Path) -> None:
    measures = ("rsa", "linear_cka", "debiased_cka")
    write_study(tmp_path, study_of(("bundled:supervised",), seeds=1, epochs=1, measures=measures))
    found = Listening(tmp_path)
    try:
        found.snapshot()
        found.reader.watch("trajectories", StudyQuestion("trajectories", TableOptions()))
        answer = found.answer()
        assert isinstance(answer.value, Found)
        assert [key.measure for key in answer.value.data.keys if key.pooling == "cls"] == list(measures)
    finally:
        found.reader.stop()


def test_a_run_without_results_is_answered_with_nothing_until_there_are_some(
    listening: Listening, small_study: Path
) -> None:
    spec = run_specs(study_of(("bundled:supervised",), seeds=1, epochs=2))[0]
    (small_study / "runs" / spec.run_id / "results.h5").unlink()
    listening.snapshot()
    listening.reader.watch("map", RunQuestion(spec.run_id))
    assert listening.answer().value is None
    write_run(small_study, spec)
    assert isinstance(listening.answer().value, Results)


def test_damage_is_an_answer(listening: Listening, small_study: Path) -> None:
    run_id = _spec_ids()[0]
    (small_study / "runs" / run_id / "results.h5").write_bytes(b"not hdf5 at all")
    listening.snapshot()
    listening.reader.watch("map", RunQuestion(run_id))
    error = listening.answer().value
    assert isinstance(error, DamagedError) and "&& simtui run" in error.fix


def test_a_damaged_record_does_not_hide_the_others(listening: Listening, small_study: Path) -> None:
    listening.snapshot()
    (small_study / "runs" / _spec_ids()[0] / "run.json").write_text("{")
    found = listening.snapshot()
    assert len(found.records) == 2
    assert [each.run_id for each in found.damaged] == [_spec_ids()[0]]


def test_a_folder_that_cannot_be_read_says_so(small_study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("engine.runs.study_folder.StudyFolder.running_by", fails)  # root may read anything
    found = Listening(small_study)
    error = found.snapshot().error
    found.reader.stop()
    assert isinstance(error, MachineError) and error.problem == "cannot be read (Permission denied)"


def test_trajectories_leave_out_what_is_damaged_and_say_so(listening: Listening, small_study: Path) -> None:
    (small_study / "runs" / _spec_ids()[0] / "results.h5").write_bytes(b"broken")
    listening.snapshot()
    listening.reader.watch("trajectories", StudyQuestion("trajectories", TableOptions()))
    found = listening.answer().value
    assert isinstance(found, Found)
    assert [each.method for each in found.value] == ["linear", "scratch"]
    assert [each.run_id for each in found.data.unreadable] == [_spec_ids()[0]]
    assert len(found.data.keys) == 4 and found.data.layers[0] == "block 1"


def test_backbones_without_the_layer_are_left_out_of_its_trajectory(tmp_path: Path) -> None:
    study = study_of(("bundled:supervised", "bundled:image-text"), seeds=1, epochs=1)
    write_study(tmp_path, study)
    for spec in run_specs(study):
        write_run(tmp_path, spec, n_layers=6 if spec.backbone.name == "bundled:supervised" else 4)
    found = Listening(tmp_path)
    try:
        found.snapshot()
        found.reader.watch("trajectories", StudyQuestion("trajectories", TableOptions(layer="block 6")))
        value = found.answer().value
        assert isinstance(value, Found)
        assert {each.backbone for each in value.value} == {"bundled:supervised"}
    finally:
        found.reader.stop()


def test_a_folder_that_is_no_study_becomes_one(tmp_path: Path) -> None:
    found = Listening(tmp_path / "later")
    try:
        assert isinstance(found.snapshot().error, StudyError)
        found.assert_quiet()
        write_study(tmp_path / "later", study_of(("bundled:supervised",), seeds=1, epochs=1))
        assert found.snapshot(lambda snapshot: len(snapshot.records) == 3).error is None
    finally:
        found.reader.stop()


def test_another_study_can_be_opened(small_study: Path, study: Path) -> None:
    found = Listening(small_study, study)
    try:
        assert len(found.snapshot().records) == 3
        found.reader.open(1)
        assert len(found.snapshot(lambda snapshot: snapshot.path == study).records) == 12
    finally:
        found.reader.stop()


def test_a_defect_is_handed_over_and_not_swallowed(small_study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr("simtui.reader._StudyReader.poll", fails)
    found = Listening(small_study)
    news = found.posted.get(timeout=5)
    assert isinstance(news, Broken) and isinstance(news.error, ZeroDivisionError)
    found.reader.stop()


def test_the_cache_holds_no_more_than_it_may(study: Path) -> None:
    from engine.runs.study_folder import StudyFolder

    folder = StudyFolder(study)
    run_ids = [path.name for path in sorted(folder.runs_path.iterdir())]
    one = _ResultsCache(1)
    first = one.results(folder, run_ids[0])
    assert one.results(folder, run_ids[0]) is first
    one.results(folder, run_ids[1])
    assert one.results(folder, run_ids[0]) is not first
    roomy = _ResultsCache(1 << 20)
    kept = [roomy.results(folder, run_id) for run_id in run_ids]
    assert [roomy.results(folder, run_id) for run_id in run_ids] == kept
    assert roomy.results(folder, "nobody") is None


def test_what_nobody_runs_is_looked_at_less_often_until_somebody_is_there(
    small_study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: queue.Queue[int] = queue.Queue()
    poll = _StudyReader.poll
    monkeypatch.setattr(_StudyReader, "poll", lambda self: (looks.put(1), poll(self))[1])
    found = Listening(small_study)
    try:
        found.snapshot()
        reader = _StudyReader(small_study)
        assert reader.is_running  # not known yet
        reader.poll()
        assert not reader.is_running
        now = time.monotonic()
        found.reader._poll_s, found.reader._touched_s = 10.0, now - 100
        assert not found.reader._is_due(reader, now - 11)
        assert found.reader._is_due(reader, now - 10 * CALM_POLLS)
        found.reader.expect(())
        assert found.reader._is_due(reader, now - 11)
        with locked(small_study / "study.lock"):
            reader.poll()
            found.reader._touched_s = now - 100
            assert reader.is_running and found.reader._is_due(reader, now - 11)
    finally:
        found.reader.stop()


def test_what_is_expected_is_found_in_advance_and_made_again_when_files_change(
    small_study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    monkeypatch.setattr("simtui.reader.found_of", lambda *asked: (made.append(asked[0]), found_of(*asked))[1])
    question, other = (StudyQuestion(view, TableOptions()) for view in ("trajectories", "space"))
    reader = _StudyReader(small_study)
    assert not list(reader.ahead([question]))  # nothing is known of the study
    reader.poll()
    assert list(reader.ahead([question, other]))
    assert made == ["trajectories", "space"] and "plotext" in sys.modules
    assert not list(reader.ahead([question, other]))  # nothing is left to do
    (answer,) = reader.answers([question], [question, other])
    assert isinstance(answer.value, Found) and len(made) == 2
    write_run(small_study, run_specs(study_of(("bundled:supervised",), seeds=1, epochs=2))[0], epochs_done=1)
    reader.poll()
    (answer,) = reader.answers([question], [question])
    assert isinstance(answer.value, Found) and min(run.n_epochs for run in answer.value.data.runs) == 2
    assert made == ["trajectories", "space", "trajectories"]
    assert set(reader._found) == {question}  # the other is expected no more


def test_a_run_whose_record_alone_says_that_it_is_done_counts_as_done(small_study: Path) -> None:
    reader, question = _StudyReader(small_study), StudyQuestion("space", TableOptions())
    path = small_study / "runs" / _spec_ids()[0]
    record = read_record(path)
    write_record(path, record.with_(state=State.STOPPED))
    reader.poll()
    (before,) = reader.answers([question])
    write_record(path, record)
    reader.poll()
    (now,) = reader.answers([question])
    assert isinstance(before.value, Found) and isinstance(now.value, Found)
    assert len(now.value.data.done) == len(before.value.data.done) + 1


def test_of_a_large_study_only_the_first_runs_are_read_ahead(
    small_study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simtui.reader.AHEAD_RUNS", 2)
    study = _StudyReader(small_study)
    snapshot = study.poll()
    assert snapshot is not None and len(snapshot.records) > 2 and study._data is not None
    question = StudyQuestion("space", TableOptions())
    list(study.ahead([question, RunQuestion(snapshot.records[0].run_id)]))
    assert len(study._data._held) == 2 and not study._found and len(study._cache._held) == 1
    assert not list(study.ahead([question, RunQuestion(snapshot.records[0].run_id)]))
    (answer,) = study.answers([question])  # asked for, all of them are looked at
    assert isinstance(answer.value, Found) and len(answer.value.data.runs) == len(snapshot.records)


def test_working_ahead_stops_for_a_wish(small_study: Path) -> None:
    reader = Reader([small_study], lambda _: None)
    study = _StudyReader(small_study)
    study.poll()
    reader.expect([StudyQuestion("space", TableOptions())])
    reader._work_ahead(study)
    assert not study._found  # somebody was there a moment ago
    reader._touched_s -= 10
    reader._wake.set()
    reader._work_ahead(study)
    assert not study._found
    reader._wake.clear()
    reader._work_ahead(study)
    assert len(study._found) == 1


def test_stopping_before_the_start_is_no_error(tmp_path: Path) -> None:
    Reader([tmp_path], lambda _: None).stop()
