"""Asks a process of its own for an answer in JSON: what loads torch or reads a whole dataset must not stop the keys."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any

from engine.errors import MachineError, SimtuiError
from engine.jobs.child import run_child
from engine.jobs.stage import Failure

_LIMIT_S = 3600.0
_LATER = "try again when this machine has less to do"


class Child:
    """A `python -m …` that prints one JSON object last.

    An object that holds `problem`, or an `error` that does, is an expected failure.

    Args:
        about: what it is asked about, for errors.
    """

    def __init__(self, about: str, arguments: Sequence[str]) -> None:
        self._about = about
        self._stop = threading.Event()
        self._command = [sys.executable, "-m", *arguments]

    def answer(self) -> dict[str, Any] | None:
        """Waits for the answer; None where `end` was called meanwhile.

        Raises:
            SimtuiError: what the process says, or that it ended without a word.
        """
        try:
            code, output, errors = run_child(self._command, _LIMIT_S, self._stop)
        except subprocess.TimeoutExpired as error:
            if self._stop.is_set():
                return None
            raise MachineError(self._about, f"no answer came in {_LIMIT_S / 60:.0f} min", _LATER) from error
        except OSError as error:
            problem = f"no process could be started ({error.strerror or error})"
            raise MachineError(self._about, problem, _LATER) from error
        try:
            text = output.decode()
            answer: dict[str, Any] = json.loads(text[text.find("\n{") + 1 :])  # a library may print before it
        except ValueError as error:
            said = errors.decode("utf-8", "replace").strip().splitlines()
            last = said[-1][:200] if said else "without a word"
            problem = f"its process ended with code {code} ({last})"
            raise MachineError(self._about, problem, 'see what is broken with "simtui doctor"') from error
        failure = answer.get("error", answer)
        if isinstance(failure, dict) and failure.keys() >= {"where", "problem", "fix"}:
            raise Failure(**{"exit_code": SimtuiError.exit_code, **failure}).as_error()
        return answer

    def end(self) -> None:
        """Nobody waits for the answer any more."""
        self._stop.set()
