"""The table of tables: every name that `export` knows, and how it is made from a study folder."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from engine.analysis.estimators import measures_of
from engine.analysis.forgetting import forgetting_table
from engine.analysis.heatmap import heatmap_table
from engine.analysis.quality import quality_table
from engine.analysis.runs import runs_table
from engine.analysis.table import Table
from engine.analysis.trajectory import MEAN_OF_LAYERS, trajectories, trajectory_table
from engine.errors import StudyError
from engine.measures.table import MEASURES
from engine.runs.record import RunRecord
from engine.runs.results import SimilarityKey
from engine.runs.study_folder import StudyFolder


@dataclass(frozen=True)
class TableOptions:
    """Which part of a study a table shows; what a table does not need is not looked at.

    `run`: a run's name or a part of it that fits only one. `epoch`: None for the last. `measure`: None for the first
    that the study asks for.
    """

    run: str | None = None
    epoch: int | None = None
    layer: str = MEAN_OF_LAYERS
    pooling: str = "cls"
    measure: str | None = None
    probe: str = "target"

    def key(self, records: Sequence[RunRecord]) -> SimilarityKey:
        """The similarity that is asked for.

        Raises:
            StudyError: there is no such measure at all.
        """
        measure = self.measure or next(iter(measures_of(records)), "linear_cka")
        if measure not in MEASURES:
            near = difflib.get_close_matches(measure, MEASURES, 1)
            hint = f'; did you mean "{near[0]}"?' if near else ""
            raise StudyError(f'measure "{measure}"', f"no such measure{hint}", f"choose one of {', '.join(MEASURES)}")
        return SimilarityKey(self.probe, self.pooling, measure)


def table_of(folder: StudyFolder, name: str, options: TableOptions) -> Table:
    """Makes a table of a study.

    Raises:
        StudyError: no such table, run, epoch, layer, pooling or measure.
        DamagedError: the results of the run that is asked for are damaged.
    """
    if name not in TABLES:
        raise StudyError(name, "no such table", f"choose one of {', '.join(TABLES)}")
    return TABLES[name](folder, options)


def find_run(records: tuple[RunRecord, ...], name: str) -> RunRecord:
    """The one run whose name is, or contains, `name`.

    Raises:
        StudyError: none or several.
    """
    exact = [record for record in records if record.run_id == name]
    found = exact or [record for record in records if name in record.run_id]
    if len(found) == 1:
        return found[0]
    if not found:
        raise StudyError(f"run {name!r}", "no run has this in its name", "see the names with `simtui export DIR runs`")
    names = ", ".join(record.run_id for record in found[:3])
    raise StudyError(f"run {name!r}", f"fits {len(found)} runs: {names}", "give more of the name")


def _runs(folder: StudyFolder, options: TableOptions) -> Table:
    return runs_table(folder.listing().records)


def _forgetting(folder: StudyFolder, options: TableOptions) -> Table:
    return forgetting_table(folder.listing().records)


def _heatmap(folder: StudyFolder, options: TableOptions) -> Table:
    record = _asked_run(folder, "heatmap", options)
    results = folder.results(record.run_id)
    epoch = results.n_epochs - 1 if options.epoch is None else options.epoch
    return heatmap_table(record, results, options.key([record]), epoch)


def _quality(folder: StudyFolder, options: TableOptions) -> Table:
    return quality_table(folder.results(_asked_run(folder, "quality", options).run_id), options.pooling)


def _asked_run(folder: StudyFolder, table: str, options: TableOptions) -> RunRecord:
    if options.run is None:
        raise StudyError(table, "which run?", "add --run NAME; see the names with `simtui export DIR runs`")
    return find_run(folder.listing().records, options.run)


def _trajectory(folder: StudyFolder, options: TableOptions) -> Table:
    records = tuple(record for record in folder.listing().records if record.epochs_done >= 0)
    results = {record.run_id: folder.results(record.run_id) for record in records}
    layers = {layer for each in results.values() for layer in each.layers}
    if options.layer != MEAN_OF_LAYERS and options.layer not in layers:
        raise StudyError(
            f"layer {options.layer!r}", "no run has this layer", f"choose one of {', '.join(sorted(layers))}"
        )
    asked, keys = options.key(records), {key for each in results.values() for key in each.similarity}
    if results and asked not in keys:
        known = ", ".join(sorted(f"{key.pooling} {key.measure}" for key in keys))
        raise StudyError(f"{asked.pooling} {asked.measure}", "this study has no such similarity", f"choose {known}")
    found = trajectories(records, results, asked, options.layer)
    return trajectory_table(found, records, asked, options.layer)


TABLES: Mapping[str, Callable[[StudyFolder, TableOptions], Table]] = {
    "runs": _runs,
    "heatmap": _heatmap,
    "trajectory": _trajectory,
    "forgetting": _forgetting,
    "quality": _quality,
}
