"""What the map view says: the layer × layer similarity of one run at one epoch, in numbers and in words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np

from engine.analysis.estimators import caution, in_order, label_of, short_of
from engine.finetune.methods import is_method, method_of
from engine.runs.record import RunRecord
from engine.runs.results import Results, SimilarityKey
from simtui.palette import scale_color
from simtui.safe_text import safe
from simtui.selection import Selection
from simtui.views.map_cells import SIMILARITY, MapPicture
from simtui.views.parts import ACCENT, DIM, STRONG, WARN, Line, Span, figure, fitting, line

POOLINGS = {"cls": "CLS", "feat": "Feat"}
MODELS = {
    "full": "fully fine-tuned",
    "linear": "linear probe, blocks frozen",
    "scratch": "trained from scratch",
}
OF_TWO = ("A ", "B ")  # whose layers are the rows and the columns of two checkpoints
METHODS = {"full": "full fine-tuning of", "linear": "linear probe on", "scratch": "training from scratch of"}
EXPLANATION = (
    "Similarity of every block of the pre-trained model (rows) to every block of the run's model (columns), on the "
    "probe images, at one epoch; epoch 0 is the model before training. The colours run from 0 to 1 and never adapt; "
    "below 0 is as 0. "
    "CLS compares the class tokens, Feat the means of the patch tokens; of a backbone whose layers are stages (ResNet, "
    "ConvNeXt, Swin) Feat is the mean over all positions of a stage's map, and there is no CLS."
)


@dataclass(frozen=True)
class LayerMap:
    """One matrix and all the words around it.

    `rows` names the layers of the rows where they are not those of the columns; `whose` says of which models both are.
    """

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
    is_absent: bool = False
    rows: tuple[str, ...] = ()
    whose: tuple[str, str] = ("pre-trained ", "this run ")

    @property
    def row_layers(self) -> tuple[str, ...]:
        """The layers of the rows."""
        return self.rows or self.layers

    @property
    def has_diagonal(self) -> bool:
        """Whether a layer of the one model stands against the same of the other: not where their layers differ."""
        return self.row_layers == self.layers

    @property
    def is_comparison(self) -> bool:
        """Whether it is of two checkpoints, and of no epoch."""
        return self.whose == OF_TWO

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
    last_row, last = len(results.rows) - 1, len(results.layers) - 1
    matrix = np.asarray(matrices[epoch], np.float64)
    return LayerMap(
        matrix,
        tuple(safe(layer) for layer in results.layers),
        min(selection.row, last_row),
        min(selection.column, last),
        key,
        keys,
        epoch,
        len(matrices),
        _summary(record, results, matrix, key, epoch),
        inflation_warning(record, key, keys),
        MODELS.get(record.spec.method, safe(record.spec.method)),
        is_absent(record, results, epoch),
        () if results.rows == results.layers else tuple(safe(layer) for layer in results.rows),
        OF_TWO if record.is_comparison else ("pre-trained ", "this run "),
    )


def is_absent(record: RunRecord, results: Results, epoch: int) -> bool:
    """Whether there is nothing of this epoch: a mixture needs weights that the study need not have kept."""
    has_none = all(
        np.isnan(values[epoch]).all() for values in (*results.similarity.values(), *results.quality.values())
    )
    is_mixture = is_method(record.spec.method) and bool(method_of(record.spec.method).needs)
    return (is_mixture or record.is_imported) and has_none


def measure_name(key: SimilarityKey) -> str:
    """`linear CKA (biased), CLS`; with the images where they are not those of the target domain."""
    return f"{safe(label_of(key.measure))}, {pooling_name(key)}{of_images(key)}"


def of_images(key: SimilarityKey) -> str:
    """Which images are compared, where they are not those of the target domain."""
    return "" if key.probe == "target" else f", {safe(key.probe)} images"


def readout(shown: LayerMap, width: int, is_256: bool = False) -> Line:
    """The value under the cursor, between which layers, by which measure, in as many words as fit."""
    value = line(Span(f" {figure(shown.value)} ", STRONG), Span("██", color=scale_color(shown.value, is_256)))
    row, column = Span(shown.row_layers[shown.row], ACCENT), Span(shown.layers[shown.column], ACCENT)
    cell = line(*value, Span(f"  {shown.whose[0]}", DIM), row, Span(f" × {shown.whose[1]}", DIM), column)
    if math.isnan(shown.value):
        undefined, absent = "undefined: a block is constant, or n too small", "not there: no weights of this epoch"
        why = Span(f"   {absent if shown.is_absent else undefined}", WARN)
        return fitting([(*cell, why), (*value, Span("  "), row, Span(" × ", DIM), column, why)], width)
    names = measure_name(shown.key), f"{safe(short_of(shown.key.measure))}, {pooling_name(shown.key)}"
    return fitting([*((*cell, Span(f"   {name}", DIM)) for name in names), cell], width)


def epoch_line(epoch: int, n_epochs: int, is_playing: bool = False) -> Line:
    """Where on the way through training this is."""
    last = n_epochs - 1
    if last <= 24:
        dots = [Span("●" if i == epoch else "∙", ACCENT if i == epoch else DIM) for i in range(last + 1)]
    else:
        place = round(epoch / last * 24)
        dots = [Span("●" if i == place else "∙", ACCENT if i == place else DIM) for i in range(25)]
    return (
        Span("▶" if is_playing else " ", ACCENT), Span("epoch ", DIM), Span(f"{epoch:>{len(str(last))}}", STRONG),
        Span(f" of {last}  ", DIM), *dots, Span("  before training" if epoch == 0 else "", DIM),
    )  # fmt: skip


def picture(shown: LayerMap) -> MapPicture:
    """The map as it is drawn."""
    if shown.is_comparison:
        of_two: tuple[Line, ...] = ((Span(" ↓ A, in rows   → B, in columns", DIM),), (Span(" ↓ A   → B", DIM),))
        return MapPicture(shown.matrix, shown.layers, shown.row, shown.column, of_two, SIMILARITY, shown.rows)
    head = Span(" ↓ pre-trained   → ", DIM)
    short, epoch = shown.model.partition(",")[0], f", epoch {shown.epoch}"
    titles = tuple((head, Span(text)) for text in (shown.model + epoch, short + epoch, short))
    return MapPicture(shown.matrix, shown.layers, shown.row, shown.column, titles, SIMILARITY)


def inflation_warning(record: RunRecord, key: SimilarityKey, keys: tuple[SimilarityKey, ...]) -> str:
    """Why this similarity says too much here, and what to do; empty where it does not."""
    problem = caution(record, key.measure, key.probe)
    if not problem:
        return ""
    sound = [
        each.measure for each in keys if each.pooling == key.pooling and not caution(record, each.measure, each.probe)
    ]
    return f"{problem}; " + (f"m: {short_of(sound[0])}" if sound else "add debiased_cka to the study")


def _summary_of_two(record: RunRecord, results: Results, matrix: np.ndarray, key: SimilarityKey) -> str:
    """Which two models, on which images, and which layers of them are most alike."""
    assert record.reference is not None
    first, second = (_short(each) for each in (record.reference.checkpoint, record.provenance.weights_checkpoint))
    odd = "" if results.rows == results.layers else "; other layers, so no diagonal"
    who = f"A (rows): {first}. B (columns): {second}{odd}."
    on = f"{pooling_name(key)} on {record.provenance.n_probe:,} images of {safe(record.spec.dataset)}"
    if np.isnan(matrix).all():
        return f"{on}: undefined for every pair of layers. {who}"
    row, column = np.unravel_index(int(np.nanargmax(matrix)), matrix.shape)
    most = f"{safe(results.rows[row])} of A and {safe(results.layers[column])} of B ({matrix[row, column]:.2f})"
    return f"Most alike are {most}, {on}. {who}"


def _short(checkpoint: str) -> str:
    """A checkpoint without the folders of its file; of one in a run the run's folder stays."""
    name, separator, file = checkpoint.rpartition("=")
    path = PurePath(file)
    if not separator and "checkpoints" in path.parts:
        return safe("/".join((path.parts[-3], path.name)))
    is_path = separator or (not name and "/" in file and ":" not in file)
    return safe(f"{name}{separator}{path.name}" if is_path else checkpoint)


