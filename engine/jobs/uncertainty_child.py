"""Computes intervals and null levels of a run's heatmap from activation files, in a process that loads torch.

`python -m engine.jobs.uncertainty_child STUDY RUN EPOCH PROBE POOLING MEASURE OUT`. Expected errors are the last line
of its output, as JSON.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from engine.activations.store import Activations, ActivationStore
from engine.errors import DamagedError, StudyError
from engine.jobs.child import answer_for
from engine.jobs.device import on_device, study_device
from engine.jobs.uncertainty import ANSWER_FILE, LEVEL, N_ORDERS, N_RESAMPLES, REFERENCE, files_of, role_of
from engine.measures import MEASURES, Null, bootstrap_interval, heatmap, permutation_null
from engine.runs.record import RunRecord, remake_run
from engine.runs.results import SimilarityKey
from engine.runs.study_folder import StudyFolder
from engine.runs.uncertainty import CellUncertainty, write_uncertainty

# Mean over the cells of what rounding on another device may change: an interval of other activations than those of the
# results is refused.
_MAX_GAP = 1e-4
# Orders are drawn up to so many images; with more, the standard deviation over orders is about 0.001 and less.
_MOST_DRAWN = 1024
Pair = tuple[Activations, Activations]


def write_answer(folder: StudyFolder, record: RunRecord, key: SimilarityKey, epoch: int, out: Path) -> None:
    """Writes the uncertainty of a heatmap into a folder.

    Raises:
        SimtuiError: see `engine.jobs.uncertainty.cell_uncertainty`.
    """
    stored = stored_heatmap(folder, record, key, epoch)
    pairs = activation_pairs(folder, record, key.probe, epoch)

    def compute(device: torch.device) -> tuple[CellUncertainty, tuple[str, ...]]:
        layers, xs, ys = _matching(pairs, key, stored, device, f"{record.run_id}, epoch {epoch}")
        return uncertainty_of(xs, ys, key.measure), layers

    found, layers = on_device(study_device(folder.study.machine.device), compute)
    write_uncertainty(out / ANSWER_FILE, found, layers)


def uncertainty_of(xs: Sequence[Tensor], ys: Sequence[Tensor], measure: str) -> CellUncertainty:
    """Intervals and null levels of all pairs of layers.

    The interval: percentiles of `N_RESAMPLES` bootstrap resamples of the images, moved so that their mean lies at the
    value (Efron 1979). The high null level: of `N_ORDERS` drawn orders of the images the value that another order
    exceeds with probability 1 - `LEVEL` (Barnard 1963). Where drawing would take long, and by then moves no digit that
    is shown, mean + √(level / (1 - level)) standard deviations: at least that share of the orders lies below, whatever
    their distribution (Cantelli 1929).

    Args:
        xs: layers of θ*, `(n, d_i)`, one row an image.
        ys: layers of the run's model, the same images in the same order.
    """
    n = len(xs[0])
    null = permutation_null(xs, ys, measure, n_permutations=N_ORDERS, always_draws=n <= _MOST_DRAWN)
    value = heatmap(xs, ys, measure)
    absent = torch.full_like(value, torch.nan)
    can_be_resampled = MEASURES[measure].can_be_resampled
    if can_be_resampled:
        interval = bootstrap_interval(xs, ys, measure, n_resamples=N_RESAMPLES, level=LEVEL)
    return CellUncertainty(
        value.numpy(),
        (interval.low if can_be_resampled else absent).numpy(),
        (interval.high if can_be_resampled else absent).numpy(),
        null.mean.numpy(),
        _null_high(null).clamp(max=MEASURES[measure].range[1]).numpy(),
        LEVEL,
        N_RESAMPLES if can_be_resampled else 0,
        n,
        0 if null.values is None else N_ORDERS,
        _method(measure, n) if can_be_resampled else "",
        _null_method(null),
        ""
        if can_be_resampled
        else f"{MEASURES[measure].label} has no interval: every resample would need decompositions",
    )


def stored_heatmap(folder: StudyFolder, record: RunRecord, key: SimilarityKey, epoch: int) -> np.ndarray:
    """What the results hold, `(L, L)`.

    Raises:
        StudyError: they hold no such similarity or epoch.
    """
    matrices = folder.results(record.run_id).similarity.get(key)
    if matrices is None or not 0 <= epoch < len(matrices):
        what = f"{key.probe}/{key.pooling}/{key.measure} at epoch {epoch}"
        raise StudyError(record.run_id, f"has no similarity {what}", "choose one that its map shows")
    return np.asarray(matrices[epoch], np.float64)


def activation_pairs(folder: StudyFolder, record: RunRecord, probe: str, epoch: int) -> list[Pair]:
    """Activations of θ* and of the run's model, of the same images in the same order.

    One pair, but for domains whose images are as many and have the same names: the files do not say whose they are.

    Raises:
        DamagedError: a file is damaged, or no two are of the same images.
    """
    provenance, role = record.provenance, role_of(record, epoch)
    n = provenance.n_probe if probe == "target" else provenance.n_origin_probe
    reference = _with_layers(folder, record, REFERENCE, n)
    if role == REFERENCE:
        return [(each, each) for each in reference]
    own = _with_layers(folder, record, role, n)
    pairs = [(before, after) for before in reference for after in own if before.ids == after.ids]
    if pairs:
        return pairs
    problem = f"its activations of epoch {epoch} are of other images than those of the pre-trained model, or in another"
    raise DamagedError(record.run_id, f"{problem} order", remake_run(folder.run_path(record.run_id)))


def _with_layers(folder: StudyFolder, record: RunRecord, role: str, n: int) -> list[Activations]:
    """The files of a role that hold the layers of `n` images; others hold embeddings alone, or maps of attention.

    Raises:
        DamagedError: a file is damaged, or there is none.
    """
    store, remake = ActivationStore(folder.activations_path), remake_run(folder.run_path(record.run_id))
    try:
        images = {key: store.images_of_layers(key) for key in files_of(folder, record, role)}
        found = [store.load(key, ids) for key, ids in images.items() if len(ids) == n]
    except DamagedError as error:
        # `simtui run` makes what is missing of θ*; what a run made goes with the run.
        raise DamagedError(error.where, error.problem, error.fix if role == REFERENCE else remake) from error
    if not found:
        raise DamagedError(record.run_id, f"has no activations of {n} images ({role})", remake)
    return [each for each in found if each is not None]


def _matching(
    pairs: Sequence[Pair], key: SimilarityKey, stored: np.ndarray, device: torch.device, where: str
) -> tuple[tuple[str, ...], list[Tensor], list[Tensor]]:
    """The layers whose similarity is what the results hold, and their names.

    Raises:
        DamagedError: none of the pairs gives it.
    """
    found = []
    for before, after in pairs:
        xs, ys = ([torch.from_numpy(x).to(device) for x in side.pooled[key.pooling]] for side in (before, after))
        found.append((_gap(heatmap(xs, ys, key.measure).numpy(), stored), before.layers, xs, ys))
    gap, layers, xs, ys = min(found, key=lambda each: each[0])
    if gap <= _MAX_GAP:
        return layers, xs, ys
    problem = f"its activations give another similarity than its results hold (they differ by {gap:.2g} on average)"
    raise DamagedError(where, problem, "see with `simtui verify` which file was changed")


def _gap(found: np.ndarray, stored: np.ndarray) -> float:
    """The mean difference of two heatmaps; infinite where they are not of one shape or not undefined alike."""
    if found.shape != stored.shape or not np.array_equal(np.isnan(found), np.isnan(stored)):
        return math.inf
    difference = np.abs(found - stored)[~np.isnan(stored)]
    return float(difference.mean()) if difference.size else 0.0


def _method(measure: str, n: int) -> str:
    copies = {
        "debiased_cka": "an image is never paired with its own copy (weighted U-statistic, Arcones and Giné 1992)",
        "rsa": "an image is never paired with its own copy",
        "linear_cka": "copies of an image raise the biased estimator once more, which is taken off again",
        "rbf_cka": "copies of an image raise the biased estimator once more, which is taken off again",
    }.get(measure, "a mean over images, each weighted by how often it is drawn")
    said = f"{LEVEL:.0%} interval over the {n} images, {N_RESAMPLES:,} bootstrap resamples (Efron 1979), percentiles"
    return f"{said} moved so that their mean lies at the value; {copies}; the bias of the value itself is not in it"


def _null_high(null: Null) -> Tensor:
    if null.values is None:
        return null.mean + math.sqrt(LEVEL / (1 - LEVEL)) * null.sd
    return null.values.sort(dim=2).values[:, :, math.ceil(LEVEL * (N_ORDERS + 1)) - 1]


def _null_method(null: Null) -> str:
    mean = "over all orders, exact," if null.n_permutations is None else f"over {N_ORDERS} random orders"
    high = f"what 1 of {round(1 / (1 - LEVEL))} orders exceeds, by {N_ORDERS} random ones (Barnard 1963)"
    if null.values is None:
        high = f"mean + {math.sqrt(LEVEL / (1 - LEVEL)):.2f} sd, which at most 1 of 20 orders exceeds (Cantelli 1929)"
    return f"the mean {mean} of the images of one side; {high}"


def main(arguments: list[str]) -> int:
    """Writes the answer, or prints the error as JSON; returns the exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("study", type=Path)
    parser.add_argument("run")
    parser.add_argument("epoch", type=int)
    for name in ("probe", "pooling", "measure"):
        parser.add_argument(name)
    parser.add_argument("out", type=Path)
    options = parser.parse_args(arguments)

    def compute() -> None:
        folder = StudyFolder(options.study)
        key = SimilarityKey(options.probe, options.pooling, options.measure)
        write_answer(folder, folder.record(options.run), key, options.epoch, options.out)

    return answer_for(compute)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
