"""What a study has on disk: run records, results and the study folder; needs no torch."""

from engine.runs.record import RunRecord, State
from engine.runs.results import Results, read_results, write_results
from engine.runs.study_folder import StudyFolder

__all__ = ["Results", "RunRecord", "State", "StudyFolder", "read_results", "write_results"]
