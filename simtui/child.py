"""Asks a process of its own for an answer in JSON: what loads torch or reads a whole dataset must not stop the keys."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from engine.errors import MachineError, SimtuiError


class Child:
    """A `python -m …` that prints one JSON object last.

    An object that holds `problem`, or an `error` that does, is an expected failure.

    Args:
        about: what it is asked about, for errors.
    """

    def __init__(self, about: str, arguments: Sequence[str]) -> None:
        self._about = about
        self._is_ended = False
        self._process: subprocess.Popen[bytes] | None = None
        self._command = [sys.executable, "-m", *arguments]

    def answer(self) -> dict[str, Any] | None:
        """Waits for the answer; None where `end` was called meanwhile.

        Raises:
            SimtuiError: what the process says, or that it ended without a word.
        """
        try:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        except OSError as error:
            problem = f"no process could be started ({error.strerror or error})"
            raise MachineError(self._about, problem, "try again when this machine has less to do") from error
        if self._is_ended:
            self._process.kill()
        output, errors = self._process.communicate()
        if self._is_ended:
            return None
        try:
            answer: dict[str, Any] = json.loads(output)
        except ValueError as error:
            said = errors.decode("utf-8", "replace").strip().splitlines()
            last = said[-1][:200] if said else "without a word"
            problem = f"its process ended with code {self._process.returncode} ({last})"
            raise MachineError(self._about, problem, 'see what is broken with "simtui doctor"') from error
        failure = answer.get("error", answer)
        if isinstance(failure, dict) and "problem" in failure and "fix" in failure:
            raise SimtuiError(failure["where"], failure["problem"], failure["fix"])
        return answer

    def end(self) -> None:
        """Nobody waits for the answer any more."""
        self._is_ended = True
        if self._process is not None:
            with contextlib.suppress(OSError):
                self._process.kill()
