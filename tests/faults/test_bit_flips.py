"""A bit that flips in any file that is to last is never accepted in silence."""

from __future__ import annotations

import random
from pathlib import Path

from engine.errors import SimtuiError
from engine.integrity import checks_of, verify
from engine.runs.study_folder import StudyFolder
from tests.faults.conftest import Undisturbed
from tests.faults.forks import new_folder, work
from tests.sweeps import n_of

N_FLIPS = n_of(300, 10_000)


def test_no_flipped_bit_is_accepted_in_silence(undisturbed: Undisturbed, tmp_path: Path) -> None:
    folder = new_folder(undisturbed.request_path, tmp_path / "study")
    assert work(folder) == 0
    paths = sorted({path for path, _ in checks_of(folder)})
    drawn = random.Random(0)
    accepted = []
    for _ in range(N_FLIPS):
        path = drawn.choice(paths)
        bit = drawn.randrange(8 * path.stat().st_size)
        flip(path, bit)
        if not is_found(folder, path):
            accepted.append((path.name, bit))
        flip(path, bit)
    assert accepted == []
    assert verify(StudyFolder(folder.path)).findings == ()
    print(f"{N_FLIPS} bits flipped in {len(paths)} files, {len(accepted)} accepted in silence")


def flip(path: Path, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(bit // 8)
        byte = file.read(1)[0]
        file.seek(bit // 8)
        file.write(bytes([byte ^ 1 << bit % 8]))


def is_found(folder: StudyFolder, path: Path) -> bool:
    """Whether the checks of this file, or of the one whose notes it is, name it."""
    stems = {path.stem}
    for other, check in checks_of(StudyFolder(folder.path)):
        if other.stem in stems and other.parent == path.parent:
            try:
                check()
            except SimtuiError:
                return True
            except Exception as error:
                raise AssertionError(f"{path} raised {error!r}") from error
    return False
