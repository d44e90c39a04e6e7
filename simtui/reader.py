"""Owns the one thread that reads results; knows nothing of screens, and draws nothing.

Screens say what they look at (`watch`); the thread answers at once, and again whenever the files behind the answer
change. It looks at modification times about once a second, less often while nobody runs the study, opens only what has
changed, and keeps ready results in a small cache. Answers carry their question, so that a screen can drop one that it
no longer asks. While nothing is wanted of it, it finds the answers to what may be asked next (`expect`).
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from engine.analysis.attention import study_attention
from engine.analysis.options import TableOptions
from engine.analysis.study_data import StudyData, StudyDataCache, in_study_order
from engine.errors import MachineError, SimtuiError
from engine.jobs.details import JobDetails, JobReader
from engine.jobs.progress import StudyProgress, study_progress
from engine.runs.attention_maps import AttentionMaps
from engine.runs.catalog import DamagedRun, Stamp, file_stamp
from engine.runs.record import RUN_FILE, RunRecord, State
from engine.runs.results import RESULTS_FILE, Results
from engine.runs.study_folder import Listing, StudyFolder
from simtui.actions import MAP
from simtui.analyses import Found, found_of

POLL_S = 1.0
# Nobody runs the study and nobody touches a key: one look in so many. Of 1,000 runs a look takes 7 ms.
CALM_POLLS = 3
_STAMPS_S = 10.0
CACHE_BYTES = 64 << 20
# After so long without a wish the thread works ahead, and lets the screen have the processor after each bit of it.
_CALM_S = 1.0
_BREATH_S = 0.002
# So many runs are read ahead: 10,000 take minutes and 200 MB, which nobody may ever ask for.
AHEAD_RUNS = 2_000
_DRAWN_WITH = ("plotext",)  # what views load when they are first drawn: 0.3 s


@dataclass(frozen=True)
class Snapshot:
    """A study as it stood at one moment. `error` says why there is nothing to show."""

    path: Path
    name: str
    records: tuple[RunRecord, ...] = ()
    damaged: tuple[DamagedRun, ...] = ()
    measures: tuple[str, ...] = ()
    has_origin: bool = False
    progress: StudyProgress | None = None
    error: SimtuiError | None = None

    @property
    def is_comparison(self) -> bool:
        """Whether it is of two checkpoints that are compared, and of no training."""
        return bool(self.records) and all(record.is_comparison for record in self.records)

    def has_run(self, run_id: str | None) -> bool:
        """Whether a run is there, damaged or not."""
        return self.record(run_id) is not None or any(broken.run_id == run_id for broken in self.damaged)

    def record(self, run_id: str | None) -> RunRecord | None:
        """The record of a run, if it is there and readable."""
        return next((record for record in self.records if record.run_id == run_id), None)


@dataclass(frozen=True)
class RunQuestion:
    """All results of one run; answered with `Results`, or None while there are none.

    `slot` is where they are shown: two runs may be in sight, and one run in two places.
    """

    run_id: str
    slot: str = MAP


@dataclass(frozen=True)
class StudyQuestion:
    """What the analysis of a view says of all runs; answered with `Found`."""

    view: str
    options: TableOptions


@dataclass(frozen=True)
class AttentionQuestion:
    """The attention maps of a run; answered with those of θ* and its own."""

    run_id: str


@dataclass(frozen=True)
class JobsQuestion:
    """What there is to see of the runs that go on; answered with `JobDetails`. An empty `run_id` is the study."""

    run_id: str


Question = RunQuestion | StudyQuestion | AttentionQuestion | JobsQuestion
Maps = tuple[AttentionMaps, AttentionMaps]


@dataclass(frozen=True)
class Answer:
    """What is on disk for a question, or the error that stands in its place."""

    question: Question
    value: Results | Found | Maps | JobDetails | SimtuiError | None


@dataclass(frozen=True)
class Broken:
    """The thread met a defect of simtui and has ended."""

    error: BaseException


News = Snapshot | Answer | Broken


class Reader:
    """Reads one of several studies at a time and posts what it finds.

    Args:
        paths: the study folders; the first is read until `open` names another.
        post: called on the thread with each piece of news; must only hand it over.
    """

    def __init__(self, paths: Sequence[Path], post: Callable[[News], object], poll_s: float = POLL_S) -> None:
        self._paths, self._post, self._poll_s = tuple(paths), post, poll_s
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._is_stopping = False
        self._watched: dict[str, Question] = {}
        self._expected: tuple[Question, ...] = ()
        self._touched_s = time.monotonic()
        self._index = 0
        self._thread = threading.Thread(target=self._run, name="simtui-reader", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread, waiting for what it reads now."""
        self._is_stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def add(self, path: Path) -> None:
        """One more study, after the others."""
        with self._lock:
            self._paths = (*self._paths, path)

    def open(self, index: int) -> None:
        """Turns to another of the studies."""
        with self._lock:
            self._index, self._watched, self._expected = index, {}, ()
        self._wake.set()

    def expect(self, questions: Sequence[Question]) -> None:
        """What may be asked next. Somebody is there: the files are looked at soon, and work ahead waits."""
        with self._lock:
            self._expected, self._touched_s = tuple(questions), time.monotonic()

    def watch(self, slot: str, question: Question | None) -> None:
        """Answers the question now and whenever its files change; one question a slot, None for no more answers."""
        with self._lock:
            if self._watched.get(slot) == question:
                return
            if question is None:
                del self._watched[slot]
            else:
                self._watched[slot] = question
        self._wake.set()

    def _run(self) -> None:
        try:
            study, index, polled_s, answered = None, -1, 0.0, None
            while not self._is_stopping:
                with self._lock:
                    wanted, watched, expected = self._index, tuple(self._watched.values()), self._expected
                if study is None or wanted != index:
                    study, index, polled_s = _StudyReader(self._paths[wanted]), wanted, 0.0
                is_due = polled_s == 0.0 or self._is_due(study, polled_s)
                if is_due:
                    polled_s = time.monotonic()
                    if (snapshot := study.poll()) is not None:
                        self._post(snapshot)
                if is_due or watched != answered:
                    answered = watched
                    for answer in study.answers(watched, expected):
                        self._post(answer)
                self._work_ahead(study)
                since_s = (time.monotonic() - polled_s) % self._poll_s
                self._wake.wait(max(0.01, self._poll_s - since_s))
                self._wake.clear()
        except BaseException as error:  # handed over: the screen must not wait for a thread that has died
            self._post(Broken(error))

    def _is_due(self, study: _StudyReader, polled_s: float) -> bool:
        """Whether it is time to look at the files."""
        is_calm = not study.is_running and self._touched_s < polled_s
        return time.monotonic() - polled_s >= self._poll_s * (CALM_POLLS if is_calm else 1)

    def _work_ahead(self, study: _StudyReader) -> None:
        """Until there is nothing left to do, or something is wanted: only where no study needs the processor."""
        with self._lock:
            expected, touched_s = self._expected, self._touched_s
        if study.is_running or time.monotonic() - touched_s < _CALM_S:
            return
        for _ in study.ahead(expected):
            if self._wake.wait(_BREATH_S) or self._touched_s != touched_s:
                return


