"""Finds the checkpoints of the user's own training in a folder, and what their files say of them; opens no weights.

Folders are known as timm's `train.py`, Hugging Face's `Trainer`, open_clip's `open_clip_train` and Lightning write
them; of any other the names of the files count. What a file says in another way than expected becomes a note.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from engine.errors import MachineError, WeightsError
from engine.files import open_file
from engine.foreign.labels import Label, is_generic, natural, read_label, seed_of
from engine.foreign.said import read_said, read_trainer_state

Layout = Literal["timm", "hugging_face", "open_clip", "lightning", "plain"]
Kind = Literal["safetensors", "pickle"]
Order = Literal["number", "name"]

_SUFFIXES = (".safetensors", ".pth.tar", ".pt.tar", ".pth", ".pt", ".bin", ".ckpt")
_INDEX = ".index.json"
_OTHER = re.compile(
    r"optimizer.*|scheduler.*|scaler.*|rng_state.*|training_args.*|random_states.*|adapter_model.*|tmp.*|recovery.*",
    re.IGNORECASE,
)
_MAX_ENTRIES = 100_000
_MAX_INDEX_BYTES = 64 << 20
_NEARLY = 0.05  # transformers counts an epoch whose last batch was short as 0.99


@dataclass(frozen=True)
class FoundCheckpoint:
    """The weights after one epoch.

    Args:
        files: what holds them: one file, or the shards that an index names, in its order.
        kind: of all files; a pickle is converted before anything can be read from it.
        epoch: how many epochs were trained, 0 before the first; 1, 2, … in order where that is not a whole number or
            not known.
        epoch_said: the epoch as the training's own files give it, such as 2.5; None where `epoch` is the order alone.
        step: optimiser steps, where they are said.
    """

    files: tuple[Path, ...]
    kind: Kind
    epoch: int
    epoch_said: float | None = None
    step: int | None = None


@dataclass(frozen=True)
class FoundTraining:
    """One training: a seed of one recipe, at one epoch or more.

    Args:
        name: its folder below the one that was looked into, and what its files' names share; "" where that is all.
            Unique among those found together; from outside, to be shown with care.
        checkpoints: first epoch first, no epoch twice; gaps are possible.
        seed: as its files or its name say.
        backbone: what it started from, as simtui writes it (`timm:…`, `open_clip:…`); None where no file says it fully.
        model_said: the model as its files call it, even where that is not enough for `backbone`.
        input_size: pixels of an image's side in training, where a file says it.
        mean, std: with which pixels in [0, 1] were normalised in training, where a file says it.
        class_names: by output of the classifier, where a file says it.
        said_by: the file that says the above.
        notes: what was left aside and why, and what the user should know of the above; one sentence each.
    """

    name: str
    layout: Layout
    checkpoints: tuple[FoundCheckpoint, ...]
    seed: int | None = None
    backbone: str | None = None
    model_said: str | None = None
    input_size: int | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    class_names: tuple[str, ...] | None = None
    said_by: Path | None = None
    notes: tuple[str, ...] = ()


def find_trainings(
    folder: Path, *, follow_links: bool = False, order: Order = "number", counted_from: Literal[0, 1] = 1
) -> tuple[FoundTraining, ...]:
    """What trainings a folder and the folders below it hold, by name.

    Args:
        follow_links: also look into folders and files that symbolic links lead to; each folder once.
        order: "name" takes the files of a folder as the epochs 1, 2, … in the order of their names (numbers in them
            count as numbers), where the names say no epoch.
        counted_from: the number that names of plain files give the first trained epoch. timm, Lightning (both from 0),
            Hugging Face and open_clip have rules of their own.
    Raises:
        WeightsError: no such folder, no checkpoint in it, a file whose epoch cannot be told, or two of one epoch.
        MachineError: the folder cannot be read.
    """
    if not folder.is_dir():
        raise WeightsError(str(folder), "no such folder", "correct the path")
    groups: dict[tuple[Path, str], list[_File]] = {}
    aside: dict[Path, list[str]] = {}
    for each in _folders(folder, follow_links):
        for file in _files(each, aside, follow_links):
            groups.setdefault((file.root, file.stem), []).append(file)
    _join_beginnings(groups)
    found = [_training(folder, key, files, aside, order, counted_from) for key, files in groups.items()]
    if not found:
        looked_for = "looked for " + " ".join(sorted(_SUFFIXES))
        raise WeightsError(str(folder), f"no checkpoints in it ({looked_for})", "give the folder that holds them")
    return tuple(sorted(found, key=lambda training: natural(training.name)))


def refuse_other_epoch(layout: Layout, path: Path, epoch_said: float | None, facts: Mapping[str, object]) -> None:
    """Compares the epoch that a file's name says with what a converted pickle says of itself.

    Args:
        epoch_said: see `FoundCheckpoint`.
        facts: see `engine.foreign.convert.Converted`.
    Raises:
        WeightsError: they differ, as where files were renamed or mixed up.
    """
    own = facts.get("epoch")
    version = facts.get("version", 2)
    counts_from = {"timm": 0 if version == 2 else 1, "lightning": 0, "open_clip": 1}.get(layout)
    if counts_from is None or not isinstance(own, int) or epoch_said is None:
        return
    trained = own + 1 - counts_from
    if trained != epoch_said:
        problem = f"is named as epoch {epoch_said:g}, and says itself that {trained} were trained"
        raise WeightsError(str(path), problem, "give the files their own names back")


@dataclass(frozen=True)
class _File:
    """One checkpoint, before it is known to which epoch of which training it belongs."""

    root: Path
    stem: str
    label: Label
    files: tuple[Path, ...]
    kind: Kind
    layout: Layout
    epoch: float | None
    step: int | None


def _folders(top: Path, follow_links: bool) -> Iterator[Path]:
    """The folder and those below, each once, in the order of their names."""
    seen: set[tuple[int, int]] = set()
    waiting = [top]
    n_entries = 0
    while waiting:
        folder = waiting.pop()
        try:
            status = folder.stat()
            entries = sorted(folder.iterdir(), key=lambda path: natural(path.name), reverse=True)
        except OSError as error:
            problem = f"cannot be read ({error.strerror or error})"
            raise MachineError(str(folder), problem, "make it readable, or give another folder") from error
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        n_entries += len(entries)
        if n_entries > _MAX_ENTRIES:
            problem = f"holds more than {_MAX_ENTRIES:,} files and folders"
            raise WeightsError(str(top), problem, "give the folder of the checkpoints alone")
        yield folder
        waiting += [
            each
            for each in entries
            if not each.name.startswith(".") and (follow_links or not each.is_symlink()) and each.is_dir()
        ]


def _files(folder: Path, aside: dict[Path, list[str]], follow_links: bool) -> Iterator[_File]:
    """The checkpoints that lie directly in a folder; what is left aside is noted under its training's folder."""
    names = [
        path
        for path in sorted(folder.iterdir(), key=lambda path: natural(path.name))
        if not path.name.startswith(".") and (follow_links or not path.is_symlink()) and path.is_file()
    ]
    present = {path.name for path in names}
    shards = {shard for path in names if path.name.endswith(_INDEX) for shard in _shards(path)}
    for path in names:
        suffix = next((each for each in _SUFFIXES if path.name.lower().endswith(each)), "")
        is_index = path.name.endswith(_INDEX)
        if (not suffix and not is_index) or path in shards:
            continue
        bare = path.name.removesuffix(_INDEX) if is_index else path.name
        stem = re.sub(r"\.(safetensors|pth\.tar|pt\.tar|pth|pt|bin|ckpt)$", "", bare, flags=re.IGNORECASE)
        if _OTHER.fullmatch(stem):
            aside.setdefault(folder, []).append(
                f"{path.name} is left aside: for going on with the training, or no whole network"
            )
        elif bare == "pytorch_model.bin" and "model.safetensors" in present:
            aside.setdefault(folder, []).append(f"{path.name} is left aside for model.safetensors")
        else:
            yield _file(folder, path, stem, tuple(_shards(path)) if is_index else (path,))


