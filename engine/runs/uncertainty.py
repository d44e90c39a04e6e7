"""Owns how sure the cells of one heatmap are, and the file of it: intervals and null levels; computes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from engine.errors import DamagedError
from engine.hdf5 import NamedArray, Reader, open_arrays, write_arrays

_ARRAYS = ("value", "low", "high", "null_mean", "null_high")
_DIMS = ("layer_ref", "layer")
_Kind = TypeVar("_Kind", str, int, float)


@dataclass(frozen=True, eq=False)
class CellUncertainty:
    """How sure every similarity of a heatmap is, and what unrelated representations would score in its place.

    Every array is `(L, L)` float64, a layer of the pre-trained model a row, one of the run's model a column; NaN where
    the measure is undefined.

    Attributes:
        value: the similarity itself, computed anew.
        low, high: the interval of `value` over resamples of the images at `level`; all NaN where there is none.
        null_mean: the mean similarity where the images of one side are put into another order.
        null_high: the share `level` of these orders, or more, score less.
        level: a share of 1.
        n_resamples: of the bootstrap.
        n_images: the images that are compared and resampled.
        n_orders: how many orders were drawn at random; 0 where none was, and both levels come from exact moments.
        method: how `low` and `high` came about, in a sentence.
        null_method: how `null_mean` and `null_high` did.
        no_interval: why there is no interval; empty where there is one.
    """

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    null_mean: np.ndarray
    null_high: np.ndarray
    level: float
    n_resamples: int
    n_images: int
    n_orders: int
    method: str
    null_method: str
    no_interval: str = ""

    @property
    def notes(self) -> tuple[str, ...]:
        """What must be read beside the figures."""
        return (f"low, high: {self.no_interval or self.method}", f"unrelated, unrelated_high: {self.null_method}")


def write_uncertainty(path: Path, found: CellUncertainty, layers: tuple[str, ...]) -> None:
    """Writes it into one file that appears whole.

    Raises:
        NoSpaceError, MachineError: the file cannot be written.
    """
    arrays = {f"/{name}": NamedArray(getattr(found, name), _DIMS) for name in _ARRAYS}
    attributes: dict[str, str | int | float] = {
        "kind": "uncertainty",
        "level": found.level,
        "n_resamples": found.n_resamples,
        "n_images": found.n_images,
        "n_orders": found.n_orders,
        "method": found.method,
        "null_method": found.null_method,
        "no_interval": found.no_interval,
    }
    write_arrays(path, arrays, {name: np.array(layers) for name in _DIMS}, attributes)


def read_uncertainty(path: Path, remake: str) -> CellUncertainty:
    """Reads it.

    Args:
        remake: what makes the file again, for the error.
    Raises:
        DamagedError: missing, damaged, or not what it claims to be.
    """
    with open_arrays(path, remake) as file:
        n_layers = len(file.strings("/layer"))
        arrays = {name: file.array(f"/{name}") for name in _ARRAYS}
        if any(values.shape != (n_layers, n_layers) for values in arrays.values()):
            raise DamagedError(str(path), f"holds {n_layers} layers and arrays of other shapes", remake)

        def attribute(name: str, kind: type[_Kind]) -> _Kind:
            return _attribute(file, name, kind, path, remake)

        return CellUncertainty(
            **arrays,
            level=attribute("level", float),
            n_resamples=attribute("n_resamples", int),
            n_images=attribute("n_images", int),
            n_orders=attribute("n_orders", int),
            method=attribute("method", str),
            null_method=attribute("null_method", str),
            no_interval=attribute("no_interval", str),
        )


def _attribute(file: Reader, name: str, kind: type[_Kind], path: Path, remake: str) -> _Kind:
    value: Any = file.attribute(name)
    try:
        if value is None:
            raise ValueError("is missing")
        return kind(value)
    except (TypeError, ValueError) as error:
        raise DamagedError(f"{path}:{name}", f"cannot be read ({error})", remake) from error
