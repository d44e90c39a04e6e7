"""What the map view says: the layer × layer similarity of one run at one epoch, in numbers and in words."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from engine.analysis.estimators import caution, in_order, label_of, short_of
from engine.quality.table import QUALITY
from engine.runs.record import RunRecord
from engine.runs.results import Results, SimilarityKey
from simtui.palette import scale_color
from simtui.safe_text import fitted, safe
from simtui.selection import Selection
from simtui.views.parts import ACCENT, DIM, STRONG, WARN, Line, Span, figure, fitting, line

POOLINGS = {"cls": "CLS", "feat": "Feat"}
MODELS = {
    "full": "fully fine-tuned",
    "linear": "linear probe, blocks frozen",
    "scratch": "trained from scratch",
}
METHODS = {"full": "full fine-tuning of", "linear": "linear probe on", "scratch": "training from scratch of"}
EXPLANATION = (
    "Similarity of every block of the pre-trained model (rows) to every block of the run's model (columns), on the "
    "probe images, at one epoch; epoch 0 is the model before training. The colours run from 0 to 1 and never adapt; "
    "below 0 is as 0. "
    "CLS compares the class tokens, Feat the means of the patch tokens."
)


@dataclass(frozen=True)
class LayerMap:
    """One matrix and all the words around it."""

    matrix: np.ndarray
    layers: tuple[str, ...]
    row: int
    column: int
    key: SimilarityKey
    keys: tuple[SimilarityKey, ...]
    epoch: int
    n_epochs: int
    summary: str
    warning: str
    model: str

    @property
    def value(self) -> float:
        """The similarity under the cursor."""
        return float(self.matrix[self.row, self.column])


def layer_map(record: RunRecord, results: Results, selection: Selection) -> LayerMap | None:
    """The map that the selection asks for, or the nearest that there is; None where there is no similarity at all."""
    if not results.similarity or not results.layers or not results.n_epochs:
        return None
    keys = in_order(results.similarity, record.spec.measure.similarity)
    key = selection.key_among(keys)
    matrices = results.similarity[key]
    epoch = selection.epoch_among(len(matrices))
    last = len(results.layers) - 1
    matrix = np.asarray(matrices[epoch], np.float64)
    return LayerMap(
        matrix,
        tuple(safe(layer) for layer in results.layers),
        min(selection.row, last),
        min(selection.column, last),
        key,
        keys,
        epoch,
        len(matrices),
        _summary(record, results, matrix, key, epoch),
        inflation_warning(record, key, keys),
        MODELS.get(record.spec.method, str(record.spec.method)),
    )


def measure_name(key: SimilarityKey) -> str:
    """`linear CKA (biased), CLS`; with the images where they are not those of the target domain."""
    return f"{safe(label_of(key.measure))}, {_pooling(key)}{of_images(key)}"


def of_images(key: SimilarityKey) -> str:
    """Which images are compared, where they are not those of the target domain."""
    return "" if key.probe == "target" else f", {safe(key.probe)} images"


def readout(shown: LayerMap, width: int, is_256: bool = False) -> Line:
    """The value under the cursor, between which layers, by which measure, in as many words as fit."""
    value = line(Span(f" {figure(shown.value)} ", STRONG), Span("██", color=scale_color(shown.value, is_256)))
    row, column = Span(shown.layers[shown.row], ACCENT), Span(shown.layers[shown.column], ACCENT)
    cell = line(*value, Span("  pre-trained ", DIM), row, Span(" × this run ", DIM), column)
    if math.isnan(shown.value):
        why = Span("   undefined: a block is constant, or n too small", WARN)
        return fitting([(*cell, why), (*value, Span("  "), row, Span(" × ", DIM), column, why)], width)
    names = measure_name(shown.key), f"{safe(short_of(shown.key.measure))}, {_pooling(shown.key)}"
    return fitting([*((*cell, Span(f"   {name}", DIM)) for name in names), cell], width)


def epoch_line(shown: LayerMap) -> Line:
    """Where on the way through training this is."""
    last = shown.n_epochs - 1
    if last <= 24:
        dots = [Span("●" if i == shown.epoch else "∙", ACCENT if i == shown.epoch else DIM) for i in range(last + 1)]
    else:
        place = round(shown.epoch / last * 24)
        dots = [Span("●" if i == place else "∙", ACCENT if i == place else DIM) for i in range(25)]
    return (
        Span(" epoch ", DIM), Span(str(shown.epoch), STRONG), Span(f" of {last}  ", DIM), *dots,
        Span("  before training" if shown.epoch == 0 else "", DIM),
    )  # fmt: skip


def side_panel(shown: LayerMap, results: Results, width: int, height: int, is_256: bool = False) -> tuple[Line, ...]:
    """Each block against itself as bars, and the quality of the model at this epoch."""
    facts = _quality(results, shown.epoch)
    labels = shown.layers
    label_width = min(max(len(label) for label in labels), 10)
    room = max(height - len(facts) - 3, 1)
    bar_width = max(width - label_width - 8, 4)
    lines: list[Line] = [line(Span("each block against itself", DIM))]
    for i, label in enumerate(labels[:room]):
        value = float(shown.matrix[i, i])
        lines.append(
            (
                Span(fitted(label, label_width) + " ", DIM),
                *_bar(value, bar_width, is_256),
                Span(f" {figure(None if math.isnan(value) else value)}"),
            )
        )
    if len(labels) > room:
        lines[-1] = line(Span(f"… {len(labels) - room + 1} more", DIM))
    layer_facts = _layer_quality(shown, results)
    if len(lines) + len(facts) + 2 + len(layer_facts) > height:
        layer_facts = ()
    return (*lines, (), line(Span(f"at epoch {shown.epoch}", DIM)), *facts, *layer_facts)


def inflation_warning(record: RunRecord, key: SimilarityKey, keys: tuple[SimilarityKey, ...]) -> str:
    """Why this similarity says too much here, and what to do; empty where it does not."""
    problem = caution(record, key.measure, key.probe)
    if not problem:
        return ""
    sound = [
        each.measure for each in keys if each.pooling == key.pooling and not caution(record, each.measure, each.probe)
    ]
    return f"{problem}; " + (f"m: {short_of(sound[0])}" if sound else "add debiased_cka to the study")


def _summary(record: RunRecord, results: Results, matrix: np.ndarray, key: SimilarityKey, epoch: int) -> str:
    doing = METHODS.get(record.spec.method, f"{record.spec.method} of")
    head = f"{doing} {safe(record.spec.backbone.name)}, seed {record.spec.seed}, epoch {epoch}: "
    head = head[0].upper() + head[1:]
    same = np.diagonal(matrix)
    known = np.flatnonzero(~np.isnan(same))
    on = "" if key.probe == "target" else f" on the {safe(key.probe)} images"
    what = f"{_pooling(key)} similarity to the pre-trained model{on}"
    if known.size == 0:
        return f"{head}{what} is undefined for every block."
    low, high = known[np.argmin(same[known])], known[np.argmax(same[known])]
    if same[high] - same[low] < 0.005:
        return f"{head}{what} is {same[high]:.2f} in every block."
    first, last = (low, high) if low < high else (high, low)
    verb = "falls" if same[first] > same[last] else "rises"
    start, end = (f"{same[i]:.2f} ({safe(results.layers[i])})" for i in (first, last))
    return f"{head}{what} {verb} from {start} to {end}."


def _quality(results: Results, epoch: int) -> tuple[Line, ...]:
    names = (
        ("test_accuracy", "accuracy"), ("test_balanced_accuracy", "balanced acc."), ("test_auroc", "AUROC"),
        ("test_quadratic_kappa", "quadr. kappa"), ("test_average_precision", "mean AP"),
        *((f"test_{each.name}", each.label) for each in QUALITY.values() if each.needs == "probabilities"),
        ("origin_knn", QUALITY["knn"].label),
    )  # fmt: skip
    return tuple(
        line(Span(f"{title:<15}", DIM), Span(figure(float(values[epoch])), STRONG))
        for name, title in names
        if (values := results.quality.get(name)) is not None and epoch < len(values)
    )


def _pooling(key: SimilarityKey) -> str:
    return safe(POOLINGS.get(key.pooling, key.pooling))


def _layer_quality(shown: LayerMap, results: Results) -> tuple[Line, ...]:
    """The quality of the run's layer under the cursor; nothing where the study asks for none."""
    suffix = f"_{shown.key.pooling}"
    found = [
        (QUALITY[metric].label, float(values[shown.epoch, shown.column]))
        for name, values in results.layer_quality.items()
        if (metric := name.removesuffix(suffix)) in QUALITY and name.endswith(suffix)
    ]
    if not found:
        return ()
    head = line(Span(f"{shown.layers[shown.column]} of this run, {POOLINGS.get(shown.key.pooling, '')}", DIM))
    rows = (line(Span(f"{label:<24}", DIM), Span(figure(value), STRONG)) for label, value in found)
    return ((), head, *rows)


def _bar(value: float, width: int, is_256: bool) -> tuple[Span, ...]:
    """A bar of eighths on a track of dots: 0 is empty, 1 is full."""
    if math.isnan(value):
        return (Span("·" * width, DIM),)
    eighths = round(min(max(value, 0.0), 1.0) * width * 8)
    full, rest = divmod(eighths, 8)
    bar = "█" * full + (" ▏▎▍▌▋▊▉"[rest] if rest else "")
    return Span(bar, color=scale_color(value, is_256)), Span("·" * (width - len(bar)), DIM)
