"""The engine of simtui: fine-tunes backbones, compares representations, keeps results; draws nothing.

`engine.open_study(path)` reads a study and needs no torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.runs.study_folder import StudyFolder

__version__ = "0.1.0"


def open_study(path: str | Path) -> StudyFolder:
    """Opens a study folder for reading.

    Raises:
        StudyError: the folder is not a study.
    """
    from engine.runs.study_folder import StudyFolder

    return StudyFolder(Path(path))
