"""Compares representations pair by pair or all with all, by any measure of the table; owns no formula."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import Any, Literal

import torch
from torch import Tensor

from engine.errors import ShapeError, StudyError
from engine.measures.check import Layer, as_layer, check_same_rows
from engine.measures.table import MEASURES, Measure


class Comparison:
    """One set of representations, made ready once, to be compared with many others: a model at every epoch, say.

    Its arrays must stay as they are while it is in use.

    Args:
        xs: arrays or tensors `(n, d_i)` of real numbers, one row an image; numpy or torch, any device. Widths may
            differ. Means and sums are float64, products float32 unless a layer is float64 or there are few images.
        measures: names of `MEASURES`; those of one family share their work.
        options: of the measures, as their functions take them: `threshold=0.5` for `rbf_cka`.
    Raises:
        StudyError: no such measure, or an option that none of them takes.
        ShapeError: no layers, not (n, d), other row counts, or n is too small for a measure.
    """

    def __init__(self, xs: Iterable[Any], measures: Sequence[str], **options: Any) -> None:
        self._left = [as_layer(x, f"xs[{i}]") for i, x in enumerate(xs)]
        self._measures = [_measure(name) for name in measures]
        self._options = _shared_out(self._measures, options)
        self._prepared: dict[str, Any] = {}
        self._is_kept = True

    def heatmaps(self, ys: Iterable[Any]) -> dict[str, Tensor]:
        """Similarity of every one of `xs` with every one of `ys`, for each measure; see `heatmap`."""
        return self._compare([as_layer(y, f"ys[{i}]") for i, y in enumerate(ys)])

    def prepared(self, ys: Sequence[Any], measure: str) -> tuple[Any, Any]:
        """Both sides as the family of a measure has made them ready, each layer checked."""
        right = [as_layer(y, f"ys[{i}]") for i, y in enumerate(ys)]
        self._check(right)
        return self._both(MEASURES[measure].family, right)

    def _both(self, family: str, right: Sequence[Layer] | None) -> tuple[Any, Any]:
        module, options = import_module(f"engine.measures.{family}"), self._options[family]
        if family not in self._prepared:
            self._prepared[family] = module.prepare(self._left, self._is_kept, **options)
        x = self._prepared[family]
        return x, x if right is None else module.prepare(right, False, **options)

    @torch.no_grad()
    def _compare(self, right: Sequence[Layer] | None) -> dict[str, Tensor]:
        """`right` None: the layers with themselves."""
        self._check(self._left if right is None else right)
        maps: dict[str, Tensor] = {}
        for family in self._options:
            module = import_module(f"engine.measures.{family}")
            x, y = self._both(family, right)
            names = [measure.name for measure in self._measures if measure.family == family]
            maps |= {
                name: _masked(values.cpu(), _reasons(module, x, name, True), _reasons(module, y, name, False))
                for name, values in module.compare(x, y, names).items()
            }
        return {measure.name: maps[measure.name] for measure in self._measures}

    def _check(self, right: Sequence[Layer]) -> None:
        for side, found in (("xs", self._left), ("ys", right)):
            if not found:
                raise ShapeError(side, "has no layers (need at least one)", "pass a list of (n, d) arrays")
        n = check_same_rows([*self._left, *right])
        for measure in self._measures:
            _check_fits(measure, n, self._left, right)


def heatmap(xs: Iterable[Any], ys: Iterable[Any], measure: str = "linear_cka", **options: Any) -> Tensor:
    """Similarity of every representation of one set with every one of another, the work of a layer done once.

    Args:
        xs: arrays or tensors `(n, d_i)` of real numbers, one row an image; numpy or torch, any device. Widths may
            differ. Means and sums are float64, products float32 unless a layer is float64 or there are few images.
        ys: the same images in the same order. The same object as `xs` costs half.
        measure: a name of `MEASURES`.
        options: of the measure, as its function takes them: `threshold=0.5` for `rbf_cka`.
    Returns:
        `(len(xs), len(ys))` float64 tensor on the CPU; NaN in the rows and columns of layers for which the measure is
        undefined (`why_undefined` gives the reason).
    Raises:
        StudyError: no such measure, or no such option.
        ShapeError: a side is empty or not (n, d), row counts differ, or n is too small for the measure.
        NonFiniteError: a value is NaN or infinite.
    """
    left = [as_layer(x, f"xs[{i}]") for i, x in enumerate(xs)]
    right = None if ys is xs else [as_layer(y, f"ys[{i}]") for i, y in enumerate(ys)]
    return _once(left, right, [measure], options)[measure]


def heatmaps(xs: Iterable[Any], ys: Iterable[Any], measures: Sequence[str]) -> dict[str, Tensor]:
    """As `heatmap`, for several measures with their usual options: those of one family share their work."""
    left = [as_layer(x, f"xs[{i}]") for i, x in enumerate(xs)]
    right = None if ys is xs else [as_layer(y, f"ys[{i}]") for i, y in enumerate(ys)]
    return _once(left, right, measures, {})


def compare_two(x: Any, y: Any, measure: str, **options: Any) -> Tensor:
    """One measure of two representations, as a 0-d float64 tensor on the CPU."""
    return _once([as_layer(x, "x")], [as_layer(y, "y")], [measure], options)[measure].squeeze()


@torch.no_grad()
def why_undefined(x: Any, measure: str = "linear_cka", side: Literal["x", "y"] = "x", **options: Any) -> str | None:
    """Why a measure is NaN with this representation on this side, in words for a screen; None where it is not."""
    layers, found = [as_layer(x, "x")], _measure(measure)
    _check_fits(found, len(layers[0].values), layers, layers)
    module = import_module(f"engine.measures.{found.family}")
    prepared = module.prepare(layers, False, **_shared_out([found], options)[found.family])
    return _reasons(module, prepared, measure, side == "x")[0]


def _once(
    left: Sequence[Layer], right: Sequence[Layer] | None, measures: Sequence[str], options: Mapping[str, Any]
) -> dict[str, Tensor]:
    comparison = Comparison(left, measures, **options)
    comparison._is_kept = False
    return comparison._compare(right)


def _measure(name: str) -> Measure:
    if name not in MEASURES:
        near = get_close_matches(name, MEASURES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise StudyError(f"measure {name!r}", f"no such measure{hint}", f"use one of {' '.join(MEASURES)}")
    return MEASURES[name]


def _check_fits(measure: Measure, n: int, left: Sequence[Layer], right: Sequence[Layer]) -> None:
    if n < measure.min_n:
        problem = f"has {n} image{'s' * (n != 1)} (need {measure.min_n} for {measure.name})"
        raise ShapeError(left[0].where, problem, "compare more images")
    widths = {len(layer.values.T): layer.where for layer in [*right, *left]}
    if measure.needs_equal_widths and len(widths) > 1:
        (d, where), (other_d, other) = list(widths.items())[:2]
        raise ShapeError(
            where, f"has {d} features (need {other_d}, as {other}, for {measure.name})",
            "compare representations of one width, or use a measure that does not match features one by one",
        )  # fmt: skip


def _shared_out(measures: Sequence[Measure], options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The options of every family that is asked for, those that are not given at their defaults."""
    families: dict[str, dict[str, Any]] = {measure.family: {} for measure in measures}
    for measure in MEASURES.values():
        if measure.family in families:
            families[measure.family] |= measure.options
    known = {name for measure in measures for name in measure.options}
    for name, value in options.items():
        if name not in known:
            takes = f"takes {', '.join(sorted(known))}" if known else "takes no options"
            names = " ".join(measure.name for measure in measures)
            raise StudyError(f"option {name!r}", f"{names} {takes}", "leave it out")
        for family in families.values():
            if name in family:
                family[name] = value
    return families


def _reasons(module: Any, side: Any, name: str, is_x: bool) -> list[str | None]:
    """Why each layer has no similarity: what holds for every measure, then what only this one needs."""
    always = [layer.constancy for layer in side.layers]
    return always if all(always) else [a or b for a, b in zip(always, module.undefined(side, name, is_x), strict=True)]


def _masked(values: Tensor, *reasons: Sequence[str | None]) -> Tensor:
    rows, columns = (torch.tensor([reason is not None for reason in side]) for side in reasons)
    return values.masked_fill(rows[:, None] | columns[None, :], torch.nan)
