"""A forward pass over one share of a batch that is as if it were over all of it; knows no model by name.

What couples images, batch normalisation, takes its statistics from the whole batch. What is drawn at random by image,
drop-out and stochastic depth, is drawn for the whole batch in every process, and each uses its own rows. Both are
caught where torch computes them, so that it does not matter which library's layer asks.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from engine.backbones.backbone import Backbone
from engine.errors import StudyError
from engine.finetune.classifier import Classifier
from engine.finetune.methods import method_of
from engine.finetune.recipes import make_recipe
from engine.finetune.team import Share, added_up
from engine.study import RunSpec

_Function = Callable[..., Any]
_DROPS: tuple[_Function, ...] = (
    F.alpha_dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.feature_alpha_dropout, torch.dropout,
    torch.dropout_, torch.alpha_dropout, torch.feature_dropout,
)  # fmt: skip
_DRAWS: tuple[_Function, ...] = (
    torch.rand, torch.randn, torch.randint, torch.randperm, torch.rand_like, torch.randn_like, torch.randint_like,
    torch.bernoulli, torch.multinomial, torch.normal, torch.poisson, torch.Tensor.bernoulli, torch.Tensor.multinomial,
    torch.Tensor.normal_, torch.Tensor.uniform_, torch.Tensor.random_, torch.Tensor.exponential_,
    torch.Tensor.geometric_, torch.Tensor.log_normal_, torch.Tensor.cauchy_, torch.native_dropout, F.rrelu,
)  # fmt: skip
_DROPOUT_OF_ATTENTION = 10  # its place among the arguments of `F.multi_head_attention_forward`


class SharedBatch(TorchFunctionMode):
    """While it is entered, a forward pass over the rows of a share gives what it gives for them in the whole batch."""

    def __init__(self, share: Share, total: Callable[[Tensor], Tensor] = added_up) -> None:
        """`total` adds up over the processes, with gradients."""
        super().__init__()
        self._share, self._total = share, total
        self._handlers: dict[_Function, _Function] = {
            F.batch_norm: self._batch_norm,
            F.dropout: self._dropout,
            torch.Tensor.bernoulli_: self._bernoulli,
            F.scaled_dot_product_attention: self._attention,
            F.multi_head_attention_forward: self._multi_head,
            torch.batch_norm: self._bare_batch_norm,
            **{each: self._refuses(each) for each in _DRAWS},
            **{each: self._refuses_where_it_drops(each) for each in _DROPS},
        }

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Every function of torch that is called meanwhile, but not those that it calls itself."""
        return self._handlers.get(func, func)(*args, **(kwargs or {}))

    def _batch_norm(
        self,
        x: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        # Without running statistics it is a weight that is standardised, not a batch: see `check_shareable`.
        if not training or running_mean is None or running_var is None:
            return F.batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        own = wide[: self._share.n_own]
        axes = [axis for axis in range(x.ndim) if axis != 1]
        shape = [1, -1, *[1] * (x.ndim - 2)]
        n = self._share.n * (x[0].numel() // x.shape[1])
        mean = self._total(own.sum(axes)) / n
        variance = self._total((own - mean.view(shape)).square().sum(axes)) / n
        with torch.no_grad():
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            running_var.lerp_((variance * n / (n - 1)).to(running_var.dtype), momentum)
        found = (wide - mean.view(shape)) * torch.rsqrt(variance + eps).view(shape)
        found = found if weight is None else found * weight.view(shape)
        found = found if bias is None else found + bias.view(shape)
        return found.to(x.dtype)

    def _dropout(self, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if not training or p == 0:
            return F.dropout(x, p, training, inplace)
        kept = F.dropout(x.new_ones(self._drawn_shape(x)), p, True)[self._drawn_rows(x)]
        return x.mul_(kept) if inplace else x * kept

    def _bernoulli(self, x: Tensor, p: Any = 0.5, *, generator: Any = None) -> Tensor:
        if generator is not None or isinstance(p, Tensor):
            raise _unsupported("draws random numbers of its own")
        return x.copy_(x.new_empty(self._drawn_shape(x)).bernoulli_(p)[self._drawn_rows(x)])

    def _attention(self, *args: Any, **kwargs: Any) -> Tensor:
        if (args[4] if len(args) > 4 else kwargs.get("dropout_p", 0.0)) > 0:
            raise _unsupported("drops out attention at random")
        return F.scaled_dot_product_attention(*args, **kwargs)

    def _multi_head(self, *args: Any, **kwargs: Any) -> Any:
        dropout = args[_DROPOUT_OF_ATTENTION] if len(args) > _DROPOUT_OF_ATTENTION else kwargs["dropout_p"]
        if dropout > 0 and kwargs.get("training", True):
            raise _unsupported("drops out attention at random")
        return F.multi_head_attention_forward(*args, **kwargs)

    def _bare_batch_norm(self, *args: Any, **kwargs: Any) -> Tensor:
        if args[5] if len(args) > 5 else kwargs["training"]:
            raise _unsupported("normalises batches in a way of its own")
        return torch.batch_norm(*args, **kwargs)

    def _refuses(self, function: _Function) -> _Function:
        def refuse(*_: Any, **__: Any) -> Any:
            raise _unsupported(f"draws random numbers with {function.__name__}")

        return refuse

    def _refuses_where_it_drops(self, function: _Function) -> _Function:
        def drop(x: Tensor, p: float = 0.5, *args: Any, **kwargs: Any) -> Any:
            trains = args[0] if args else kwargs.get("training", kwargs.get("train", False))
            if p > 0 and trains:
                raise _unsupported(f"draws random numbers with {function.__name__}")
            return function(x, p, *args, **kwargs)

        return drop

    def _drawn_shape(self, x: Tensor) -> tuple[int, ...]:
        """As of the whole batch."""
        return (self._share.n * self._n_a_row(x), *x.shape[1:])

    def _drawn_rows(self, x: Tensor) -> slice:
        n = self._n_a_row(x)
        return slice(self._share.start * n, self._share.stop * n)

    def _n_a_row(self, x: Tensor) -> int:
        """How many rows of a tensor belong to one image: several where images are cut into windows."""
        n, rest = divmod(len(x), self._share.stop - self._share.start)
        if rest:
            raise _unsupported("draws random numbers that do not belong to single images")
        return n


def check_shareable(specs: Iterable[RunSpec], backbone: Backbone) -> None:
    """Refuses, before anything is trained, methods whose batches of a backbone cannot be shared among devices.

    Raises:
        StudyError: a layer draws random numbers, or normalises batches, in a way that is not known here.
    """
    name = backbone.info.name
    size, device = backbone.info.input_size, next(backbone.parameters()).device
    for spec in {each.method: each for each in specs if is_shared(each)}.values():
        model = Classifier(copy.deepcopy(backbone), nn.Linear(backbone.info.n_features, 2).to(device))
        recipe = make_recipe(spec, model)
        try:
            for epoch in (1, spec.epochs):
                recipe.begin(epoch)
                _refuse_statistics_of_the_moment(model)
                with SharedBatch(Share(2, 0, 1, 1), lambda values: values * 2):
                    recipe.forward(torch.zeros(1, 3, size, size, device=device))
        except StudyError as error:
            raise StudyError(f'{spec.method} of backbone "{name}"', error.problem, error.fix) from error


def is_shared(spec: RunSpec) -> bool:
    """Whether a run is computed by all the devices that it is given."""
    return method_of(spec.method).is_shareable


def _refuse_statistics_of_the_moment(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
            raise _unsupported("normalises each batch by itself, also when nothing is trained")


def _unsupported(problem: str) -> StudyError:
    fix = "set machine.devices_per_run = 1, or leave the method or the backbone out"
    return StudyError("a batch shared among devices", f"a layer {problem}", fix)
