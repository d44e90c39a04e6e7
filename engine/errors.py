"""The closed list of failures that simtui expects; owns their wording and exit codes, knows nothing of who raises them.

Every expected failure is one `SimtuiError`: it says where, what is wrong and one action that mends it. Anything else
that is raised is a defect of simtui and is logged with its traceback.
"""

from __future__ import annotations


class SimtuiError(Exception):
    """An expected failure: `where: problem`, then `fix: one action`.

    Args:
        where: the file, line, setting or layer concerned, as the user knows it.
        problem: what is wrong, with what was seen and what is needed.
        fix: one action that mends it.
    """

    exit_code = 2

    def __init__(self, where: str, problem: str, fix: str) -> None:
        super().__init__(where, problem, fix)
        self.where, self.problem, self.fix = where, problem, fix

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}\n  fix: {self.fix}"


class StudyError(SimtuiError):
    """The study file, or a command's argument, asks for something that cannot be done."""


class DataError(SimtuiError):
    """The dataset cannot be used as it is."""


class ImageError(SimtuiError):
    """One image cannot be used; the reader of a dataset counts, lists and skips it."""


class WeightsError(SimtuiError):
    """Weights are missing, foreign, or do not fit the backbone."""


class ShapeError(SimtuiError, ValueError):
    """Arrays that do not belong together: other row counts, too few rows, other image ids."""


class NonFiniteError(SimtuiError, ValueError):
    """Values that are NaN or infinite where finite ones are needed."""


class TrainingError(SimtuiError):
    """A run cannot go on (a loss that is not finite, memory that is too small); the others can."""


class DeviceMemoryError(TrainingError):
    """The device has too little memory now: another process may have taken it, so it is worth another try."""


class ProcessLostError(TrainingError):
    """A process of a run on several devices has ended, or is not heard of: the run goes on from its last epoch."""


class LockedError(SimtuiError):
    """Another process holds what this one would write."""


class DamagedError(SimtuiError):
    """A file of simtui's own is damaged, or is not what it claims to be."""

    exit_code = 3


class MachineError(SimtuiError):
    """The machine lacks something: disk space, permission, a terminal, a library."""

    exit_code = 4


class NoSpaceError(MachineError):
    """The disk, the quota or the largest file size is reached.

    Args:
        need_bytes: what would have been written, as far as it is known.
    """

    def __init__(self, where: str, problem: str, fix: str, need_bytes: int) -> None:
        super().__init__(where, problem, fix)
        self.need_bytes = need_bytes
