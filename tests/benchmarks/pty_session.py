"""A program in a pseudo terminal of its own: keys go in; what it sends, and what time and memory it takes, come out.

Stands in for a modern terminal on Linux: answers what programs ask of one, draws nothing, and knows no program.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import psutil

_QUIET_S = 0.03
# What a program may ask of its terminal, and what xterm would say. Other modes are unknown, the frame mode is known.
_ANSWERS = (
    (re.compile(rb"\x1b\[0?c"), lambda _: b"\x1b[?62;22c"),
    (re.compile(rb"\x1b\[6n"), lambda _: b"\x1b[1;1R"),
    (re.compile(rb"\x1b\]10;\?(?:\x07|\x1b\\)"), lambda _: b"\x1b]10;rgb:ffff/ffff/ffff\x1b\\"),
    (re.compile(rb"\x1b\]11;\?(?:\x07|\x1b\\)"), lambda _: b"\x1b]11;rgb:0000/0000/0000\x1b\\"),
    (re.compile(rb"\x1b\[\?(\d+)\$p"), lambda m: b"\x1b[?%s;%d$y" % (m[1], 2 if m[1] == b"2026" else 0)),
)
_LONGEST_QUESTION = 16


@dataclass(frozen=True)
class Answer:
    """What a key brought: the bytes, how long until the last of them, and the processor time that it took."""

    sent: bytes
    seconds: float
    cpu_s: float


class PtySession:
    """Runs a command in a terminal of `width` × `height`; a context manager that ends it.

    Args:
        command: the program and its arguments.
        environment: added to that of this process, in which the terminal is one of 256 colours; None takes one away.
    """

    def __init__(
        self,
        command: Sequence[str],
        size: tuple[int, int] = (120, 40),
        environment: Mapping[str, str | None] | None = None,
        folder: Path | None = None,
    ) -> None:
        wanted = {"TERM": "xterm-256color", "COLORTERM": None, "NO_COLOR": None, **(environment or {})}
        variables = {name: value for name, value in {**os.environ, **wanted}.items() if value is not None}
        self.exit_status: int | None = None
        self.seen = b""  # everything that was ever sent
        self._tail = b""
        self.started_s = time.monotonic()
        self.pid, self._terminal = pty.fork()
        if self.pid == 0:
            _become(command, size, variables, folder)

    def __enter__(self) -> PtySession:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def resize(self, width: int, height: int) -> None:
        """Gives the terminal another size; the kernel tells the program."""
        _set_size(self._terminal, (width, height))

    def send(self, keys: bytes) -> None:
        """Types."""
        os.write(self._terminal, keys)

    def read(self, timeout_s: float) -> bytes:
        """What is sent next; empty where nothing is within that time, or where the program has ended."""
        if not select.select([self._terminal], [], [], timeout_s)[0]:
            return b""
        try:
            sent = os.read(self._terminal, 1 << 16)
        except OSError:  # the other end is closed
            self._reap(block=True)
            return b""
        self.seen += sent
        self._answer(sent)
        return sent

    def wait_for(self, pattern: bytes, timeout_s: float = 60.0) -> tuple[bytes, float]:
        """Reads until something has been sent; all that came, and the seconds since the start.

        Raises:
            TimeoutError: it did not come.
        """
        seen, deadline_s = b"", time.monotonic() + timeout_s
        while re.search(pattern, seen) is None:
            if time.monotonic() > deadline_s or self.exit_status is not None:
                raise TimeoutError(f"{pattern!r} was not sent in {timeout_s} s; the end of what was: {seen[-2000:]!r}")
            seen += self.read(0.05)
        return seen, time.monotonic() - self.started_s

    def press(self, keys: bytes, quiet_s: float = _QUIET_S, limit_s: float = 5.0) -> Answer:
        """Types, and reads until nothing has come for `quiet_s`; the time counts to the last byte."""
        cpu_s, start_s = self.cpu_s(), time.perf_counter()
        self.send(keys)
        sent, last_s = b"", start_s
        # The first byte may take long, and a key may have no answer at all: that is waited for longer.
        while time.perf_counter() - last_s < (quiet_s if sent else max(quiet_s, 0.25)):
            part = self.read(quiet_s / 4)
            if part:
                sent, last_s = sent + part, time.perf_counter()
            if time.perf_counter() - start_s > limit_s or self.exit_status is not None:
                break
        return Answer(sent, last_s - start_s, self.cpu_s() - cpu_s)

    def drain(self, seconds: float) -> bytes:
        """All that is sent within a time."""
        seen, end_s = b"", time.monotonic() + seconds
        while (left_s := end_s - time.monotonic()) > 0 and self.exit_status is None:
            seen += self.read(left_s)
        return seen

    def settle(self, quiet_s: float = 0.5, limit_s: float = 20.0) -> bytes:
        """Reads until nothing has come for a while."""
        seen, end_s = b"", time.monotonic() + limit_s
        while time.monotonic() < end_s and (part := self.read(quiet_s)):
            seen += part
        return seen

    def cpu_s(self) -> float:
        """Processor time so far, of the program and of what it has started."""
        return sum(
            each.cpu_times().user + each.cpu_times().system for each in self._processes() if each.is_running()
        )  # fmt: skip

    def resident_mb(self) -> float:
        """Memory in RAM, of the program and of what it has started."""
        return sum(each.memory_info().rss for each in self._processes()) / 1e6

    def has_mapped(self, name: str) -> bool:
        """Whether a library with that in its path is loaded (Linux)."""
        return any(name in Path(f"/proc/{each.pid}/maps").read_text() for each in self._processes())

    def wait(self, timeout_s: float = 20.0) -> int:
        """Waits for the program to end; its exit code, below zero for the signal that ended it.

        Raises:
            TimeoutError: it goes on.
        """
        end_s = time.monotonic() + timeout_s
        while self.exit_status is None and time.monotonic() < end_s:
            self.read(0.05)
            self._reap(block=False)
        if self.exit_status is None:
            raise TimeoutError(f"still there after {timeout_s} s")
        return self.exit_status

    def close(self) -> None:
        """Ends the program and closes the terminal."""
        if self.exit_status is None:
            os.kill(self.pid, signal.SIGKILL)
            self._reap(block=True)
        if self._terminal >= 0:
            os.close(self._terminal)
            self._terminal = -1

    def hang_up(self) -> None:
        """Closes the terminal under the program, as closing its window does."""
        os.close(self._terminal)
        self._terminal = -1

    def has_ended(self) -> bool:
        """Whether the program has ended, without reading from a terminal that may be closed."""
        self._reap(block=False)
        return self.exit_status is not None

    def _processes(self) -> list[psutil.Process]:
        try:
            process = psutil.Process(self.pid)
            return [process, *process.children(recursive=True)]
        except psutil.Error:
            return []

    def _reap(self, block: bool) -> None:
        if self.exit_status is None:
            pid, status = os.waitpid(self.pid, 0 if block else os.WNOHANG)
            if pid:
                self.exit_status = os.waitstatus_to_exitcode(status)

    def _answer(self, sent: bytes) -> None:
        asked, self._tail = self._tail + sent, b""
        end = 0
        for pattern, answer in _ANSWERS:
            for match in pattern.finditer(asked):
                os.write(self._terminal, answer(match))
                end = max(end, match.end())
        self._tail = asked[end:][-_LONGEST_QUESTION:]


def _become(command: Sequence[str], size: tuple[int, int], environment: Mapping[str, str], folder: Path | None) -> None:
    try:
        _set_size(0, size)
        if folder:
            os.chdir(folder)
        os.execvpe(command[0], list(command), dict(environment))
    finally:
        os._exit(127)


def _set_size(terminal: int, size: tuple[int, int]) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
