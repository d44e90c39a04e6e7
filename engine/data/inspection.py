"""Looks at a whole dataset and says what it found, as plain data: images, splits, problems, costs; writes nothing."""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from engine.data.images import Decoded, quiet_decoders
from engine.data.manifest import SPLITS, Item, Manifest
from engine.data.options import DataOptions, Window
from engine.data.pixels import cache_bytes, probe_items, side_of
from engine.data.read import look_at_dataset, look_at_origin
from engine.data.sources import source_of
from engine.data.splits import positives
from engine.errors import DataError, SimtuiError

Severity = Literal["stops", "skipped", "said"]
_N_FILES = 3


@dataclass(frozen=True)
class Problem:
    """One thing to know, once for all files that share it.

    Attributes:
        severity: "stops" a study, costs images ("skipped"), or is only "said".
        text: what is wrong.
        n: how many images; 0 where it is of no image in particular.
        files: the first few.
        fix: what mends it; empty where nothing has to be done.
    """

    severity: Severity
    text: str
    n: int = 0
    files: tuple[str, ...] = ()
    fix: str = ""


@dataclass(frozen=True)
class Thumbnail:
    """A small picture of an image as the models will see it: `(s, s, 3)` uint8, and the names of its classes."""

    pixels: NDArray[np.uint8]
    label: str


@dataclass(frozen=True)
class Inspection:
    """What a dataset is.

    Attributes:
        n_of: class -> split -> images (of a multi-label dataset, those that have the finding).
        n_of_split: split -> images.
        read_from: which column or folder holds what, in words.
        sizes: widths and heights as stored, the smallest, the median and the largest by area.
        modes: what pixels are -> how many of the decoded images.
        n_groups: patients or lesions that are named; 0 where none are.
        n_repeats: images whose content another one has too.
        n_decoded: how many images were decoded to see whether they can be.
        read_s, decode_s: seconds that listing and hashing, and decoding, took.
        cache_bytes: what all images take, decoded for `input_size`.
    """

    path: str
    layout: str
    task: str
    is_synthetic: bool
    classes: tuple[str, ...]
    n_of: Mapping[str, Mapping[str, int]]
    n_of_split: Mapping[str, int]
    read_from: str
    window: Window | None
    sizes: tuple[tuple[int, int], ...]
    modes: Mapping[str, int]
    group_name: str | None
    n_groups: int
    n_repeats: int
    problems: tuple[Problem, ...]
    n_decoded: int
    read_s: float
    decode_s: float
    input_size: int
    cache_bytes: int
    digest: str
    thumbnails: tuple[Thumbnail, ...]

    @property
    def n_images(self) -> int:
        """Images in all splits."""
        return sum(self.n_of_split.values())

    @property
    def is_usable(self) -> bool:
        """Whether a study could start on it."""
        return all(problem.severity != "stops" for problem in self.problems)


