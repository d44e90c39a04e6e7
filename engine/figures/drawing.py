"""Owns what a figure is made from and what it becomes; knows no figure and no file."""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.analysis.estimators import label_of, notes_on
from engine.analysis.options import MEAN_OF_LAYERS, TableOptions
from engine.analysis.study_data import RunData, StudyData
from engine.runs.results import SimilarityKey
from engine.runs.study_folder import StudyFolder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_POOLINGS = {"cls": "CLS", "feat": "Feat"}
SYNTHETIC = "the images of this study are generated: nothing medical follows from the numbers"


@dataclass(frozen=True)
class Source:
    """A study as it stood when it was read: its folder, and the results of all its runs."""

    folder: StudyFolder
    data: StudyData


@dataclass(frozen=True, eq=False)
class Drawing:
    """A finished figure, and the lines of its caption: everything without which it could mislead."""

    figure: Figure
    caption: tuple[str, ...]


def similarity_label(key: SimilarityKey, layer: str) -> str:
    """The estimator behind an axis of similarity, which has no unit: `linear CKA (biased), CLS, mean of layers`."""
    probe = "" if key.probe == "target" else f", {key.probe} images"
    return f"{label_of(key.measure)}, {_POOLINGS.get(key.pooling, key.pooling)}, {layer}{probe}"


def similarity_notes(data: StudyData, options: TableOptions) -> tuple[str, ...]:
    """What a caption says of a similarity: what is compared, by which estimator, and where that says too much."""
    key = options.key(data.records)
    is_mean = options.layer == MEAN_OF_LAYERS
    which = "mean over all layers of the similarity of a layer" if is_mean else f"of layer {options.layer}"
    of_stages = (
        " (the mean over a map of stages)"
        if any(each.provenance.layer_kind == "stages" for each in data.records)
        else ""
    )
    token = "the CLS token" if key.pooling == "cls" else f"the mean patch token{of_stages}"
    sizes = sorted({each.provenance.n_probe if key.probe == "target" else each.provenance.n_origin_probe
                    for each in data.records})  # fmt: skip
    compared = (
        f"similarity: {similarity_label(key, options.layer)}; {which} to the same layer of the pre-trained model "
        f"θ*, at {token}, on n = {', '.join(map(str, sizes))} {key.probe} images"
    )
    return (compared, *notes_on(data.records, [key.measure], key.probe), *data.partial(key, options.layer))


def runs_note(runs: tuple[RunData, ...]) -> str:
    """How many runs, each with its own seed, stand behind a figure: in all, and of each backbone and method."""
    counts = Counter((run.record.spec.backbone.name, run.record.spec.method) for run in runs)
    by_backbone: dict[str, list[str]] = {}
    for (backbone, method), n in counts.items():
        by_backbone.setdefault(backbone, []).append(f"{method} {n}")
    listed = "; ".join(f"{backbone}: {', '.join(found)}" for backbone, found in by_backbone.items())
    return f"n = {len(runs)} runs, one seed each ({listed})"


def study_notes(data: StudyData, *, finals_only: bool) -> tuple[str, ...]:
    """What every caption ends with: the datasets, what is left out, and whether the images are real."""
    datasets = ", ".join(dict.fromkeys(record.spec.dataset for record in data.records))
    synthetic = (SYNTHETIC,) if any(record.is_synthetic for record in data.records) else ()
    return (f"target domain: {datasets}", *data.notes(finals_only=finals_only), *synthetic)


def go_on(source: Source) -> str:
    """What finishes the study, for a figure that needs more runs."""
    return f"finish the study: simtui run {shlex.quote(str(source.folder.path))}"