class _StudyReader:
    """What the thread knows of one study."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._folder: StudyFolder | None = None
        self._listing: Listing | None = None
        self._records: list[RunRecord] = []
        self._last: Snapshot | None = None
        self._progress: StudyProgress | None = None
        self._answered: dict[Question, object] = {}
        self._found: dict[Question, tuple[object, Found]] = {}  # with the stamp of what it was made from
        self._prepared: tuple[object, ...] | None = None  # for what questions and which state `ahead` is done
        self._data_now: tuple[object, StudyData] | None = None  # with its stamp
        self._stamp: dict[str, tuple[Stamp | None, State]] = {}
        self._stamped_s: float | None = None
        self._cache = _ResultsCache(CACHE_BYTES)
        self._data: StudyDataCache | None = None
        self._jobs: JobReader | None = None

    def poll(self) -> Snapshot | None:
        """The study as it stands, or None where nothing has changed since the last call."""
        try:
            snapshot = self._snapshot()
        except SimtuiError as error:
            snapshot = Snapshot(self._path, self._path.name, error=error)
        except OSError as error:
            problem = f"cannot be read ({error.strerror or error})"
            failure = MachineError(str(self._path), problem, "check the path and its permissions")
            snapshot = Snapshot(self._path, self._path.name, error=failure)
        if snapshot == self._last or (self._last and snapshot.error and str(snapshot.error) == str(self._last.error)):
            return None
        self._last = snapshot
        return snapshot

    @property
    def is_running(self) -> bool:
        """Whether somebody runs the study, as far as is known."""
        return self._progress is None or self._progress.is_running

    def ahead(self, expected: Sequence[Question]) -> Iterator[None]:
        """Finds the answers to what may be asked, a bit at a time; nothing where that has been done.

        Of a study of more than `AHEAD_RUNS` the first are read, and what needs all of them waits until it is asked.
        """
        wanted = (tuple(expected), self._last)
        if self._folder is None or self._data is None or wanted == self._prepared or not expected:
            return
        self._keep(expected)
        for name in _DRAWN_WITH:
            import_module(name)
            yield
        for record in self._records[:AHEAD_RUNS]:
            if self._data.read_ahead(record):
                yield
        is_large = len(self._records) > AHEAD_RUNS
        for question in expected:
            if not (is_large and isinstance(question, StudyQuestion)):
                self._value(self._folder, question, self._stamp_of(question))
                yield
        self._prepared = wanted

    def answers(self, watched: Sequence[Question], expected: Sequence[Question] = ()) -> list[Answer]:
        """Answers to the questions that are new or whose files have changed."""
        self._keep((*watched, *expected))
        self._answered = {question: stamp for question, stamp in self._answered.items() if question in watched}
        found = []
        for question in watched:
            stamp = self._stamp_of(question)
            if self._folder is not None and self._answered.get(question) != stamp:
                self._answered[question] = stamp
                value = stamp if isinstance(stamp, JobDetails) else self._value(self._folder, question, stamp)
                found.append(Answer(question, value))
        return found

    def _keep(self, questions: Sequence[Question]) -> None:
        """One answer to each of these is held, and no other."""
        self._found = {question: found for question, found in self._found.items() if question in questions}

    def _snapshot(self) -> Snapshot:
        if self._folder is None:
            self._folder = StudyFolder(self._path)
            self._data = StudyDataCache(self._folder)
            self._jobs = JobReader(self._folder)
        folder, study = self._folder, self._folder.study
        listing = folder.listing()
        is_running = folder.running_by() is not None
        if is_running or listing != self._listing or self._progress is None or self._progress.is_running:
            self._progress = study_progress(folder, listing)
        if listing is not self._listing:
            self._stamped_s = None
            self._listing = listing
            self._records = list(in_study_order(listing.records, study))
        return Snapshot(
            self._path,
            study.study.name,
            tuple(self._records),
            listing.damaged,
            study.measure.similarity,
            study.origin is not None,
            self._progress,
        )

    def _stamp_of(self, question: Question) -> object:
        if self._folder is None:
            return None
        if isinstance(question, JobsQuestion):  # of many small files, and cheap: the answer is its own stamp
            return self._jobs.read(question.run_id, self._progress) if self._jobs and self._progress else None
        if isinstance(question, RunQuestion | AttentionQuestion):
            name = RESULTS_FILE if isinstance(question, RunQuestion) else RUN_FILE
            return file_stamp(self._folder.run_path(question.run_id) / name), "asked"
        return self._stamp_of_results(self._folder)

    def _stamp_of_results(self, folder: StudyFolder) -> object:
        """Of the results of all runs; looked at when a record has changed, which is written after them, and sometimes.

        With the state: a run whose last results are there is done only when its record says so.
        """
        if self._stamped_s is None or time.monotonic() - self._stamped_s >= _STAMPS_S or self.is_running:
            self._stamped_s = time.monotonic()
            stamp = {
                each.run_id: (file_stamp(folder.run_path(each.run_id) / RESULTS_FILE), each.state)
                for each in self._records
            }
            if stamp != self._stamp:
                self._stamp = stamp
        return self._stamp

    def _value(
        self, folder: StudyFolder, question: Question, stamp: object
    ) -> Results | Found | Maps | SimtuiError | None:
        if isinstance(question, StudyQuestion):
            held = self._found.get(question)
            if held is None or held[0] != stamp:
                held = self._found[question] = (stamp, found_of(question.view, self._data_of(stamp), question.options))
            return held[1]
        try:
            if isinstance(question, AttentionQuestion):
                return study_attention(folder, folder.record(question.run_id))
            return self._cache.results(folder, question.run_id)
        except SimtuiError as error:
            return error

    def _data_of(self, stamp: object) -> StudyData:
        assert self._data is not None
        if self._data_now is None or self._data_now[0] != stamp:
            self._data_now = stamp, self._data.read(self._records)
        return self._data_now[1]


class _ResultsCache:
    """Ready results by run and by the stamp of their file; the longest unused go first."""

    def __init__(self, n_bytes: int) -> None:
        self._n_bytes = n_bytes
        self._held: OrderedDict[str, tuple[Stamp, Results]] = OrderedDict()

    def results(self, folder: StudyFolder, run_id: str) -> Results | None:
        """The results of a run as they are on disk now; None where there are none yet.

        Raises:
            DamagedError: they are damaged.
        """
        stamp = file_stamp(folder.run_path(run_id) / RESULTS_FILE)
        if stamp is None:
            return None
        held = self._held.get(run_id)
        if held is None or held[0] != stamp:
            self._held[run_id] = held = (stamp, folder.results(run_id))
        self._held.move_to_end(run_id)
        while len(self._held) > 1 and sum(_n_bytes(each) for _, each in self._held.values()) > self._n_bytes:
            self._held.popitem(last=False)
        return held[1]


def _n_bytes(results: Results) -> int:
    held = (results.similarity, results.quality, results.layer_quality)
    return sum(values.nbytes for each in held for values in each.values())