def _shards(index: Path) -> list[Path]:
    """The files that an index names, all in its folder.

    Raises:
        WeightsError: it is not readable, or names a file elsewhere.
    """
    try:
        with open_file(index) as file:
            names = json.loads(file.read(_MAX_INDEX_BYTES))["weight_map"].values()
        found = sorted({str(name) for name in names})
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsError(str(index), "not readable as an index of shards", "copy it again, or remove it") from error
    outside = [name for name in found if Path(name).name != name]
    if outside or not found:
        raise WeightsError(str(index), "names files outside its folder, or none", "copy it again, or remove it")
    return [index.parent / name for name in found]


def _file(folder: Path, path: Path, stem: str, files: tuple[Path, ...]) -> _File:
    kind: Kind = "safetensors" if all(each.name.endswith(".safetensors") for each in files) else "pickle"
    label = read_label(stem)
    if match := re.fullmatch(r"checkpoint-(\d+)\.pth\.tar", path.name):
        return _File(folder, "", label, files, kind, "timm", int(match[1]) + 1.0, None)
    if match := re.fullmatch(r"milestone-(\d+)\.pth\.tar", path.name):
        return _File(folder, "", label, files, kind, "timm", float(match[1]), None)
    if match := re.fullmatch(r"epoch=(\d+)(?:-step=(\d+))?.*\.ckpt", path.name):
        step = int(match[2]) if match[2] else None
        return _File(folder, "", label, files, kind, "lightning", int(match[1]) + 1.0, step)
    if path.name.startswith("epoch_") and (folder.parent / "params.txt").is_file():
        return _File(folder.parent, "", label, files, kind, "open_clip", label.epoch, None)
    if is_generic(stem) and (match := re.fullmatch(r"checkpoint-(\d+)", folder.name)):
        try:
            epoch, step = read_trainer_state(folder)
        except ValueError:
            epoch, step = None, None
        step = int(match[1]) if step is None else step
        return _File(folder.parent, "", label, files, kind, "hugging_face", epoch, step)
    root = folder
    if is_generic(stem) and label.number is None and label.epoch is None:
        of_folder = read_label(folder.name)
        if of_folder.epoch is not None or of_folder.step is not None or of_folder.is_before:
            label, root = of_folder, folder.parent
    name = label.stem if label.epoch is not None or label.step is not None else label.stem_without_number
    name = "" if is_generic(name) or label.is_before else name
    return _File(root, name, label, files, kind, "plain", 0.0 if label.is_before else label.epoch, label.step)


