"""Exact linear CKA from batches of any number of images; holds sums of products, never the activations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from engine.errors import ShapeError
from engine.measures.check import Layer, as_layer, check_same_rows, why_constant
from engine.measures.cka import Moments, ratio
from engine.measures.gram import Products
from engine.measures.precision import full_precision
from engine.measures.table import MEASURES

ACCUMULATED = ("linear_cka", "debiased_cka")


class CkaAccumulator:
    """Linear CKA of every pair of two sets of representations, biased and debiased, whose images come in batches.

    The result is that of `heatmap` on all images at once, whatever the batches. Memory is that of the products of
    features: d_x · d_y numbers of 8 bytes a pair, 0.8 GB for 12 × 12 layers of 768 features.

        accumulator = CkaAccumulator()
        for xs, ys in batches:
            accumulator.update(xs, ys)
        maps = accumulator.result()          # {"linear_cka": (L, M), "debiased_cka": (L, M)}
    """

    def __init__(self) -> None:
        self.n = 0
        self._left: list[_Layer] = []
        self._right: list[_Layer] = []
        self._pairs: list[_Pair] = []  # each left layer with itself, each right one, then all left with all right

    @torch.no_grad()
    def update(self, xs: Iterable[Any], ys: Iterable[Any]) -> None:
        """Takes one batch in.

        Args:
            xs: arrays or tensors `(b, d_i)` of real numbers, one row an image; the same layers in every batch.
            ys: the same images in the same order.
        Raises:
            ShapeError: no layers, not (b, d), other row counts, or other layers than the batches before.
            NonFiniteError: a value is NaN or infinite; nothing of the batch is then taken in.
        """
        left = [as_layer(x, f"xs[{i}]", self.n) for i, x in enumerate(xs)]
        right = [as_layer(y, f"ys[{i}]", self.n) for i, y in enumerate(ys)]
        self._check(left, right)
        n_rows = len(left[0].values)
        if not n_rows:
            return
        for layer in [*left, *right]:
            layer.bounds  # noqa: B018  (refuses what is not finite before anything is taken in)
        if not self.n:
            self._left, self._right = ([_Layer(layer) for layer in side] for side in (left, right))
            self._pairs = [*(_Pair(x, x) for x in (*self._left, *self._right)),
                           *(_Pair(x, y) for x in self._left for y in self._right)]  # fmt: skip
        for sums, layer in zip((*self._left, *self._right), (*left, *right), strict=True):
            sums.take(layer)
        with full_precision(left[0].values.device):
            for pair in self._pairs:
                pair.take()
        self.n += n_rows

    @torch.no_grad()
    def result(self) -> dict[str, Tensor]:
        """Both estimators for all pairs so far, `(L, M)` float64 on the CPU; NaN as in `heatmap`.

        Raises:
            ShapeError: fewer than 4 images so far.
        """
        if self.n < max(MEASURES[name].min_n for name in ACCUMULATED):
            raise ShapeError("CkaAccumulator", f"has seen {self.n} images (need 4)", "call update with more images")
        products, q_products = (
            self._parts(values) for values in zip(*(p.result(self.n) for p in self._pairs), strict=True)
        )
        norms = tuple(torch.stack([x.norm(self.n) for x in side]) for side in (self._left, self._right))
        moments = Moments(self.n, products, q_products, (norms[0], norms[1]))
        is_constant = [torch.tensor([x.is_constant for x in side]) for side in (self._left, self._right)]
        undefined = is_constant[0][:, None] | is_constant[1][None, :]
        return {name: ratio(moments, name).cpu().masked_fill(undefined, torch.nan) for name in ACCUMULATED}

    def _parts(self, values: Sequence[Tensor]) -> Products:
        """What holds of every pair, as the layers' own and the cross part."""
        n_left, n_right = len(self._left), len(self._right)
        own = torch.stack(list(values[: n_left + n_right]))
        return Products(own[:n_left], torch.stack(list(values[n_left + n_right :])).view(n_left, n_right), own[n_left:])

    def _check(self, left: Sequence[Layer], right: Sequence[Layer]) -> None:
        for side, layers, known in (("xs", left, self._left), ("ys", right, self._right)):
            if not layers:
                raise ShapeError(side, "has no layers (need at least one)", "pass a list of (b, d) arrays")
            widths, before = [layer.values.shape[1] for layer in layers], [x.width for x in known]
            if self.n and widths != before:
                raise ShapeError(
                    side, f"has layers of {widths} features (need {before}, as the batches before)",
                    "pass the same layers in every batch",
                )  # fmt: skip
        check_same_rows([*left, *right])