def _summary(record: RunRecord, results: Results, matrix: np.ndarray, key: SimilarityKey, epoch: int) -> str:
    if record.is_comparison:
        return _summary_of_two(record, results, matrix, key)
    doing = METHODS.get(record.spec.method, f"fine-tuning ({safe(record.spec.method)}) of")
    head = f"{doing} {safe(record.spec.backbone.name)}, seed {record.spec.seed}, epoch {epoch}: "
    head = head[0].upper() + head[1:]
    same = np.diagonal(matrix)
    known = np.flatnonzero(~np.isnan(same))
    on = "" if key.probe == "target" else f" on the {safe(key.probe)} images"
    what = f"{pooling_name(key)} similarity to the pre-trained model{on}"
    if is_absent(record, results, epoch):
        if record.is_imported:
            there = ", ".join(map(str, record.spec.checkpoints))
            return f"{head}not there, as the training has no checkpoint of it (of epochs {there}, and θ* as 0)."
        return f"{head}not there, as the weights that it is mixed from are kept of the last epoch alone."
    if known.size == 0:
        return f"{head}{what} is undefined for every block."
    low, high = known[np.argmin(same[known])], known[np.argmax(same[known])]
    if same[high] - same[low] < 0.005:
        return f"{head}{what} is {same[high]:.2f} in every block."
    first, last = (low, high) if low < high else (high, low)
    verb = "falls" if same[first] > same[last] else "rises"
    start, end = (f"{same[i]:.2f} ({safe(results.layers[i])})" for i in (first, last))
    return f"{head}{what} {verb} from {start} to {end}."


def pooling_name(key: SimilarityKey) -> str:
    """`CLS` or `Feat`; of one that this simtui does not know, its own name."""
    return safe(POOLINGS.get(key.pooling, key.pooling))
