"""From a draft to a study that runs: what `simtui run FILE` does with the file that the draft is written to."""

from __future__ import annotations

from engine.jobs.launch import detach_study, make_study_folder
from engine.jobs.progress import study_progress
from engine.runs.study_folder import StudyFolder
from engine.study_draft import Draft, Place, draft_study, draft_text, refuse_other_file, write_draft


def begin(draft: Draft, place: Place) -> StudyFolder:
    """Writes the study file, makes the study's folder, starts the study away from the terminal.

    Nothing is written where the file or the folder holds something else. A folder that holds the same study goes on.

    Raises:
        StudyError: the draft is refused, or its name is taken.
        LockedError: the study is running already.
        MachineError: a folder cannot be written.
        SimtuiError: what the study's own process says as it begins.
    """
    study = draft_study(draft, place)
    refuse_other_file(place.file_path, draft_text(draft).encode())
    folder = make_study_folder(study, place.study_path)
    write_draft(draft, place)
    detach_study(folder)
    if failure := study_progress(folder).failure:
        raise failure.as_error()
    return folder