def _join_beginnings(groups: dict[tuple[Path, str], list[_File]]) -> None:
    """A file of the first weights, or a best or last one, belongs to the only training of its folder."""

    def is_beside(files: list[_File]) -> bool:
        return all(each.label.is_before or each.label.copy_word or each.label.is_averaged for each in files)

    beside = [key for key, files in groups.items() if is_beside(files)]
    for key in beside:
        others = [other for other in groups if other[0] == key[0] and other not in beside]
        if len(others) == 1:
            groups[others[0]] += groups.pop(key)


def _training(
    top: Path,
    key: tuple[Path, str],
    files: list[_File],
    aside: dict[Path, list[str]],
    order: Order,
    counted_from: int,
) -> FoundTraining:
    root, stem = key
    folder = "" if root == top else str(root.relative_to(top))
    name = "/".join(filter(None, (folder, stem)))
    layout = Counter(file.layout for file in files).most_common(1)[0][0]
    notes = [note for place in {root, *(file.files[0].parent for file in files)} for note in aside.get(place, [])]
    kept = _without_copies(files, notes)
    numbered = [replace(file, epoch=_epoch(file, kept, layout, counted_from)) for file in kept]
    checkpoints = _in_order(root, numbered, order, notes)
    parents = [each for each in (root, *root.parents) if each == top or top in each.parents]
    said = read_said([checkpoints[-1].files[0].parent, root, *parents])
    by_name = seed_of(stem) if seed_of(stem) is not None else seed_of(folder)
    if said.seed is not None and by_name is not None and said.seed != by_name:
        notes.append(f"its name says seed {by_name}, and its files say {said.seed}, which counts")
    seed = by_name if said.seed is None else said.seed
    return FoundTraining(
        name, layout, checkpoints, seed, said.backbone, said.model_said, said.input_size, said.mean, said.std,
        said.class_names, said.said_by, (*notes, *said.notes),
    )  # fmt: skip


