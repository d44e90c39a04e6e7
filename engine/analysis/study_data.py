"""Owns what every analysis looks at: the results of all runs, reduced to what tables need, and read once.

Of each layer × layer map only the diagonal is kept (a layer against itself in θ*): 1,000 runs are some megabytes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from engine.analysis.estimators import POOLINGS, column_of, in_order, measures_of
from engine.analysis.options import MEAN_OF_LAYERS
from engine.errors import DamagedError, SimtuiError, StudyError
from engine.finetune.methods import in_table_order
from engine.runs.catalog import DamagedRun, Stamp, file_stamp
from engine.runs.record import RunRecord, State, remake_run
from engine.runs.results import RESULTS_FILE, Results, SimilarityKey
from engine.runs.study_folder import StudyFolder
from engine.study import Study


@dataclass(frozen=True)
class RunData:
    """One run: its record and its figures, epoch by epoch; epoch 0 is the model before training.

    Attributes:
        layers: names of the blocks, first to last.
        diagonal: similarity of each block to the same block of θ*, `(n_epochs, n_layers)` float32; NaN where undefined.
        quality: metric -> `(n_epochs,)` float32; NaN where it was not computed.
        layer_quality: metric with its pooling -> `(n_epochs, n_layers)` float32.
    """

    record: RunRecord
    layers: tuple[str, ...]
    diagonal: Mapping[SimilarityKey, np.ndarray] = field(default_factory=dict)
    quality: Mapping[str, np.ndarray] = field(default_factory=dict)
    layer_quality: Mapping[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, record: RunRecord, results: Results) -> RunData:
        """What tables need of the results of a run; where rows and columns are other layers, no diagonal means any."""
        has_diagonal = results.rows == results.layers
        absent = np.full((results.n_epochs, len(results.layers)), np.nan, np.float32)
        diagonal = {
            key: np.diagonal(maps, axis1=1, axis2=2).copy() if has_diagonal else absent
            for key, maps in results.similarity.items()
        }
        return cls(record, results.layers, diagonal, results.quality, results.layer_quality)

    @property
    def n_epochs(self) -> int:
        """How many epochs are held, epoch 0 among them."""
        return max((len(values) for values in [*self.diagonal.values(), *self.quality.values()]), default=0)

    @property
    def is_done(self) -> bool:
        """Whether its last epoch is that of the study, so that it may stand for a final result."""
        return self.record.state is State.DONE

    def has(self, key: SimilarityKey, layer: str = MEAN_OF_LAYERS) -> bool:
        """Whether it has this similarity of this layer."""
        return key in self.diagonal and (layer == MEAN_OF_LAYERS or layer in self.layers)

    def similarity(self, key: SimilarityKey, layer: str = MEAN_OF_LAYERS) -> np.ndarray:
        """Similarity of a block to the same block of θ* at every epoch, `(n_epochs,)` float64.

        The mean over layers is NaN where any layer's similarity is undefined: a mean of fewer layers is another
        quantity. All NaN where the run has no such similarity or no such layer.
        """
        if not self.has(key, layer):
            return np.full(self.n_epochs, np.nan)
        diagonal = self.diagonal[key].astype(np.float64)
        return diagonal.mean(axis=1) if layer == MEAN_OF_LAYERS else diagonal[:, self.layers.index(layer)]

    def metric(self, name: str) -> np.ndarray:
        """A quality metric at every epoch, `(n_epochs,)` float64; all NaN where the run does not have it."""
        values = self.quality.get(name)
        return np.full(self.n_epochs, np.nan) if values is None else values.astype(np.float64)


@dataclass(frozen=True)
class StudyData:
    """All runs of a study that have results, in the order given, and those whose results cannot be read."""

    runs: tuple[RunData, ...]
    unreadable: tuple[DamagedRun, ...] = ()
    n_without_results: int = 0

    @cached_property
    def records(self) -> tuple[RunRecord, ...]:
        """Their records."""
        return tuple(run.record for run in self.runs)

    @cached_property
    def done(self) -> tuple[RunData, ...]:
        """The runs that have come to their end."""
        return tuple(run for run in self.runs if run.is_done)

    @cached_property
    def keys(self) -> tuple[SimilarityKey, ...]:
        """Every similarity that some run has, the study's first measure first."""
        return in_order({key for run in self.runs for key in run.diagonal}, measures_of(self.records))

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """Every layer that some run has, first to last."""
        return tuple(dict.fromkeys(layer for run in self.runs for layer in run.layers))

    @cached_property
    def metrics(self) -> tuple[str, ...]:
        """Every quality metric that some run has, by name."""
        return tuple(dict.fromkeys(name for run in self.runs for name in run.quality))

    def only(self, run_ids: Collection[str]) -> StudyData:
        """Only these runs of the study."""
        return StudyData(tuple(run for run in self.runs if run.record.run_id in run_ids))

    def check(self, key: SimilarityKey, layer: str = MEAN_OF_LAYERS) -> None:
        """Refuses what no run has.

        Raises:
            StudyError: no run has this layer, or this similarity; a study without results has nothing to refuse.
        """
        if not self.runs:
            return
        if layer != MEAN_OF_LAYERS and layer not in self.layers:
            raise StudyError(f"layer {layer!r}", "no run has this layer", f"choose one of {', '.join(self.layers)}")
        if key not in self.keys:
            known = ", ".join(f"{each.probe} {each.pooling} {each.measure}" for each in self.keys)
            asked = f"{key.probe} {key.pooling} {key.measure}"
            raise StudyError(asked, "this study has no such similarity", f"choose {known}")

    def partial(self, key: SimilarityKey, layer: str = MEAN_OF_LAYERS) -> tuple[str, ...]:
        """Which runs do not have this similarity of this layer though others have, and which pooling all have."""
        cls, feat = (replace(key, pooling=pooling) for pooling in POOLINGS)
        lacking = [run for run in self.runs if key not in run.diagonal]
        without_cls = [run for run in self.runs if cls not in run.diagonal and feat in run.diagonal]
        said = []
        if 0 < len(lacking) < len(self.runs):
            if key == cls and len(without_cls) == len(lacking):
                is_of_all = all(feat in run.diagonal for run in self.runs)
                said.append(f"cls: {self._without(lacking, 'a CLS token')}" + ("; feat is of all" if is_of_all else ""))
            else:
                said.append(self._without(lacking, column_of(key)))
        elif key == feat and 0 < len(without_cls) < len(self.runs):
            said.append(f"feat, not cls: {self._without(without_cls, 'a CLS token')}")
        if without_layer := [run for run in self.runs if key in run.diagonal and not run.has(key, layer)]:
            said.append(self._without(without_layer, f"layer {layer}"))
        return tuple(said)

    def _without(self, runs: Sequence[RunData], what: str) -> str:
        """`2 of 6 runs without a CLS token (timm:resnet50)`, with at most two backbones by name."""
        names = list(dict.fromkeys(run.record.spec.backbone.name for run in runs))
        more = f" and {len(names) - 2} more backbones" if len(names) > 2 else ""
        return f"{len(runs)} of {len(self.runs)} runs without {what} ({', '.join(names[:2])}{more})"

    def notes(
        self, key: SimilarityKey | None = None, layer: str = MEAN_OF_LAYERS, *, finals_only: bool = False
    ) -> tuple[str, ...]:
        """What is not in a table of this study: runs not done, without results, unreadable, or without `key`."""
        found = [*self.partial(key, layer)] if key else []
        n_open = len(self.runs) - len(self.done)
        if finals_only and n_open:
            found.append(f"left out: {n_open} of {len(self.runs)} runs, which have not come to their last epoch")
        if self.n_without_results:
            found.append(f"left out: {self.n_without_results} runs without results (queued, or failed before an epoch)")
        if self.unreadable:
            found.append(
                f"left out: {len(self.unreadable)} runs that cannot be read, first {self.unreadable[0].run_id}"
            )
        return (*found, *((self.twins,) if self.twins else ()))

    @cached_property
    def twins(self) -> str:
        """How many runs are one network under two names: from scratch, backbones of one architecture are the same.

        A warning for what pools or tests runs of several backbones; empty where there are none.
        """
        seen: dict[tuple[object, ...], set[str]] = {}
        for run in self.runs:
            spec = run.record.spec
            figures = tuple(values.tobytes() for name, values in sorted(run.quality.items()))
            if spec.method == "scratch" and figures:
                seen.setdefault((spec.seed, figures), set()).add(spec.backbone.name)
        n = sum(len(names) for names in seen.values() if len(names) > 1)
        said = "scratch runs have a twin (same network and seed): not independent draws"
        return f"{n} {said}" if n else ""


