"""Drawn splits: every image once, stratified, together what belongs together, decided by content alone."""

from __future__ import annotations

import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.manifest import Label
from engine.data.splits import NO_FINDING, SHARES, draw_splits, positives, strata

SOME_SHARES = st.sampled_from([SHARES, {"train": 85, "test": 15}, {"train": 85, "val": 15}, {"train": 100}])
Row = tuple[int, int, str | None]  # label, content, group
ROWS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 60), st.sampled_from([None, *"abcdefghijkl"])), max_size=80)
STEADY = settings(deadline=None, derandomize=True, max_examples=150)


def hashes_of(n: int, seed: int = 0) -> list[str]:
    return [hashlib.sha256(f"{seed} {row}".encode()).hexdigest() for row in range(n)]


@STEADY
@given(labels=st.lists(st.integers(0, 5), max_size=120), shares=SOME_SHARES, seed=st.integers(0, 1000))
def test_every_label_is_within_one_of_its_share(labels: list[int], shares: dict[str, int], seed: int) -> None:
    splits = draw_splits(labels, hashes_of(len(labels), seed), [None] * len(labels), shares)
    assert len(splits) == len(labels)
    assert set(splits) <= set(shares)
    seen = Counter(zip(splits, labels, strict=True))
    for label, n in Counter(labels).items():
        for split, share in shares.items():
            assert abs(seen[split, label] - share * n / 100) < 1
        assert seen["train", label] > 0
        if n > 1 and "test" in shares:
            assert seen["test", label] > 0


@STEADY
@given(rows=ROWS, shares=SOME_SHARES, order=st.randoms(use_true_random=False))
def test_groups_and_identical_images_stay_together_in_any_order(
    rows: list[Row], shares: dict[str, int], order: random.Random
) -> None:
    hashes = hashes_of(61)

    def drawn(rows: list[Row]) -> dict[Row, str]:
        contents = [hashes[content] for _, content, _ in rows]
        splits = draw_splits([row[0] for row in rows], contents, [row[2] for row in rows], shares)
        return dict(zip(rows, splits, strict=True))

    split_of = drawn(rows)
    together: defaultdict[object, set[str]] = defaultdict(set)
    for (_, content, group), split in split_of.items():
        together[content].add(split)
        if group is not None:
            together[group].add(split)
    assert all(len(splits) == 1 for splits in together.values())
    shuffled = order.sample(rows, len(rows))
    assert drawn(shuffled) == split_of


def units_of(rows: list[Row]) -> list[set[Row]]:
    """Rows joined by content or group, by merging until nothing changes: slow, and written in another way."""
    units: list[set[Row]] = []
    for row in rows:
        joined = [unit for unit in units if any(one[1] == row[1] or one[2] == row[2] is not None for one in unit)]
        units = [unit for unit in units if unit not in joined] + [{row}.union(*joined)]
    return units


@STEADY
@given(rows=ROWS)
def test_a_label_of_two_units_reaches_the_test_images(rows: list[Row]) -> None:
    hashes = hashes_of(61)
    contents = [hashes[content] for _, content, _ in rows]
    splits = draw_splits([row[0] for row in rows], contents, [row[2] for row in rows], SHARES)
    tested = {label for (label, _, _), split in zip(rows, splits, strict=True) if split == "test"}
    n_units = Counter(label for unit in units_of(rows) for label in {row[0] for row in unit})
    assert {label for label, n in n_units.items() if n > 1} <= tested


def test_groups_that_share_an_image_are_one() -> None:
    hashes = hashes_of(60)
    groups: list[str | None] = [f"patient {row // 2}" for row in range(60)]
    splits = draw_splits([0] * 61, [*hashes, hashes[0]], [*groups, groups[59]], SHARES)
    assert len({splits[0], splits[1], splits[58], splits[59], splits[60]}) == 1


def test_shares_of_groups_are_met_where_groups_are_small() -> None:
    labels = [row % 2 for row in range(600)]
    groups: list[str | None] = [f"{row % 2} {row // 6}" for row in range(600)]
    seen = Counter(draw_splits(labels, hashes_of(600), groups, SHARES))
    for split, share in SHARES.items():
        assert abs(seen[split] - 6 * share) <= 6


