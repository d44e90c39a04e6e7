"""How sure the cells of a run's heatmap are: asked of a child process on demand, kept in the user's cache.

Needs no torch: `engine.jobs.uncertainty_child` computes. Both need the activations of θ* and of the run's model at that
epoch, of which a study keeps those at the ends of a run unless it asks for all (`study.keep`).
"""

from __future__ import annotations

import shlex
import threading
from pathlib import Path

from platformdirs import user_cache_path

from engine.errors import StudyError
from engine.files import digest
from engine.finetune.methods import method_of
from engine.jobs.child import Request, kept_or_asked
from engine.runs.record import RunRecord, State, is_remade_here, remake_run
from engine.runs.results import SimilarityKey
from engine.runs.study_folder import StudyFolder
from engine.runs.uncertainty import CellUncertainty, read_uncertainty

ANSWER_FILE = "uncertainty.h5"
REFERENCE = "reference"
# Seeds are those of `engine.measures`: the same figures come out each time.
LEVEL, N_RESAMPLES, N_ORDERS = 0.95, 1000, 199
_PROTOCOL = "uncertainty of a heatmap; v1"
_N_KEPT = 200  # of some 50 kB each
# 1,000 resamples of 12 × 12 layers on 2,048 images take some 10 s; rank correlations on a busy machine take minutes.
TIMEOUT_S = 1800.0


def cell_uncertainty(
    folder: StudyFolder,
    record: RunRecord,
    key: SimilarityKey,
    epoch: int,
    timeout_s: float = TIMEOUT_S,
    stop: threading.Event | None = None,
) -> CellUncertainty:
    """The interval over images of every cell of a run's heatmap at an epoch, and what unrelated layers would score.

    The interval is that of `engine.measures.bootstrap_interval` at 95 %, the null level that of `permutation_null`.

    Args:
        key: a similarity that the run's results hold.
        epoch: from 0.
        timeout_s: how long the child process may take.
        stop: set by another thread that wants the answer no more.
    Raises:
        StudyError: the activations were not kept at that epoch, were freed, or did not come with the study.
        DamagedError: an activation file is damaged, or does not give the similarities that the results hold.
        MachineError: the child process crashes, takes too long or is stopped.
    """
    place = _place(folder, record, key, epoch)
    where = f"{record.run_id}, epoch {epoch}"
    arguments = (folder.path.resolve(), record.run_id, epoch, key.probe, key.pooling, key.measure)
    request = Request("uncertainty_child", arguments, where, "its interval", timeout_s, stop)
    return kept_or_asked(place, _N_KEPT, request, _read)


def known_uncertainty(folder: StudyFolder, record: RunRecord, key: SimilarityKey, epoch: int) -> CellUncertainty | None:
    """What was computed before and lies in the cache; None where it has to be computed.

    Raises:
        StudyError: as `cell_uncertainty`: it cannot be computed.
        DamagedError: what lies in the cache is damaged.
    """
    place = _place(folder, record, key, epoch)
    return _read(place) if (place / ANSWER_FILE).exists() else None


def role_of(record: RunRecord, epoch: int) -> str:
    """Under which role of `RunRecord.activations` the activations of the run's model at an epoch are."""
    if record.is_comparison:
        problem = "a comparison of two checkpoints keeps no activations, and an interval needs them"
        raise StudyError(record.run_id, problem, "compare on more images (--n) to be surer of a figure")
    method = method_of(record.spec.method)
    starts_as_reference = method.starts_pretrained and 0 not in record.spec.checkpoints
    is_reference = not method.trains_backbone or (epoch == 0 and starts_as_reference)
    return REFERENCE if is_reference else f"epoch {epoch}"


def files_of(folder: StudyFolder, record: RunRecord, role: str) -> tuple[str, ...]:
    """The keys of the activation files of a role that are there, in order."""
    maps = record.provenance.attention_reference  # of attention, in the same folder
    named = sorted(key for key, each in record.activations.items() if each == role and key != maps)
    return tuple(key for key in named if (folder.activations_path / f"{key}.h5").is_file())


def _place(folder: StudyFolder, record: RunRecord, key: SimilarityKey, epoch: int) -> Path:
    """Where the answer lies in the cache: under the keys of all files that it may be made from, and the settings."""
    role = role_of(record, epoch)
    reference, own = (files_of(folder, record, each) for each in (REFERENCE, role))
    if not reference or not own:
        raise _absent(folder, record, epoch, REFERENCE if not reference else role)
    content = [_PROTOCOL, LEVEL, N_RESAMPLES, N_ORDERS, reference, own, key.probe, key.pooling, key.measure]
    return user_cache_path("simtui") / "uncertainty" / digest(content)


def _read(place: Path) -> CellUncertainty:
    return read_uncertainty(place / ANSWER_FILE, f"rm -r {shlex.quote(str(place))}, and ask again")


def _absent(folder: StudyFolder, record: RunRecord, epoch: int, role: str) -> StudyError:
    """Why there are no activations of a role."""
    if not is_remade_here(record):
        problem = "this copy of the study holds no activations, as the sample study does not; an interval needs them"
        return StudyError(record.run_id, problem, 'look at a study that was run here with study.keep = "ends" or "all"')
    if role == REFERENCE:
        fix = f"simtui run {shlex.quote(str(folder.path))} makes them again"
        return StudyError(record.run_id, "the activations of the pre-trained model were freed", fix)
    if record.state is not State.DONE and epoch > record.epochs_done:
        problem = f"has not come to epoch {epoch}"
        return StudyError(record.run_id, problem, f"choose an epoch up to {record.epochs_done}")
    is_end = epoch in (0, record.spec.epochs)
    if record.spec.keep == "all" or (record.spec.keep == "ends" and is_end):
        fix = f"{remake_run(folder.run_path(record.run_id))} trains it again"
        return StudyError(record.run_id, f"the activations of epoch {epoch} were freed", fix)
    kept = [each for each in range(record.epochs_done + 1) if files_of(folder, record, role_of(record, each))]
    instead = f", or look at epoch {' or '.join(map(str, kept))}" if kept else ""
    problem = f'the activations of epoch {epoch} were not kept (study.keep = "{record.spec.keep}")'
    return StudyError(record.run_id, problem, f'set study.keep = "all" before the run{instead}')