class StudyDataCache:
    """The data of one study, each run read again only where its files have changed."""

    def __init__(self, folder: StudyFolder) -> None:
        self._folder = folder
        self._held: dict[str, tuple[Stamp, RunData | DamagedRun]] = {}

    def read(self, records: Sequence[RunRecord] | None = None) -> StudyData:
        """The study as it is on disk now.

        Args:
            records: of the runs, in the order wanted; None for a new listing.
        """
        damaged: tuple[DamagedRun, ...] = ()
        if records is None:
            listing = self._folder.listing()
            records, damaged = in_study_order(listing.records, self._folder.study), listing.damaged
        found = [(record, self._entry(record)) for record in records]
        self._held = {record.run_id: held for record, held in found if held is not None}
        entries = [held[1] for _, held in found if held is not None]
        damaged += tuple(
            DamagedRun(record.run_id, self._missing(record))
            for record, held in found
            if held is None and record.epochs_done >= 0
        )
        return StudyData(
            tuple(each for each in entries if isinstance(each, RunData)),
            (*damaged, *(each for each in entries if isinstance(each, DamagedRun))),
            sum(held is None and record.epochs_done < 0 for record, held in found),
        )

    def read_ahead(self, record: RunRecord) -> bool:
        """Reads one run, so that `read` need not; whether there was anything to read."""
        held = self._held.get(record.run_id)
        found = self._entry(record)
        if found is None or (held is not None and held[0] == found[0]):
            return False
        self._held[record.run_id] = found
        return True

    def _entry(self, record: RunRecord) -> tuple[Stamp, RunData | DamagedRun] | None:
        stamp = file_stamp(self._folder.run_path(record.run_id) / RESULTS_FILE)
        if stamp is None:
            return None
        held = self._held.get(record.run_id)
        if held is None or held[0] != stamp:
            return stamp, self._read(record)
        data = held[1]
        if isinstance(data, RunData) and data.record is not record and data.record != record:
            return stamp, RunData(record, data.layers, data.diagonal, data.quality, data.layer_quality)
        return held

    def _missing(self, record: RunRecord) -> SimtuiError:
        path = self._folder.run_path(record.run_id)
        return DamagedError(str(path / RESULTS_FILE), "is missing", remake_run(path))

    def _read(self, record: RunRecord) -> RunData | DamagedRun:
        try:
            return RunData.of(record, self._folder.results(record.run_id))
        except SimtuiError as error:
            return DamagedRun(record.run_id, error)