def findings_of(n: int, shares: Sequence[float], seed: int) -> list[Label]:
    """Findings that are there independently of each other, each in its share of the images; a tenth is not known."""
    draw = random.Random(seed)
    return [tuple(-1 if draw.random() < 0.1 else int(draw.random() < share) for share in shares) for _ in range(n)]


@pytest.mark.parametrize("seed", range(5))
def test_every_finding_is_close_to_its_share(seed: int) -> None:
    n, prevalences = 1000, (0.5, 0.3, 0.1, 0.05, 0.02)
    labels = findings_of(n, prevalences, seed)
    splits = draw_splits(labels, hashes_of(n, seed), [None] * n, SHARES)
    for number in [*range(len(prevalences)), NO_FINDING]:
        found = Counter(split for split, label in zip(splits, labels, strict=True) if number in positives(label))
        for split, share in SHARES.items():
            assert abs(found[split] - found.total() * share / 100) <= max(2, 0.02 * found.total())
    for split, share in SHARES.items():
        assert abs(splits.count(split) - n * share / 100) <= 20  # the findings' shares come first


@pytest.mark.parametrize("seed", range(5))
def test_findings_of_one_patient_stay_together(seed: int) -> None:
    n = 1200
    labels = findings_of(n, (0.4, 0.1, 0.05), seed)
    groups: list[str | None] = [f"patient {row // 4}" for row in range(n)]
    splits = draw_splits(labels, hashes_of(n, seed), groups, SHARES)
    assert all(len(set(splits[start : start + 4])) == 1 for start in range(0, n, 4))
    for number in range(3):
        found = Counter(split for split, label in zip(splits, labels, strict=True) if number in positives(label))
        for split, share in SHARES.items():
            assert abs(found[split] - found.total() * share / 100) <= 4
    # ... and whatever the order of the images is.
    order = random.Random(seed).sample(range(n), n)
    hashes = hashes_of(n, seed)
    again = draw_splits(
        [labels[row] for row in order], [hashes[row] for row in order], [groups[row] for row in order], SHARES
    )
    assert again == [splits[row] for row in order]


def test_a_finding_of_two_images_is_in_train_and_test() -> None:
    labels: list[Label] = [(1, 0)] * 40 + [(0, 0)] * 40 + [(0, 1), (1, 1)]
    splits = draw_splits(labels, hashes_of(82), [None] * 82, SHARES)
    assert sorted(splits[80:]) == ["test", "train"]


def test_a_label_counts_where_it_is_positive() -> None:
    assert positives(3) == (3,)
    assert positives((0, 1, -1, 1)) == (1, 3)
    assert positives((0, -1)) == positives(()) == (NO_FINDING,)


def test_an_image_of_several_classes_is_drawn_as_its_rarest() -> None:
    labels: list[Label] = [(1, 0, 0), (1, 1, 0), (1, 1, 1), (0, 0, 0), (1, 0, 0), (0, 0, -1), (0, 0, 0), (0, 0, 0)]
    assert strata(labels) == [0, 1, 2, NO_FINDING, 0, NO_FINDING, NO_FINDING, NO_FINDING]
    assert strata([(1, 1), (1, 1)]) == [0, 0]  # of two that are as rare the first
    assert strata([2, 0, 2]) == [2, 0, 2]
    assert strata([]) == []


def test_other_contents_draw_other_splits() -> None:
    draws = [draw_splits([0] * 100, hashes_of(100, seed), [None] * 100, SHARES) for seed in range(2)]
    assert draws[0] != draws[1]


def test_a_rare_label_reaches_the_test_images() -> None:
    splits = draw_splits([0] * 50 + [1] * 2, hashes_of(52), [None] * 52, SHARES)
    assert sorted(splits[50:]) == ["test", "train"]


@pytest.mark.parametrize("n", range(2, 30))
def test_small_sets_are_drawn_alike_for_every_label(n: int) -> None:
    seen = Counter(draw_splits([0] * n, hashes_of(n), [None] * n, SHARES))
    assert seen["train"] >= seen["test"] >= seen["val"] >= (n > 3) * (n - 3) // 8
