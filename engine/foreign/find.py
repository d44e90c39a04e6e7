"""Finds the checkpoints of the user's own training in a folder, and what their files say of them; opens no weights.

Folders are known as timm's `train.py`, Hugging Face's `Trainer`, open_clip's `open_clip_train` and Lightning write
them; of any other the names of the files count. What a file says in another way than expected becomes a note.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Layout = Literal["timm", "hugging_face", "open_clip", "lightning", "plain"]
Kind = Literal["safetensors", "pickle"]
Order = Literal["number", "name"]


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
    raise NotImplementedError
