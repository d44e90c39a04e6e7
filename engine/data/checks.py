"""What of a dataset stops a study, or has to be said before it: classes, splits, groups, repeats; reads no file.

A check yields a sentence for what has to be said and an error for what stops a study, which the caller may raise.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

from engine.data.manifest import SPLITS, Item, Manifest
from engine.data.splits import NO_FINDING, SHARES, positives
from engine.errors import DataError

FEW_IMAGES = 10
STRONG_IMBALANCE = 10
MIN_ORIGIN = 21
MAX_GRADES = 11
_N_NAMED = 6
Finding = str | DataError


def check_splits(manifest: Manifest, missing: Sequence[str], is_official: bool) -> Iterator[str]:
    """Says which splits were drawn.

    Args:
        missing: the splits that the dataset does not give.
        is_official: whether it gives any.
    """
    if missing:
        names = " and ".join(f"{split} ({SHARES[split]} %)" for split in missing)
        source = "the training images" if is_official else "all images"
        yield f"no official {names}: drawn from {source}, stratified by class"


def check_classes(manifest: Manifest, missing: Sequence[str]) -> Iterator[Finding]:
    """Refuses classes and splits that nothing can be learnt or measured on; warns of what is merely thin.

    An error: a class has less than two images, or none in train; a split has none.
    """
    root = str(manifest.root)
    n_of = Counter((item.split, label) for item in manifest.items for label in positives(item.label))
    for label, name in enumerate(manifest.classes):
        n_images = sum(n_of[split, label] for split in SPLITS)
        absent = [split for split in SPLITS if not n_of[split, label]]
        fix = f'add images of "{name}", or remove the class'
        if n_images < 2:
            yield DataError(root, f'"{name}" has {n_images} image{"s" * (n_images != 1)}; a split needs 2', fix)
        elif "train" in absent:
            yield DataError(root, f'"{name}" has {n_images} images, none of them in train', fix)
        elif "test" in absent and "test" in missing:
            problem = f'the {n_images} images of "{name}" are of one group, or identical; a split needs 2 groups'
            yield DataError(root, problem, f'{fix}; data.group = "" leaves groups out' if manifest.group_name else fix)
        else:
            yield from (f'no image of "{name}" in {split}' for split in absent)
    if manifest.task == "multilabel":
        yield from _without_negatives(manifest)
    is_numbered = manifest.layout in ("csv", "folder", "dicom") and all(name.isdecimal() for name in manifest.classes)
    if manifest.task == "single" and is_numbered and 2 < len(manifest.classes) <= MAX_GRADES:
        shown = " ".join(manifest.classes)
        yield f'classes are numbers ({shown}): if they are grades, set data.task = "ordinal"'
    for split in SPLITS:
        if not manifest.of_split(split):
            yield DataError(root, f"{split} has no images", "add images: splits of 70, 15 and 15 % need 5 a class")
    yield from _thin_classes({name: n_of["train", label] for label, name in enumerate(manifest.classes)})


def _without_negatives(manifest: Manifest) -> Iterator[DataError]:
    for label, name in enumerate(manifest.classes):
        values = {item.label[label] for item in manifest.of_split("train") if isinstance(item.label, tuple)}
        if 0 not in values:
            fix = 'set data.blank = "zeros" if blanks are negative, or leave it out of data.label'
            yield DataError(str(manifest.root), f'no training image is known to be without "{name}"', fix)


def _thin_classes(n_of_class: Mapping[str, int]) -> Iterator[str]:
    few = [f'"{name}" {n}' for name, n in n_of_class.items() if n < FEW_IMAGES]
    if few:
        more = f" and {len(few) - _N_NAMED} more" if len(few) > _N_NAMED else ""
        yield f"few images for training (below {FEW_IMAGES}): {', '.join(few[:_N_NAMED])}{more}"
    most, least = max(n_of_class, key=n_of_class.__getitem__), min(n_of_class, key=n_of_class.__getitem__)
    ratio = n_of_class[most] / n_of_class[least] if n_of_class[least] else 0.0  # what has none stops a study
    if ratio >= STRONG_IMBALANCE:
        yield (
            f'imbalance: "{most}" has {ratio:.0f} times the training images of "{least}"; '
            "see finetune.class_weights and finetune.sampling"
        )


def check_groups(manifest: Manifest, missing: Sequence[str]) -> Iterator[Finding]:
    """Refuses groups in two splits; warns where splits were drawn and groups are not known.

    An error: images of one patient, or lesion, are in two splits.
    """
    by_group: defaultdict[str, list[Item]] = defaultdict(list)
    for item in manifest.items:
        if item.group is not None:
            by_group[item.group].append(item)
    yield from _divided(manifest, _thing(manifest.group_name), by_group)
    n_without = sum(item.group is None for item in manifest.items)
    if not by_group and missing and not manifest.synthetic:
        yield "no patients or lesions are named (data.group): images of one may be in two of the drawn splits"
    elif by_group and n_without and missing:
        yield f"{n_without} images have no {manifest.group_name}: each of them may go into any split"


def _thing(group_name: str | None) -> str:
    """What a group is in words: `patient` for `PatientID`, `lesion` for `lesion_id`."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", group_name or "group").replace("_", " ").lower().split()
    kept = [word for word in words if word not in ("id", "ids", "no", "number", "name", "code")]
    return " ".join(kept) or "group"


