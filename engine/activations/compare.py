"""Similarity of two activation files of any size, read in batches of rows; owns the order of reading, no formula."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from torch import Tensor

from engine.activations.store import layers_in_order, remake_activations
from engine.errors import ShapeError
from engine.hdf5 import Reader, open_arrays
from engine.measures import CkaAccumulator
from engine.measures.check import Layer, as_layer

BATCH_ROWS = 1024


def similarity_of_files(x_path: Path, y_path: Path, pooling: str, n_rows: int = BATCH_ROWS) -> dict[str, Tensor]:
    """Exact linear CKA, biased and debiased, of every layer of one activation file with every layer of another.

    One pass over both files; neither is ever held whole.

    Args:
        x_path: activation file of the rows, such as that of the pre-trained model.
        y_path: activation file of the columns, of the same images in the same order.
        pooling: `cls` or `feat`.
        n_rows: images read at a time.
    Returns:
        `linear_cka` and `debiased_cka`, `(L, M)` float64, as `engine.measures.heatmaps` gives them.
    Raises:
        ShapeError: other images or another order, no such pooling, or fewer than 4 images.
        NonFiniteError: a value is NaN or infinite; names the file, the layer and the first image.
        DamagedError: a file is damaged.
    """
    accumulator = CkaAccumulator()
    with ExitStack() as stack:
        files = [(path, stack.enter_context(open_arrays(path, remake_activations(path)))) for path in (x_path, y_path)]
        _check_same_images(files)
        layers = [_layers(path, file, pooling) for path, file in files]
        batches = (_batches(*file, names, n_rows) for file, names in zip(files, layers, strict=True))
        for xs, ys in zip(*batches, strict=True):
            accumulator.update(xs, ys)
    return accumulator.result()


def _check_same_images(files: list[tuple[Path, Reader]]) -> None:
    (x_path, x), (y_path, y) = files
    ours, theirs = x.strings("/image"), y.strings("/image")
    if ours == theirs:
        return
    if len(ours) != len(theirs):
        problem = f"holds {len(theirs)} images (need {len(ours)}, as {x_path.name})"
    else:
        row = next(i for i, pair in enumerate(zip(ours, theirs, strict=True)) if pair[0] != pair[1])
        problem = f"image {row} is {theirs[row]!r} (need {ours[row]!r}, as {x_path.name})"
    raise ShapeError(str(y_path), problem, "compare activations of the same images in the same order")


def _layers(path: Path, file: Reader, pooling: str) -> list[str]:
    layers = layers_in_order(file)
    known = file.names(f"/layers/{layers[0]}") if layers else ()
    if pooling not in known:
        has = f"has {', '.join(known)}" if known else "holds no layers"
        raise ShapeError(f"{path}, pooling {pooling!r}", f"is not there (the file {has})", "name one that it has")
    return [f"/layers/{layer}/{pooling}" for layer in layers]


def _batches(path: Path, file: Reader, names: list[str], n_rows: int) -> Iterator[list[Layer]]:
    """The same rows of every layer, batch by batch."""
    first_row = 0
    for parts in zip(*(file.row_batches(name, n_rows) for name in names), strict=True):
        yield [as_layer(part, f"{path}:{name}", first_row) for part, name in zip(parts, names, strict=True)]
        first_row += n_rows
