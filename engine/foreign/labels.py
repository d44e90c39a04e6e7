"""Reads names of checkpoints: which epoch, step and seed they say, and what is left of them; opens no file.

The epoch is the number after the last "epoch", "ep" or "e" of a name; without such a word the last number that stands
alone, as in `checkpoint_0003`. Numbers within words (`resnet50`), of a seed, a step or a figure (`acc0.83`) are none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_APART = r"(?<![A-Za-z])"
_NUMBER = r"[-_=. ]?(\d{1,9}(?:\.\d+)?)(?![\dA-Za-z])"
_EPOCH = re.compile(rf"{_APART}(?:epochs?|ep|e){_NUMBER}", re.IGNORECASE)
_STEP = re.compile(
    rf"{_APART}(?:global[-_]?steps?|steps?|iters?|iterations?|it|s)[-_=. ]?(\d{{1,12}})(?!\d)", re.IGNORECASE
)
_SEED = re.compile(rf"{_APART}seed[-_=. ]?(\d{{1,9}})(?!\d)", re.IGNORECASE)
_RUN = re.compile(rf"{_APART}(?:run|rep|repeat|trial)[-_=. ]?(\d{{1,9}})(?!\d)", re.IGNORECASE)
_FIGURE = re.compile(r"(?:[A-Za-z]+[-_=]?)?\d*\.\d+")
_ALONE = re.compile(r"(?<![A-Za-z\d.])(\d{1,9})(?![A-Za-z\d]|\.\d)")
_GENERIC = {
    "", "checkpoint", "checkpoints", "ckpt", "ckpts", "model", "pytorch_model", "weights", "weight", "net", "network",
    "state_dict", "snapshot", "save", "saved", "open_clip_model", "open_clip_pytorch_model", "epoch",
}  # fmt: skip
_BEFORE = {"init", "initial", "initialised", "initialized", "pretrained", "start"}
_COPY = re.compile(r"(?:^|[-_.=])(best|last|latest|final)(?:$|[-_.=\d])", re.IGNORECASE)
_EMA = re.compile(r"(?:^|[-_.=])(ema|swa)(?:$|[-_.=])", re.IGNORECASE)


@dataclass(frozen=True)
class Label:
    """What a name says.

    Args:
        epoch: after its word; None where no word says it.
        number: the last number that stands alone; an epoch only where it differs between the files of a training.
        stem: the name without epoch, step and figures; without `number` too where that is taken for the epoch.
        is_before: the weights that training began with, by name.
        copy_word: "best" or the like, which copies an epoch that has a file of its own; "" where there is none.
    """

    epoch: float | None
    number: int | None
    step: int | None
    stem: str
    stem_without_number: str
    is_before: bool
    copy_word: str
    is_averaged: bool


def read_label(name: str) -> Label:
    """Takes a name without its suffix apart."""
    rest, epoch, step, number = name, None, None, None
    if found := list(_EPOCH.finditer(rest)):
        epoch = float(found[-1][1])
        rest = rest[: found[-1].start()] + rest[found[-1].end() :]
    if match := _STEP.search(rest):
        step = int(match[1])
        rest = rest[: match.start()] + rest[match.end() :]
    rest = _FIGURE.sub("", rest)
    seeds = [match.span() for pattern in (_SEED, _RUN) for match in pattern.finditer(rest)]
    alone = [m for m in _ALONE.finditer(rest) if not any(start <= m.start() < end for start, end in seeds)]
    without = rest
    if alone and epoch is None:
        number = int(alone[-1][1])
        without = rest[: alone[-1].start()] + rest[alone[-1].end() :]
    copy = _COPY.search(name)
    return Label(
        epoch,
        number,
        step,
        _tidy(rest),
        _tidy(without),
        _tidy(name).lower() in _BEFORE,
        copy[1].lower() if copy else "",
        _EMA.search(name) is not None,
    )


def is_generic(stem: str) -> bool:
    """Whether a name says only that this is a checkpoint."""
    return _tidy(stem).lower() in _GENERIC


def seed_of(text: str) -> int | None:
    """The seed that a name or a path says, by the last "seed" in it, else the last "run"."""
    for pattern in (_SEED, _RUN):
        if found := pattern.findall(text):
            return int(found[-1])
    return None


def natural(name: str) -> tuple[object, ...]:
    """A key that orders names with their numbers as numbers."""
    return tuple((0, int(each), "") if each.isdecimal() else (1, 0, each) for each in re.split(r"(\d+)", name))


def _tidy(stem: str) -> str:
    return re.sub(r"[-_=. ]+", lambda match: match[0][0], stem).strip("-_=. ")