class _Layer:
    """Sums over the images of one layer, shifted by the mean of its first batch and scaled by a power of two."""

    def __init__(self, first: Layer) -> None:
        low, high = first.bounds
        self.width = first.values.shape[1]
        self._dtype = first.dtype
        self._low, self._high = low, high
        self._power = first.power_of_two_to_one if bool((low < high).any()) else 1.0
        self._shift = low + (first.values.double() - low).mean(dim=0)
        self.sum = torch.zeros_like(low)
        self.norms = torch.zeros((), dtype=torch.float64, device=low.device)
        self.z, self.s = low[None, :0], low[:0]

    def take(self, layer: Layer) -> None:
        """Shifts a batch, `z` `(b, d)` in the type to multiply in, and takes its sums; `s` are squared row norms."""
        low, high = (bound.to(self._low.device) for bound in layer.bounds)
        self._low, self._high = torch.minimum(self._low, low), torch.maximum(self._high, high)
        shifted = (layer.values.to(low.device).double() - self._shift) * self._power
        self.z = shifted.to(layer.dtype)
        self.s = shifted.square().sum(dim=1)
        self.sum += shifted.sum(dim=0)
        self.norms += self.s.sum()

    @property
    def is_constant(self) -> bool:
        """Whether no column varies over the images so far."""
        return why_constant(self._low, self._high, self._dtype) is not None

    def norm(self, n: int) -> Tensor:
        """Sum over the images of the squared distance to their mean."""
        return self.norms - self.sum.square().sum() / n


class _Pair:
    """Sums over the images of the products of two layers."""

    def __init__(self, x: _Layer, y: _Layer) -> None:
        self._x, self._y = x, y
        zero = x.sum
        self._product = zero.new_zeros(x.width, y.width)  # Σ z_x z_yᵀ
        self._s_z, self._z_s = zero.new_zeros(y.width), zero.new_zeros(x.width)  # Σ s_x z_y and Σ z_x s_y
        self._s_s = zero.new_zeros(())  # Σ s_x s_y

    def take(self) -> None:
        """Takes in the batch that both layers hold."""
        x, y = self._x, self._y
        dtype = torch.promote_types(x.z.dtype, y.z.dtype)
        self._product += x.z.to(dtype).T @ y.z.to(self._product.device, dtype)
        self._s_z += x.s @ y.z.to(x.s)
        self._z_s += y.s.to(x.s) @ x.z.double()
        self._s_s += x.s @ y.s.to(x.s)

    def result(self, n: int) -> tuple[Tensor, Tensor]:
        """The inner product of the centred Gram matrices, and of the images' squared distances to the means."""
        x_mean, y_mean = self._x.sum / n, self._y.sum.to(self._x.sum) / n
        x_norms, y_norms = self._x.norms, self._y.norms.to(self._x.sum)
        product = torch.linalg.vector_norm(self._product - n * torch.outer(x_mean, y_mean)).square()
        # Σ (s_x - 2 z_x·m_x + |m_x|²)(s_y - 2 z_y·m_y + |m_y|²), term by term
        x_square, y_square = x_mean.square().sum(), y_mean.square().sum()
        q_product = (
            self._s_s - 2 * self._s_z @ y_mean - 2 * self._z_s @ x_mean + 4 * x_mean @ self._product @ y_mean
            + x_norms * y_square + y_norms * x_square - 3 * n * x_square * y_square
        )  # fmt: skip
        return product, q_product
