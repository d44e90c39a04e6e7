"""What the app costs as its user meets it: under a pseudo terminal, from the key to the last byte of the answer.

python -m tests.benchmarks.app                                   # everything, and the peers that are installed
python -m tests.benchmarks.app --only map --only table           # some parts
python -m tests.benchmarks.app --peers-python ~/peers/bin/python # peers of an environment of their own

The terminal is one of 120 × 40 and 256 colours. Times hold for a machine that does nothing else (`chrt -r 1` in front
makes it one, for root); the processor time of a key holds on any. A ratio above 1 is over the limit.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from simtui.actions import VIEWS
from simtui.recent import sample_study
from tests.benchmarks.app_peers import PEERS, command_of
from tests.benchmarks.app_studies import going_on, write_random_study
from tests.benchmarks.pty_session import Answer, PtySession

UP, DOWN, RIGHT, LEFT = b"\x1b[A", b"\x1b[B", b"\x1b[C", b"\x1b[D"
PAGE_UP, PAGE_DOWN = b"\x1b[5~", b"\x1b[6~"
_PAINTED = rb"runs \("  # of the summary of the Runs view: figures are on the screen
_N_STARTS = 7
_IDLE_S, _LIVE_S = 10.0, 10.0
_VIEW_KEYS = [str(i).encode() for i in range(1, len(VIEWS) + 1)]
_VIEW_QUIET_S = 0.25  # a view that waits for the reader comes in parts


@dataclass(frozen=True)
class Row:
    """A line of the table; no limit where the figure only explains others."""

    what: str
    found: float
    unit: str
    limit: float | None = None

    def __str__(self) -> str:
        found = f"{self.found:,.0f}" if self.unit == "bytes" or self.found >= 100 else f"{self.found:.2f}"
        if self.limit is None:
            return f"{self.what:<58}{found:>10} {self.unit}"
        ratio = f"{self.found / self.limit:8.2f}" if self.limit else f"{'ok' if not self.found else 'over':>8}"
        return f"{self.what:<58}{found:>10} {self.unit:<6}{self.limit:>10,g}{ratio}"


def started(study: Path) -> PtySession:
    """The app as it opens for somebody who has never used it: it remembers no view."""
    forgetful = {name: tempfile.mkdtemp(prefix="simtui-benchmark-") for name in ("XDG_STATE_HOME", "XDG_CONFIG_HOME")}
    return PtySession([sys.executable, "-m", "simtui", str(study)], environment=forgetful)


def opened(study: Path) -> PtySession:
    """The app on a study, with its first view painted and nothing more to come."""
    session = started(study)
    session.wait_for(_PAINTED)
    session.settle()
    return session


def presses(session: PtySession, keys: Iterable[bytes], quiet_s: float = 0.03) -> list[Answer]:
    """The answers to keys, each pressed when the one before has been answered."""
    return [session.press(key, quiet_s) for key in keys]


def rows_of(what: str, answers: Sequence[Answer], most_bytes: float | None, most_ms: float | None) -> Iterator[Row]:
    """What a series of keys has cost."""
    sizes, times_ms = ([len(each.sent) for each in answers], [1e3 * each.seconds for each in answers])
    yield Row(f"{what}: bytes, median of {len(answers)}", statistics.median(sizes), "bytes")
    yield Row(f"{what}: bytes, most", max(sizes), "bytes", most_bytes)
    yield Row(f"{what}: time, p50", statistics.median(times_ms), "ms")
    yield Row(f"{what}: time, p95", float(np.percentile(times_ms, 95)), "ms", most_ms)
    yield Row(f"{what}: processor time a key", 1e3 * sum(each.cpu_s for each in answers) / len(answers), "ms")


class Studies:
    """Makes each study once, when it is first asked for; knows which environment has the peers."""

    def __init__(self, work: Path, peers_python: Path) -> None:
        self.work, self.peers_python = work, peers_python

    def get(self, name: str, **how: int | bool) -> Path:
        """A study as `write_random_study` makes it."""
        path = self.work / name
        if not (path / "complete").exists():
            write_random_study(path, **how)  # type: ignore[arg-type]
            (path / "complete").touch()
        return path

    @property
    def large(self) -> Path:
        """1,000 runs of 21 epochs with the one before training."""
        return self.get("large", n_runs=1000, n_layers=12, epochs=20)


def start(studies: Studies) -> Iterator[Row]:
    """From the start of the process to figures on the screen."""
    yield Row("start, sample study", statistics.median(_first_paints_s(sample_study())), "s", 0.8)
    large = studies.large
    yield Row("start, 1,000 runs of 21 epochs", statistics.median(_first_paints_s(large)), "s", 1.2)
    unlisted_s = statistics.median(_first_paints_s(large, before=lambda: (large / "catalog.json").unlink()))
    yield Row("start, 1,000 runs, never opened before", unlisted_s, "s")


def _first_paints_s(study: Path, before: Callable[[], object] = lambda: None) -> list[float]:
    times = []
    for nth in range(_N_STARTS + 1):
        if nth:  # the first fills the caches of the disk, and writes the catalog
            before()
        with started(study) as session:
            times.append(session.wait_for(_PAINTED)[1])
            session.send(b"q")
            session.wait()
    return times[1:]


def layer_map(studies: Studies) -> Iterator[Row]:
    """The cursor around the edge of a map of 48 layers and along its diagonal."""
    with opened(studies.get("deep", n_runs=30, n_layers=48, epochs=2)) as session:
        presses(session, [b"2"], _VIEW_QUIET_S)
        around = [RIGHT] * 47 + [DOWN] * 47 + [LEFT] * 47 + [UP] * 47 + [RIGHT, DOWN] * 24
        yield from rows_of("cursor step, map of 48 × 48", presses(session, around), 600, 16)


def epoch(studies: Studies) -> Iterator[Row]:
    """Other figures in every cell of a map of 24 layers."""
    with opened(studies.get("wide", n_runs=30, n_layers=24, epochs=20)) as session:
        presses(session, [b"2"], _VIEW_QUIET_S)
        back_and_on = ([b"["] * 20 + [b"]"] * 20) * 3
        yield from rows_of("epoch step, map of 24 × 24", presses(session, back_and_on), 15_000, 30)


def views(studies: Studies) -> Iterator[Row]:
    """From every view to every other, of the sample study."""
    with opened(sample_study()) as session:
        first = presses(session, [*_VIEW_KEYS[1:], b"1"], 0.5)[:-1]
        slowest = max(range(len(first)), key=lambda i: first[i].seconds)
        yield Row(f"first visit of a view, slowest ({list(VIEWS)[slowest + 1]})", 1e3 * first[slowest].seconds, "ms")
        by_pair: dict[str, list[Answer]] = {}
        now = b"1"
        for key in _all_pairs():
            by_pair.setdefault(f"{now.decode()} to {key.decode()}", []).append(session.press(key, _VIEW_QUIET_S))
            now = key
        answers = [each for pair in by_pair.values() for each in pair]
        yield from rows_of("change of view", answers, 60_000, 100)
        medians = {pair: statistics.median(each.seconds for each in found) for pair, found in by_pair.items()}
        pair = max(medians, key=lambda each: medians[each])
        yield Row(f"change of view, slowest pair ({pair})", 1e3 * medians[pair], "ms", 100)
        yield Row("memory, sample study, all views seen", session.resident_mb(), "MB", 120)
        yield Row("torch, timm or open_clip loaded", float(_has_torch(session)), "")


def _has_torch(session: PtySession) -> bool:
    return any(session.has_mapped(f"site-packages/{name}") for name in ("torch", "timm", "open_clip"))


def _all_pairs() -> Iterator[bytes]:
    """Keys that go from each view to each other, starting at the first view."""
    now = _VIEW_KEYS[0]
    for one in _VIEW_KEYS:
        for other in _VIEW_KEYS:
            for key in (one, other) if one != other else ():
                if key != now:
                    yield key
                    now = key


def table(studies: Studies) -> Iterator[Row]:
    """The table of 2,000 runs."""
    with opened(studies.get("long", n_runs=2000, n_layers=2, epochs=1)) as session:
        within_a_page = ([DOWN] * 25 + [UP] * 25) * 2
        yield from rows_of("cursor step, table of 2,000 runs", presses(session, within_a_page), 300, 16)
        pages = ([PAGE_DOWN] * 25 + [PAGE_UP] * 25) * 2
        yield from rows_of("page, table of 2,000 runs", presses(session, pages), None, 40)
        yield from rows_of("sort, table of 2,000 runs", presses(session, [b"o"] * 100, 0.06), None, 60)


def idle(studies: Studies) -> Iterator[Row]:
    """Nobody touches anything, and nothing changes."""
    for name, study in (("sample study", sample_study()), ("1,000 runs", studies.large)):
        with opened(study) as session:
            for view in (b"1", b"3"):
                session.press(view, _VIEW_QUIET_S)
                before_s = _at_rest(session)
                n_sent = len(session.drain(_IDLE_S))
                share = (session.cpu_s() - before_s) / _IDLE_S
                what = f"idle {_IDLE_S:.0f} s, {name}, {list(VIEWS)[int(view) - 1]}"
                yield Row(f"{what}: bytes", n_sent, "bytes", 0)
                yield Row(f"{what}: processor", 100 * share, "%", 0.5)
            yield Row(f"memory, {name}, {len(VIEWS)} views seen", _seen_all(session).resident_mb(), "MB", 120)


def _at_rest(session: PtySession) -> float:
    """Its processor time, once it has stopped reading ahead: the files of 1,000 runs take a while."""
    before_s, now_s, waited_s = -1.0, session.cpu_s(), 0.0
    while now_s - before_s > 0.05 and waited_s < 60.0:
        session.drain(4.0)
        before_s, now_s, waited_s = now_s, session.cpu_s(), waited_s + 4.0
    return now_s


def _seen_all(session: PtySession) -> PtySession:
    presses(session, _VIEW_KEYS, 0.5)
    return session


def live(studies: Studies) -> Iterator[Row]:
    """A study that finishes an epoch a second, as each view shows it."""
    for key, (view, _) in zip(_VIEW_KEYS, VIEWS.items(), strict=True):
        study = studies.get(f"live {view}", n_runs=45, n_layers=12, epochs=40, done=3)
        with going_on(study), opened(study) as session:
            session.press(key, 1.0)
            before_s = session.cpu_s()
            n_sent = len(session.drain(_LIVE_S))
            yield Row(f"live, an epoch a second, {view}: bytes a second", n_sent / _LIVE_S, "bytes", 2000)
            share = (session.cpu_s() - before_s) / _LIVE_S
            yield Row(f"live, an epoch a second, {view}: processor", 100 * share, "%")


def peers(studies: Studies) -> Iterator[Row]:
    """The same of other apps, where they have the same."""
    for peer in PEERS:
        command = command_of(peer, studies.peers_python, studies.work)
        if command is None:
            print(f"{peer.name} is not installed beside {studies.peers_python}")
            continue
        times = []
        for _ in range(_N_STARTS):
            with PtySession(command) as session:
                times.append(session.wait_for(peer.painted)[1])
        yield Row(f"{peer.name}: start", statistics.median(times), "s")
        with PtySession(command) as session:
            session.wait_for(peer.painted)
            session.settle(1.0)
            for keys in peer.prepare:
                session.press(keys, 1.0)
            yield from rows_of(f"{peer.name}: {peer.what}", presses(session, peer.steps, 0.06), None, None)
            session.settle(1.0)
            before_s = session.cpu_s()
            n_sent = len(session.drain(_IDLE_S))
            yield Row(f"{peer.name}: idle {_IDLE_S:.0f} s: bytes", n_sent, "bytes")
            yield Row(f"{peer.name}: idle: processor", 100 * (session.cpu_s() - before_s) / _IDLE_S, "%")
            yield Row(f"{peer.name}: memory", session.resident_mb(), "MB")


PARTS: dict[str, Callable[[Studies], Iterable[Row]]] = {
    "start": start, "map": layer_map, "epoch": epoch, "views": views, "table": table, "idle": idle, "live": live,
    "peers": peers,
}  # fmt: skip


def main() -> None:
    """Prints the table, a part at a time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=list(PARTS))
    parser.add_argument("--work", type=Path, help="a folder to make the studies in, and to find them in next time")
    parser.add_argument("--peers-python", type=Path, default=Path(sys.executable), help="of the peers' environment")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        studies = Studies(options.work or Path(temporary), options.peers_python)
        print(f"{'what':<58}{'found':>10} {'':<6}{'limit':>10}{'ratio':>8}")
        for name in options.only or PARTS:
            for row in PARTS[name](studies):
                print(row, flush=True)


if __name__ == "__main__":
    main()
