"""Owns what can be asked of a run: the words and figures by which runs are filtered and sorted; knows no screen."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.analysis.estimators import POOLINGS, measures_of, pooling_of, short_of
from engine.analysis.score import ACCURACY, Score, score_of, scores_of
from engine.runs.catalog import DamagedRun
from engine.runs.record import RunRecord
from simtui.reader import Snapshot
from simtui.safe_text import safe

BACKBONE, METHOD, DATASET, STATE, PARADIGM, SEED = "backbone", "method", "dataset", "state", "paradigm", "seed"
WORD_FIELDS = (BACKBONE, METHOD, DATASET, STATE, PARADIGM, SEED)
EPOCH, ORIGIN_KNN = "epoch", "origin_knn"
DAMAGED = "damaged"


@dataclass(frozen=True)
class Facts:
    """One run.

    Attributes:
        words: of `WORD_FIELDS`, as they are shown, in small letters and without double quotes, which the language of
            filters needs; a damaged run has its state only.
        text: all of them, a line each, in which a bare word is looked for; of a damaged run its name too.
        record: None of a run that cannot be read.
    """

    run_id: str
    words: Mapping[str, str]
    text: str
    record: RunRecord | None

    @classmethod
    def of(cls, record: RunRecord) -> Facts:
        """Of a run that can be read."""
        spec = record.spec
        said = (
            spec.backbone.name, spec.method, spec.dataset, str(record.state), record.provenance.paradigm, spec.seed,
        )  # fmt: skip
        words = {name: plain(word) for name, word in zip(WORD_FIELDS, said, strict=True)}
        return cls(record.run_id, words, "\n".join(words.values()), record)

    @classmethod
    def of_damaged(cls, broken: DamagedRun) -> Facts:
        """Of one that cannot."""
        return cls(broken.run_id, {STATE: DAMAGED}, f"{plain(broken.run_id)}\n{DAMAGED}", None)

    def figure(self, metric: str) -> float | None:
        """The seed, the last finished epoch, or a metric after it; None where there is none."""
        if self.record is None:
            return None
        if metric == SEED:
            return self.record.spec.seed
        if metric == EPOCH:
            return max(self.record.epochs_done, 0)
        value = self.record.last.get(metric)
        return None if value is None or math.isnan(value) else value


@dataclass(frozen=True)
class KnownRuns:
    """The runs of a study in its order, the damaged ones last.

    Attributes:
        figures: what a figure can be called, and its metric: `acc` is `test_accuracy`.
        score, measure: what the study's runs are judged by, and its first similarity.
        pooling: of that similarity: the one that all runs have.
    """

    runs: tuple[Facts, ...]
    figures: Mapping[str, str]
    score: Score
    measure: str
    pooling: str = "cls"

    @property
    def similarity(self) -> str:
        """The metric of the similarity that stands for all."""
        return f"{self.measure}_{self.pooling}"

    @property
    def similarity_title(self) -> str:
        """The title of its column."""
        return similarity_title(self.measure, self.pooling)

    @classmethod
    def of(cls, snapshot: Snapshot, before: Mapping[str, Facts] | None = None) -> KnownRuns:
        """All runs of a study as it stands; what was known `before` of a run that has not changed is used again."""
        records, held = snapshot.records, before or {}
        facts = (
            had if (had := held.get(each.run_id)) is not None and had.record is each else Facts.of(each)
            for each in records
        )
        runs = (*facts, *map(Facts.of_damaged, snapshot.damaged))
        return cls(runs, _figures(records), score_of(records), first_measure(records), pooling_of(records))


def plain(name: object) -> str:
    """A name as filters compare it."""
    return safe(name).casefold().replace('"', "'")


def first_measure(records: Sequence[RunRecord]) -> str:
    """The measure that stands for similarity where there is room for one."""
    return next(iter(measures_of(records)), "linear_cka")


def similarity_title(measure: str, pooling: str) -> str:
    """A similarity as a column's title: the pooling is named where it is not the CLS token."""
    return short_of(measure) if pooling == "cls" else f"{short_of(measure)} Feat"


def _figures(records: Sequence[RunRecord]) -> dict[str, str]:
    """The names of figures, the most asked for first; `cka` is the study's first measure, if that is a CKA."""
    names: dict[str, str] = {}
    for score in scores_of(records):
        names |= {"acc": score.metric} if score == ACCURACY else {}
        names[re.sub("[^a-z]", "", score.label.lower())] = score.metric
        names[score.metric.removeprefix("test_")] = score.metric
    names["ece"] = "test_ece"
    measures = dict.fromkeys((first_measure(records), *measures_of(records)))
    aliases = {"cka": first_measure(records)} if "cka" in first_measure(records) else {}
    for name, measure in {**aliases, **{each: each for each in measures}}.items():
        names[name] = f"{measure}_{pooling_of(records)}"
        names |= {f"{name}_{pooling}": f"{measure}_{pooling}" for pooling in POOLINGS}
    return names | {"knn": ORIGIN_KNN, EPOCH: EPOCH, SEED: SEED}