def _without_copies(files: list[_File], notes: list[str]) -> list[_File]:
    """Drops what copies another epoch, and averaged weights that have plain ones beside them."""
    named = [each for each in files if not each.label.copy_word and not each.label.is_averaged]
    if any(each.layout != "plain" for each in named):  # such as the model that transformers saves at the end once more
        named = [each for each in named if each.layout != "plain" or each.epoch is not None]
    if not named:
        return files
    epochs = {each.epoch for each in named}
    kept = list(named)
    for each in files:
        if each in named:
            continue
        if each.epoch is not None and each.epoch not in epochs and not each.label.is_averaged:
            kept.append(each)
            continue
        copy = f"{each.label.copy_word or 'the model itself'}, taken for a copy of another; else name it by its epoch"
        reason = "averaged weights" if each.label.is_averaged else copy
        notes.append(f"{each.files[0].name} is left aside: {reason}")
    unique: dict[tuple[int, int], _File] = {}
    for each in kept:  # timm's milestones and copies by hard link are one file under two names
        status = each.files[0].stat()
        if unique.setdefault((status.st_dev, status.st_ino), each) is not each:
            notes.append(
                f"{each.files[0].name} is left aside: it is {unique[status.st_dev, status.st_ino].files[0].name}"
            )
    return list(unique.values())


def _epoch(file: _File, files: list[_File], layout: Layout, counted_from: int) -> float | None:
    """What a file's name and log say, with what the numbers of its neighbours' names mean."""
    shift = 1 - counted_from if layout == "plain" and not file.label.is_before else 0
    if file.epoch is not None:
        return file.epoch + shift
    if file.layout != "plain" or file.step is not None or file.label.number is None:
        return None
    others = {each.label.number for each in files}
    if len(others) > 1 or is_generic(file.label.stem_without_number):
        return float(file.label.number + shift)
    return None


def _in_order(root: Path, files: list[_File], order: Order, notes: list[str]) -> tuple[FoundCheckpoint, ...]:
    """Checkpoints with the epochs that they are shown under."""
    if all(file.epoch is not None for file in files):
        epochs = [file.epoch or 0.0 for file in files]
        nearest = [round(epoch) for epoch in epochs]
        is_whole = all(abs(epoch - near) <= _NEARLY for epoch, near in zip(epochs, nearest, strict=True))
        if is_whole:
            _refuse_twice(files, nearest)
            pairs = sorted(zip(nearest, files, strict=True), key=lambda pair: pair[0])
            return tuple(FoundCheckpoint(file.files, file.kind, n, file.epoch, file.step) for n, file in pairs)
        files = [file for _, file in sorted(zip(epochs, files, strict=True), key=lambda pair: pair[0])]
        said = ", ".join(f"{file.epoch:g}" for file in files[:5])
        notes.append(f"its epochs are not whole ({said}{', …' if len(files) > 5 else ''}): numbered in their order")
    elif all(file.step is not None for file in files):
        files = sorted(files, key=lambda file: file.step or 0)
        notes.append("only steps are said, no epochs: the checkpoints are numbered in their order")
    elif order == "name":
        files = sorted(files, key=lambda file: natural(file.files[0].name))
        notes.append("the checkpoints are numbered in the order of their names")
    else:
        unknown = next(file for file in files if file.epoch is None)
        fix = "rename it to epoch-N with the number of epochs trained, or take the order of names with --order name"
        raise WeightsError(str(unknown.files[0]), "which epoch it is of cannot be told", fix)
    first = 0 if files[0].epoch == 0 or (files[0].epoch is None and files[0].step == 0) else 1
    steps = [file.epoch if file.epoch is not None else file.step for file in files]
    if order == "number":
        _refuse_twice(files, steps)
    return tuple(
        FoundCheckpoint(file.files, file.kind, n, file.epoch, file.step) for n, file in enumerate(files, first)
    )


def _refuse_twice(files: list[_File], epochs: Sequence[float | None]) -> None:
    first: dict[float | None, _File] = {}
    for file, epoch in zip(files, epochs, strict=True):
        if (other := first.setdefault(epoch, file)) is not file:
            seen = f"{other.files[0].name} and {file.files[0].name}"
            problem = f"two checkpoints of one epoch or step ({seen}, both {epoch:g})"
            raise WeightsError(str(file.files[0].parent), problem, "move one of them to a folder of its own")
