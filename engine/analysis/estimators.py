"""What must stand beside a similarity: which estimator it is, and where it says too much; knows no tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from engine.measures.table import MEASURES
from engine.runs.record import RunRecord
from engine.runs.results import SimilarityKey

POOLINGS = ("cls", "feat")


def label_of(measure: str) -> str:
    """The name of the estimator; of one that this simtui does not know, its own."""
    return MEASURES[measure].label if measure in MEASURES else measure


def short_of(measure: str) -> str:
    """The measure as a column's title."""
    return MEASURES[measure].short if measure in MEASURES else measure


def column_of(key: SimilarityKey) -> str:
    """The name of a similarity's column in every table."""
    return f"{key.measure}_{key.pooling}_{key.probe}"


def caution(record: RunRecord, measure: str, probe: str = "target") -> str:
    """Why a similarity of this run says too much (`linear CKA (biased) is inflated: …`); empty where it does not."""
    provenance = record.provenance
    n, d = provenance.n_probe if probe == "target" else provenance.n_origin_probe, provenance.n_features
    d = max(d, record.reference.n_features) if record.reference else d
    said = MEASURES[measure].caution(n, d) if measure in MEASURES and n and d else None
    return f"{said} on the {probe} images" if said and probe != "target" else said or ""


def pooling_of(records: Iterable[RunRecord]) -> str:
    """The pooling that all these runs have: the CLS token, else, where a backbone has none, the mean ("feat").

    Runs that have not begun are not known to lack one.
    """
    known = [record.provenance.poolings for record in records if record.provenance.poolings]
    return POOLINGS[0] if all(POOLINGS[0] in each for each in known) else POOLINGS[1]


def measures_of(records: Iterable[RunRecord]) -> tuple[str, ...]:
    """The measures that the runs ask for, in the order of the study."""
    return tuple(dict.fromkeys(name for record in records for name in record.spec.measure.similarity))


def in_order(keys: Iterable[SimilarityKey], measures: Sequence[str]) -> tuple[SimilarityKey, ...]:
    """Similarities with the target domain and the study's first measure first; what it does not ask for comes last."""
    places = {measure: i for i, measure in enumerate(measures)}
    last = len(places)
    return tuple(
        sorted(keys, key=lambda key: (key.probe != "target", key.pooling, places.get(key.measure, last), key.measure))
    )


def similarity_metrics(records: Sequence[RunRecord]) -> tuple[str, ...]:
    """The names in `RunRecord.last` of the similarity by each measure and pooling, the study's first measure first."""
    return tuple(f"{measure}_{pooling}" for measure in measures_of(records) for pooling in POOLINGS)


def notes_on(records: Sequence[RunRecord], measures: Sequence[str], probe: str = "target") -> tuple[str, ...]:
    """The estimator of each measure with its source, and each caution once."""
    sources = [f"{name}: {label_of(name)}; {MEASURES[name].reference}" for name in measures if name in MEASURES]
    sizes = {(each.provenance.n_probe, each.provenance.n_origin_probe, each.provenance.n_features): each
             for each in records}  # fmt: skip
    cautions = dict.fromkeys(
        each for name in measures for record in sizes.values() if (each := caution(record, name, probe))
    )
    return (*sources, *cautions)