def check_repeats(manifest: Manifest) -> Iterator[Finding]:
    """Refuses identical images in two splits, because a test on them measures memory; warns of other repeats.

    An error: an image is in two splits.
    """
    by_content: defaultdict[str, list[Item]] = defaultdict(list)
    for item in manifest.items:
        by_content[item.sha256].append(item)
    yield from _divided(manifest, "identical image", by_content)
    yield from _repeats(by_content)


def _repeats(by_content: Mapping[str, Sequence[Item]]) -> Iterator[str]:
    repeated = [same for same in by_content.values() if len(same) > 1]
    if repeated:
        yield f'{sum(map(len, repeated)) - len(repeated)} images repeat another one (first: "{repeated[0][1].id}")'
    contrary = [same for same in repeated if len({item.label for item in same}) > 1]
    if contrary:
        one = contrary[0][0]
        other = next(item for item in contrary[0] if item.label != one.label)
        yield f'{len(contrary)} images are there under two labels (first: "{one.id}" and "{other.id}")'


def check_origin(manifest: Manifest) -> Iterator[Finding]:
    """Refuses an origin set on which k-NN cannot be measured; warns of repeated images, which find each other.

    An error: several labels an image, or too few images.
    """
    root = str(manifest.root)
    if manifest.task == "multilabel":
        fix = "give a folder a class, or a table of one class an image"
        yield DataError(root, "several labels an image; k-NN on the origin domain needs one", fix)
    if len(manifest.items) < MIN_ORIGIN:
        problem = f"{len(manifest.items)} images; k-NN with k = {MIN_ORIGIN - 1} needs {MIN_ORIGIN}"
        yield DataError(root, problem, "add images of the origin domain")
    n_of = Counter(label for item in manifest.items for label in positives(item.label))
    alone = [manifest.classes[label] for label, n in n_of.items() if n == 1 and label != NO_FINDING]
    if alone:
        yield f'{len(alone)} classes have 1 image, which no neighbour can share (first: "{sorted(alone)[0]}")'
    by_content: defaultdict[str, list[Item]] = defaultdict(list)
    for item in manifest.items:
        by_content[item.sha256].append(item)
    yield from _repeats(by_content)


def _divided(manifest: Manifest, what: str, together: Mapping[str, Sequence[Item]]) -> Iterator[DataError]:
    """An error with the pair of splits that share most, and the first that they share."""
    divided = [items for items in together.values() if len({item.split for item in items}) > 1]
    pairs = Counter(tuple(sorted({item.split for item in items}, key=SPLITS.index)[:2]) for items in divided)
    if not pairs:
        return
    (one, other), n = pairs.most_common(1)[0]
    items = next(items for items in divided if {one, other} <= {item.split for item in items})
    first, second = (next(item for item in items if item.split == split) for split in (one, other))
    name = f'"{first.group}": ' if first.group is not None and what != "identical image" else ""
    subject = f"1 {what} is" if n == 1 else f"{n} {what}s are"
    problem = f'{subject} in {one} and {other} (first: {name}"{first.id}" and "{second.id}")'
    yield DataError(
        str(manifest.root), problem, 'remove it from one of the splits, or set data.split = "" to have splits drawn'
    )
