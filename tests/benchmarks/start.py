"""Time from process start to the first painted view under a pty: `python -m tests.benchmarks.start [STUDY]`."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import statistics
import struct
import sys
import termios
import time

from simtui.recent import sample_study

LIMIT_S = 1.0
REPEATS = 5
_PAINTED = b"runs ("  # of the summary line of the Runs view: figures are on the screen


def first_paint_s(arguments: list[str]) -> float:
    """Seconds until the runs of the study are on the screen, at 120 × 40."""
    started_s = time.monotonic()
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["TERM"] = "xterm-256color"
        os.execv(sys.executable, [sys.executable, "-m", "simtui", *arguments])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    seen = b""
    while _PAINTED not in seen:
        if time.monotonic() - started_s > 30:
            sys.exit("nothing was painted in 30 s")
        if select.select([terminal], [], [], 0.05)[0]:
            seen += os.read(terminal, 65536)
    took_s = time.monotonic() - started_s
    os.write(terminal, b"q")
    time.sleep(0.3)
    os.close(terminal)
    os.waitpid(pid, 0)
    return took_s


def main() -> None:
    """Prints the median and the ratio to the limit, of the sample study unless another is named."""
    arguments = sys.argv[1:] or [str(sample_study())]
    times = [first_paint_s(arguments) for _ in range(REPEATS)]
    median = statistics.median(times)
    print(f"first paint: median {median:.2f} s ({min(times):.2f} to {max(times):.2f}) of {REPEATS}")
    print(f"limit {LIMIT_S} s: ratio {median / LIMIT_S:.2f}")


if __name__ == "__main__":
    main()
