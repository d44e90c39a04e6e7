"""What there is to see of the runs of a study beside their records: figures by epoch, logs, the load of the machine."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from engine.jobs.logs import LOG_FILE, log_tail
from engine.jobs.machine_load import MachineLoad, machine_load
from engine.jobs.progress import StudyProgress
from engine.runs.catalog import Stamp, file_stamp
from engine.runs.history import History, read_history
from engine.runs.record import State
from engine.runs.results import HISTORY_FILE
from engine.runs.study_folder import StudyFolder


@dataclass(frozen=True)
class JobDetails:
    """The histories of the runs that are not done and of the one that is looked at, and one log.

    `log` is that of the run, or of the study; `log_problem` says why it cannot be shown. `load` is that of this machine
    while the study runs on it.
    """

    run_id: str
    histories: Mapping[str, History]
    log: tuple[str, ...] = ()
    log_problem: str = ""
    load: MachineLoad | None = None


class JobReader:
    """Reads the details of one study; a history that has not changed is not read again."""

    def __init__(self, folder: StudyFolder) -> None:
        self._folder = folder
        self._known: dict[str, tuple[Stamp | None, History | None]] = {}

    def read(self, run_id: str, progress: StudyProgress) -> JobDetails:
        """What there is now; equal to the last answer where nothing has changed.

        Args:
            run_id: whose log is read; an empty one is the study.
        """
        shown = [each.run_id for each in progress.records if each.state not in (State.DONE, State.QUEUED)]
        self._known = {each: self._history(each) for each in dict.fromkeys([*shown, *([run_id] if run_id else [])])}
        log, problem = self._log(run_id)
        is_here = progress.holder is not None and progress.holder.host == socket.gethostname()
        histories = {each: history for each, (_, history) in self._known.items() if history is not None}
        return JobDetails(run_id, histories, log, problem, machine_load() if is_here else None)

    def _history(self, run_id: str) -> tuple[Stamp | None, History | None]:
        path = self._folder.run_path(run_id)
        stamp = file_stamp(path / HISTORY_FILE)
        known = self._known.get(run_id)
        return known if known and known[0] == stamp else (stamp, read_history(path) if stamp else None)

    def _log(self, run_id: str) -> tuple[tuple[str, ...], str]:
        """A run of an older simtui has no log of its own: what the study's log says of it stands in its place."""
        own_path = self._folder.run_path(run_id) / LOG_FILE
        path = own_path if run_id and os.path.lexists(own_path) else self._folder.log_path
        try:
            lines = log_tail(path, self._folder.path)
        except OSError as error:
            return (), f"{path}: {error.strerror or error}"
        return (tuple(each for each in lines if run_id in each) if path != own_path else lines), ""
