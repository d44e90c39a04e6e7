"""Owns which image goes into which split where the dataset does not say; knows no files and no layouts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.data.manifest import Label

SHARES = {"train": 70, "test": 15, "val": 15}


@dataclass(frozen=True)
class _Unit:
    """Images that must stay together: `rows` are positions, `n_of_label` how many there are of each label."""

    digest: str
    rows: tuple[int, ...]
    n_of_label: Counter[int]


NO_FINDING = -1


def positives(label: Label) -> tuple[int, ...]:
    """The classes that an image is of; `NO_FINDING` alone where a multi-label image has none."""
    if isinstance(label, int):
        return (label,)
    return tuple(number for number, value in enumerate(label) if value == 1) or (NO_FINDING,)


def strata(labels: Sequence[Label]) -> list[int]:
    """The class by which an image is drawn: its own, or of several the one that is rarest among all images."""
    found = [positives(label) for label in labels]
    n_of = Counter(number for each in found for number in each)
    return [min(each, key=lambda number: (n_of[number], number)) for each in found]


def draw_splits(
    labels: Sequence[Label], contents: Sequence[str], groups: Sequence[str | None], shares: Mapping[str, int]
) -> list[str]:
    """A split for every image: stratified by label, decided by content alone.

    Blind to the order, the names and the place of the images. Images of one group, and identical images, stay together.
    Without groups and duplicates, every label's count in every split is within 1 of its share. Where "test" is drawn, a
    label that has two units or more has one in it.

    Args:
        labels: a class a row, or 1, 0 and -1 for every class; an image of several classes counts for each.
        contents: a content hash a row.
        groups: what must not be divided, a row; None is a group of its own.
        shares: split -> its share in percent, 100 in all, "train" among them; where two splits need an image alike, the
            first one gets it.
    Returns:
        A split a row.
    """
    classes = [positives(label) for label in labels]
    units = _units(classes, contents, groups)
    n_of_label = Counter(label for each in classes for label in each)
    # 100 x how many images of each label the split still lacks: whole numbers, so that ties are ties on any machine.
    lacks = {split: {label: share * n for label, n in n_of_label.items()} for split, share in shares.items()}
    members: dict[str, list[_Unit]] = {split: [] for split in shares}
    for unit in units:
        # Each label counts by how much of it the split lacks, relative to what there is: rare labels are not drowned.
        weights = {label: n / n_of_label[label] for label, n in unit.n_of_label.items()}
        needs = {split: sum(lacks[split][label] * weight for label, weight in weights.items()) for split in shares}
        split = max(shares, key=needs.__getitem__)
        members[split].append(unit)
        for label, n in unit.n_of_label.items():
            lacks[split][label] -= 100 * n
    if "test" in members:
        _give_test_every_label(members, sorted(n_of_label))
    split_of_row = {row: split for split, units in members.items() for unit in units for row in unit.rows}
    return [split_of_row[row] for row in range(len(labels))]


def _give_test_every_label(members: dict[str, list[_Unit]], labels: Sequence[int]) -> None:
    """Moves the smallest unit of a label that "test" lacks over from "train", where another stays, or from "val"."""
    tested = {label for unit in members["test"] for label in unit.n_of_label}
    for label in labels:
        if label not in tested:
            donors = [
                (name, unit) for name in ("train", "val") for unit in members.get(name, []) if label in unit.n_of_label
            ]
            if len(donors) > 1:
                name, unit = donors[-1]
                members[name].remove(unit)
                members["test"].append(unit)
                tested.update(unit.n_of_label)


def _units(labels: Sequence[tuple[int, ...]], contents: Sequence[str], groups: Sequence[str | None]) -> list[_Unit]:
    """The images that stay together, the largest first, then by content."""
    root_of: dict[tuple[str, str], tuple[str, str]] = {}

    def root(key: tuple[str, str]) -> tuple[str, str]:
        while (above := root_of.setdefault(key, key)) != key:
            key = above
        return key

    # Two groups that share an identical image are one: joined through the content.
    keys = [("content", content) for content in contents]
    for key, group in zip(keys, groups, strict=True):
        if group is not None:
            root_of[root(key)] = root(("group", group))
    rows_of: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for row, key in enumerate(keys):
        rows_of[root(key)].append(row)
    units = [
        _Unit(
            min(contents[row] for row in rows),
            tuple(rows),
            Counter(sorted(label for row in rows for label in labels[row])),
        )
        for rows in rows_of.values()
    ]
    return sorted(units, key=lambda unit: (-len(unit.rows), unit.digest))