def read_study(folder: StudyFolder) -> StudyData:
    """The results of all runs of a study; `StudyDataCache` where they are read more than once."""
    return StudyDataCache(folder).read()


def in_study_order(records: Sequence[RunRecord], study: Study) -> tuple[RunRecord, ...]:
    """By backbone, method and seed, as the study file names them: the order in which people think of them."""
    backbones = [each.name for each in study.backbone]

    def place(record: RunRecord) -> tuple[int, tuple[int, float, str], int, str]:
        name = record.spec.backbone.name
        backbone = backbones.index(name) if name in backbones else len(backbones)
        return backbone, in_table_order(record.spec.method), record.spec.seed, record.run_id

    return tuple(sorted(records, key=place))


def pooled_note(by: str) -> tuple[str, ...]:
    """What n and an interval are of, where a group holds more than the seeds of one backbone and method."""
    if by == "backbone and method":
        return ()
    rest = {"backbone": "methods", "method": "backbones", "paradigm": "backbones and methods"}[by]
    return (f"by {by}: groups pool {rest} as well as seeds; n counts runs, and intervals take them as draws alike",)


def grouped(runs: Sequence[RunData], by: str) -> dict[tuple[str, ...], list[RunData]]:
    """Runs by one of `options.BY`, in the order in which the groups first come; the names as `group_columns` says."""
    groups: dict[tuple[str, ...], list[RunData]] = {}
    for run in runs:
        named = {
            "backbone": run.record.spec.backbone.name,
            "method": run.record.spec.method,
            "paradigm": run.record.provenance.paradigm,
        }
        groups.setdefault(tuple(named[column] for column in group_columns(by)), []).append(run)
    return groups


def group_columns(by: str) -> tuple[str, ...]:
    """The columns that name a group: `("backbone", "method")`, or the one that `by` names."""
    return ("backbone", "method") if by == "backbone and method" else (by,)
