"""Finds what of a study can be freed, says what that costs, and frees it."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from engine.errors import LockedError
from engine.files import as_machine_error, temporary_leftovers
from engine.jobs.plan import PLAN_FILE, read_plan
from engine.lock import holder_of, locked
from engine.runs.attention_maps import ATTENTION_FILE
from engine.runs.record import RunRecord, State, write_record
from engine.runs.study_folder import StudyFolder

NOTHING = "nothing: no run needs it"
AGAIN = "made again when a run needs it"
TRAINING = "cannot be made again without training the run again"


@dataclass(frozen=True)
class Group:
    """Files of one kind that can be freed together."""

    name: str
    words: str
    cost: str
    paths: tuple[Path, ...]
    n_bytes: int

    @property
    def is_free(self) -> bool:
        """Whether nothing is lost with it."""
        return self.cost == NOTHING


def groups_of(folder: StudyFolder) -> tuple[Group, ...]:
    """What of a study can be freed, in the order of what it costs; empty groups are left out."""
    records = folder.listing().records
    known = {key: role for record in records for key, role in record.activations.items()}
    # A record that has forgotten θ*'s maps because they were freed is shown them again once they are made again.
    known |= {record.provenance.attention_reference: "reference" for record in records}
    activations = {path: known.get(path.stem) for path in sorted(folder.activations_path.glob("*.h5"))}
    used = _used_probes(folder, records)
    probes = [path for path in sorted(folder.probes_path.glob("*")) if path.is_dir()]
    # A damaged record may be the one that needs a file: then only what is surely left over counts as such.
    are_all_known = not folder.listing().damaged
    groups = [
        _group(folder, "leftovers", "of processes that were killed", NOTHING, _leftovers(folder)),
        _group(folder, "resume points", "of runs that are done", NOTHING, _resume_points(folder, records)),
        _group(folder, "unused activations", "that no run refers to", NOTHING,
               [path for path, role in activations.items() if role is None and are_all_known]),
        _group(folder, "unused images", "decoded, of other datasets or sizes", NOTHING,
               [path for path in probes if used and path.name not in used and are_all_known]),
        _group(folder, "images", "decoded", AGAIN,
               [file for path in probes if path.name in used
                for file in sorted(path.iterdir()) if file.name != "manifest.json"]),
        _group(folder, "reference activations", "of the pre-trained models", AGAIN,
               [path for path, role in activations.items() if role == "reference"]),
        _group(folder, "activations", "of fine-tuned models", TRAINING,
               [path for path, role in activations.items() if role not in (None, "reference")]),
        _group(folder, "checkpoints", "weights of fine-tuned models", TRAINING, _weights(folder, records)),
        _group(folder, "attention maps", "of fine-tuned models", TRAINING, _attention_maps(folder, records)),
    ]  # fmt: skip
    return tuple(group for group in groups if group.paths)


def _inside(folder: StudyFolder, path: Path) -> bool:
    """A link may lead out of the study; what is there is not the study's to free."""
    return path.parent.resolve().is_relative_to(folder.path.resolve())


def free(folder: StudyFolder, names: Collection[str]) -> int:
    """Frees the groups of these names; returns how many bytes.

    The records forget the files first, so that a crash leaves files that nobody needs, not records of what is gone.

    Raises:
        LockedError: the study is running.
        MachineError: a file cannot be removed.
    """
    freed = 0
    with locked(folder.lock_path):
        groups = [group for group in groups_of(folder) if group.name in names]
        gone = {path for group in groups for path in group.paths}
        for record in folder.listing().records:
            kept = _without(record, folder, gone)
            if kept != record:
                with locked(folder.run_lock_path(record.run_id)):
                    write_record(folder.run_path(record.run_id), kept)
        for group in groups:
            for path in group.paths:
                try:
                    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
                except OSError as error:
                    raise as_machine_error(error, path) from error
            freed += group.n_bytes
    return freed


def refuse_running(folder: StudyFolder) -> None:
    """What a running study writes must not be taken for left over.

    Raises:
        LockedError: names the process.
    """
    holder = folder.running_by()
    if holder is not None:
        raise LockedError(str(folder.path), f"is being run by {holder}", f'stop it first: "simtui stop {folder.path}"')
    running = next((each for each in folder.listing().records if each.state is State.RUNNING), None)
    if running is not None:  # on a cluster, where its scheduler has died
        holder = holder_of(folder.run_lock_path(running.run_id))
        problem = f"its run {running.run_id} goes on in {holder}"
        raise LockedError(str(folder.path), problem, f'stop it first: "simtui stop {folder.path}"')


def _without(record: RunRecord, folder: StudyFolder, gone: set[Path]) -> RunRecord:
    path = folder.run_path(record.run_id)
    return replace(
        record,
        state=State.INTERRUPTED if record.state is State.RUNNING else record.state,
        files={name: sha256 for name, sha256 in record.files.items() if path / name not in gone},
        activations={
            key: role for key, role in record.activations.items() if folder.activations_path / f"{key}.h5" not in gone
        },
    )


def _group(folder: StudyFolder, name: str, words: str, cost: str, paths: Iterable[Path]) -> Group:
    found = tuple(path for path in paths if _inside(folder, path))
    return Group(name, words, cost, found, sum(_n_bytes(path) for path in found))


def _n_bytes(path: Path) -> int:
    """What the disk gives back: a file with holes less than its length, one that another study has too nothing."""
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    found = [each.stat() for each in files]
    return sum(each.st_blocks * 512 for each in found if each.st_nlink == 1)


def _leftovers(folder: StudyFolder) -> Iterator[Path]:
    yield from temporary_leftovers(folder.path)
    yield from sorted(folder.path.rglob("*.stale-*"))  # the locks of dead processes, as an older simtui left them


def _resume_points(folder: StudyFolder, records: Iterable[RunRecord]) -> Iterator[Path]:
    for record in records:
        path = folder.run_path(record.run_id) / "checkpoints" / "last"
        if record.state is State.DONE and path.is_dir():
            yield path


def _weights(folder: StudyFolder, records: Iterable[RunRecord]) -> Iterator[Path]:
    for record in records:
        yield from sorted((folder.run_path(record.run_id) / "checkpoints").glob("epoch-*.safetensors"))


def _attention_maps(folder: StudyFolder, records: Iterable[RunRecord]) -> Iterator[Path]:
    for record in records:
        path = folder.run_path(record.run_id) / ATTENTION_FILE
        if path.is_file():
            yield path


def _used_probes(folder: StudyFolder, records: Iterable[RunRecord]) -> set[str]:
    """The folders of decoded images that the study goes by now; empty where that cannot be known."""
    used = {record.provenance.manifest_digest[:16] for record in records if record.provenance.manifest_digest}
    if not (folder.path / PLAN_FILE).exists():
        return set()
    plan = read_plan(folder.path / PLAN_FILE)
    manifests = [plan.manifest, *([plan.origin_manifest] if plan.origin_manifest else [])]
    return used | {Path(name).parent.name for name in manifests}