def inspect_dataset(
    path: Path,
    options: DataOptions,
    *,
    is_origin: bool = False,
    input_size: int = 224,
    n_images: int | None = None,
    n_thumbnails: int = 0,
    thumbnail_side: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> Inspection:
    """Reads a dataset and decodes its images as a study would.

    Args:
        is_origin: whether it is a set of the pre-training domain, which needs no splits.
        input_size: of the backbone, in pixels.
        n_images: decodes only so many, drawn over all classes by content; None for all.
        n_thumbnails: how many to keep, of classes in turn.
        progress: is told `(done, total)` after every decoded image.
    Raises:
        DataError: the dataset cannot be read at all; the message says which file or line, and what mends it.
        StudyError: an option names what is not there.
    """
    started_s = time.monotonic()
    manifest, errors = (look_at_origin if is_origin else look_at_dataset)(path, options)
    read_s = time.monotonic() - started_s
    items = manifest.items if n_images is None else probe_items(manifest.items, n_images, len(manifest.classes))
    wanted = _thumbnail_items(manifest, items, n_thumbnails)
    started_s = time.monotonic()
    seen = _decode(manifest, items, input_size, {item.id for item in wanted}, thumbnail_side, progress)
    decode_s = time.monotonic() - started_s
    groups = {item.group for item in manifest.items} - {None}
    return Inspection(
        str(path),
        manifest.layout,
        manifest.task,
        manifest.synthetic,
        manifest.classes,
        _n_of_class(manifest),
        {split: n for split in SPLITS if (n := len(manifest.of_split(split)))},
        manifest.read_from,
        manifest.decoding.window,
        seen.sizes(),
        dict(seen.modes.most_common()),
        manifest.group_name,
        len(groups),
        len(manifest.items) - len({item.sha256 for item in manifest.items}),
        _problems(manifest, errors, seen.problems, len(items), options.max_skipped),
        len(items),
        read_s,
        decode_s,
        input_size,
        cache_bytes(len(manifest.items), input_size),
        manifest.digest,
        tuple(Thumbnail(seen.thumbnails[item.id], _label_of(manifest, item)) for item in wanted
              if item.id in seen.thumbnails),
    )  # fmt: skip


def _problems(
    manifest: Manifest, errors: Sequence[DataError], decoding: Sequence[Problem], n_decoded: int, max_skipped: float
) -> tuple[Problem, ...]:
    """All problems, what stops a study first; too many unusable images, on reading and decoding together, are one."""
    found = [*_listed(Problem("skipped", one.problem, 1, (one.path,)) for one in manifest.skipped), *decoding]
    n_skipped = sum(problem.n for problem in found if problem.severity == "skipped")
    n_images = n_decoded + len(manifest.skipped)
    if n_skipped > max_skipped * n_images:
        text = f"{n_skipped} of {n_images} images cannot be used (limit {100 * max_skipped:g}%)"
        found.insert(0, Problem("stops", text, fix="mend or remove these images, or raise data.max_skipped"))
    found += [Problem("stops", error.problem, fix=error.fix) for error in errors]
    found += [Problem("said", text) for text in manifest.warnings]
    order = ("stops", "skipped", "said")
    return tuple(sorted(found, key=lambda problem: (order.index(problem.severity), -problem.n)))


class _Seen:
    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.modes: Counter[str] = Counter()
        self.thumbnails: dict[str, NDArray[np.uint8]] = {}
        self._sizes: Counter[tuple[int, int]] = Counter()

    def add_size(self, size: tuple[int, int]) -> None:
        self._sizes[size] += 1

    def sizes(self) -> tuple[tuple[int, int], ...]:
        ordered = sorted(self._sizes, key=lambda size: (size[0] * size[1], size))
        if not ordered:
            return ()
        half, at = sum(self._sizes.values()) / 2, 0
        for middle in ordered:
            at += self._sizes[middle]
            if at >= half:
                break
        return ordered[0], middle, ordered[-1]


def _decode(
    manifest: Manifest,
    items: Sequence[Item],
    input_size: int,
    wanted: set[str],
    thumbnail_side: int,
    progress: Callable[[int, int], None] | None,
) -> _Seen:
    seen = _Seen()
    found: list[Problem] = []
    with quiet_decoders():
        squares = source_of(manifest.root).squares(items, side_of(input_size), manifest.decoding)
        for done, (item, one) in enumerate(zip(items, squares, strict=True), start=1):
            if isinstance(one, Decoded):
                seen.modes[one.mode] += 1
                seen.add_size(one.size)
                found += [Problem("said", note, 1, (item.path,)) for note in one.notes]
                if item.id in wanted:
                    seen.thumbnails[item.id] = _shrunk(one.pixels, thumbnail_side)
            else:
                severity: Severity = "stops" if isinstance(one, DataError) else "skipped"
                found.append(Problem(severity, one.problem, 1, (item.path,), _fix(one)))
            if progress:
                progress(done, len(items))
    seen.problems = _listed(found)
    return seen


def _fix(error: SimtuiError) -> str:
    return error.fix if isinstance(error, DataError) else ""


def _listed(found: Iterable[Problem]) -> list[Problem]:
    """Problems with the same words as one, with their count and first files; the most frequent first."""
    alike: defaultdict[tuple[Severity, str, str], list[str]] = defaultdict(list)
    for one in found:
        alike[one.severity, one.text, one.fix].extend(one.files)
    listed = [
        Problem(severity, text, len(files), tuple(files[:_N_FILES]), fix)
        for (severity, text, fix), files in alike.items()
    ]
    return sorted(listed, key=lambda problem: -problem.n)


def _shrunk(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """The mean over blocks of pixels: `(side, side, 3)`."""
    edges = np.linspace(0, len(pixels), side + 1).round().astype(int)
    rows = np.add.reduceat(pixels.astype(np.float64), edges[:-1], axis=0) / np.diff(edges)[:, None, None]
    both = np.add.reduceat(rows, edges[:-1], axis=1) / np.diff(edges)[None, :, None]
    return np.rint(both).astype(np.uint8)


def _n_of_class(manifest: Manifest) -> dict[str, dict[str, int]]:
    counts = Counter((label, item.split) for item in manifest.items for label in positives(item.label))
    return {
        name: {split: counts[label, split] for split in SPLITS if counts[label, split]}
        for label, name in enumerate(manifest.classes)
    }


def _thumbnail_items(manifest: Manifest, items: Sequence[Item], n: int) -> tuple[Item, ...]:
    """Images of the classes in turn, the same ones each time."""
    if not n:
        return ()
    n_classes = len(manifest.classes)
    drawn = probe_items(items, math.ceil(n / n_classes) * n_classes, n_classes)
    of_class: defaultdict[int, list[Item]] = defaultdict(list)
    for item in drawn:
        of_class[positives(item.label)[0]].append(item)
    turns = [each[turn] for turn in range(n) for each in of_class.values() if turn < len(each)]
    return tuple(turns[:n])


def _label_of(manifest: Manifest, item: Item) -> str:
    names = [manifest.classes[label] for label in positives(item.label) if label >= 0]
    return ", ".join(names) or "no finding"
