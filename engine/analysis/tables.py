"""The table of tables: every name that `export` knows, and how it is made from a study folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from engine.analysis.attention import attention_map_table, find_image, study_attention
from engine.analysis.attention_table import attention_table
from engine.analysis.comparison import comparison_table
from engine.analysis.correlation_tables import (
    correlation_intervals_table,
    correlation_points_table,
    correlation_table,
)
from engine.analysis.distribution import distribution_table
from engine.analysis.forgetting import forgetting_table
from engine.analysis.heatmap import compared_heatmap_table, heatmap_table
from engine.analysis.layer_profile import diagonal_table, layers_table
from engine.analysis.methods import methods_table
from engine.analysis.options import MEAN_OF_LAYERS, TableOptions, find_run
from engine.analysis.prediction import prediction_table
from engine.analysis.quality import quality_table
from engine.analysis.runs import runs_table
from engine.analysis.space import space_counts_table, space_table
from engine.analysis.study_data import StudyData, read_study
from engine.analysis.table import Table
from engine.analysis.trajectory import runs_over_epochs_table, trajectory_table
from engine.errors import StudyError
from engine.jobs.attention import attention_of_image
from engine.jobs.uncertainty import cell_uncertainty
from engine.runs.record import RunRecord
from engine.runs.results import Results, SimilarityKey
from engine.runs.study_folder import StudyFolder


def table_of(folder: StudyFolder, name: str, options: TableOptions) -> Table:
    """Makes a table of a study.

    Raises:
        StudyError: no such table, run, epoch, layer, pooling or measure.
        DamagedError: the results of the run that is asked for are damaged.
    """
    if name not in TABLES:
        raise StudyError(name, "no such table", f"choose one of {', '.join(TABLES)}")
    if folder.study.study.kind == "comparison" and name not in OF_COMPARISONS:
        problem = f"{folder.path} holds a comparison of two checkpoints, in which nothing was trained"
        raise StudyError(name, problem, f"choose one of {', '.join(OF_COMPARISONS)}")
    return TABLES[name](folder, options)


# What there is to say of two checkpoints.
OF_COMPARISONS = ("runs", "heatmap")


def _runs(folder: StudyFolder, options: TableOptions) -> Table:
    return runs_table(folder.listing().records)


def _heatmap(folder: StudyFolder, options: TableOptions) -> Table:
    record = _asked_run(folder, "heatmap", options)
    results = folder.results(record.run_id)
    epoch = results.n_epochs - 1 if options.epoch is None else options.epoch
    key = options.key([record])
    if options.beside is not None:
        return _compared_heatmap(folder, (record, results), key, options)
    plain = heatmap_table(record, results, key, epoch)
    if not options.interval:
        return plain
    return heatmap_table(record, results, key, epoch, cell_uncertainty(folder, record, key, epoch))


def _compared_heatmap(
    folder: StudyFolder, run: tuple[RunRecord, Results], key: SimilarityKey, options: TableOptions
) -> Table:
    """Without an epoch, each run at its last."""
    assert options.beside is not None
    if options.interval:
        raise StudyError("heatmap", "--interval is of one run, --beside of two", "leave one of them out")
    other = find_run(folder.listing().records, options.beside)
    results = folder.results(other.run_id)
    epochs = [each.n_epochs - 1 if options.epoch is None else options.epoch for each in (run[1], results)]
    return compared_heatmap_table(run, (other, results), key, (epochs[0], epochs[1]))


def _quality(folder: StudyFolder, options: TableOptions) -> Table:
    return quality_table(folder.results(_asked_run(folder, "quality", options).run_id), options.pooling)


def _attention_map(folder: StudyFolder, options: TableOptions) -> Table:
    """One image of the attention set, the first where none is named, or any image file."""
    record = _asked_run(folder, "attention_map", options)
    if options.image is not None and Path(options.image).is_file():
        before, after = attention_of_image(folder, record, Path(options.image))
        image = 0
    else:
        before, after = study_attention(folder, record)
        image = 0 if options.image is None else find_image(before, options.image)
    layer = before.layers[-1] if options.layer == MEAN_OF_LAYERS else options.layer
    return attention_map_table(before, after, image, layer, options.head, options.pooling)


def _asked_run(folder: StudyFolder, table: str, options: TableOptions) -> RunRecord:
    if options.run is None:
        raise StudyError(table, "which run?", "add --run NAME; see the names with `simtui export DIR runs`")
    return find_run(folder.listing().records, options.run)


# Made from the results of all runs at once: `data_table` makes them without reading anything again.
DATA_TABLES: Mapping[str, Callable[[StudyData, TableOptions], Table]] = {
    "trajectory": trajectory_table,
    "epochs": runs_over_epochs_table,
    "layers": layers_table,
    "diagonal": diagonal_table,
    "space": space_table,
    "space_counts": space_counts_table,
    "distribution": distribution_table,
    "comparison": comparison_table,
    "methods": methods_table,
    "forgetting": forgetting_table,
    "attention": attention_table,
    "prediction": prediction_table,
    "correlation": correlation_table,
    "correlation_intervals": correlation_intervals_table,
    "correlation_points": correlation_points_table,
}


def data_table(data: StudyData, name: str, options: TableOptions) -> Table:
    """Makes one of `DATA_TABLES` from what was read.

    Raises:
        StudyError: no such layer, pooling, measure, metric or run.
    """
    return DATA_TABLES[name](data, options)


def _from_data(name: str) -> Callable[[StudyFolder, TableOptions], Table]:
    return lambda folder, options: data_table(read_study(folder), name, options)


TABLES: Mapping[str, Callable[[StudyFolder, TableOptions], Table]] = {
    "runs": _runs,
    "heatmap": _heatmap,
    "quality": _quality,
    "attention_map": _attention_map,
    **{name: _from_data(name) for name in DATA_TABLES},
}
