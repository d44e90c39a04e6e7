"""Reads where the stages of a timm network lie and what they give; knows nothing of names, weights or images.

Everything is found out from a model without storage: a forward pass on the meta device costs no arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from engine.errors import StudyError

_NO_FIX = 'name a ViT, or a network whose stages give maps, such as "timm:resnet50.a1_in1k"'
_Window = tuple[int, int]


@dataclass(frozen=True)
class Stages:
    """The stages of a network, as its `feature_info` names them, in the order of its forward pass.

    Attributes:
        names: of their modules.
        widths: channels of their maps.
        positions: of each map `(n, …)` the two axes of height and width.
        n_features: width of the network's embedding.
        strides: pixels of the input for one position of each map, by timm's account.
    """

    names: tuple[str, ...]
    widths: tuple[int, ...]
    positions: tuple[tuple[int, int], ...]
    n_features: int
    strides: tuple[int, ...]


def read_stages(model: Any, size: int, where: str) -> Stages:
    """The stages of a model on the meta device, for images of `size` pixels.

    Raises:
        StudyError: timm names no stages, one of them gives no map or not one an image, or such images do not suit it.
    """
    listed = _listed(model, where)
    found: list[tuple[str, Any]] = []

    def note(name: str) -> Callable[..., None]:
        return lambda _module, _inputs, output: found.append((name, output))

    handles = [module.register_forward_hook(note(name)) for name, module, _ in listed]
    try:
        embedding = _passed(model, size, where)
    finally:
        for handle in handles:
            handle.remove()
    channels = {name: int(info["num_chs"]) for name, _, info in listed}
    if sorted(name for name, _ in found) != sorted(channels):
        raise _unreadable(where, "a pass through it does not go through each of its stages once")
    maps = [(name, _map_shape(name, output, channels[name], where)) for name, output in found]
    if not isinstance(embedding, Tensor) or embedding.ndim != 2:
        raise _unreadable(where, "without its classifier it gives no vector an image")
    strides = {name: int(info["reduction"]) for name, _, info in listed}
    is_last = _channels_are_last([(shape, channels[name]) for name, shape in maps])
    return Stages(
        tuple(name for name, _ in maps),
        tuple(channels[name] for name, _ in maps),
        tuple((1, 2) if each else (2, 3) for each in is_last),
        embedding.shape[1],
        tuple(strides[name] for name, _ in maps),
    )


def check_size(create: Callable[[int], Any], size: int, native: int, where: str) -> None:
    """Refuses images at which the network would leave the last pixels of each row out in silence.

    A convolution whose windows do not fill its input drops the rest. What a network drops at its own size is its own
    affair; at any other size it may drop no more.

    Args:
        create: gives the model for a size.
    Raises:
        StudyError: pixels would be left out, or the library builds no such model.
    """
    before, now = (_left_out(create, each, where) for each in (native, size))
    new = {name: n for name, n in now.items() if n > before.get(name, 0)}
    if new:
        name, n = next(iter(new.items()))
        with torch.device("meta"):
            step = max(read_stages(create(native), native, where).strides)
        near = max(1, round(size / step)) * step
        problem = f"input_size = {size}: its {name} would leave out the last {n} of each row that it reads"
        raise StudyError(where, problem, f"set input_size = {near}, or another multiple of its stride {step}")


def _listed(model: Any, where: str) -> list[tuple[str, nn.Module, dict[str, Any]]]:
    """Name, module and timm's record of every stage."""
    records = getattr(model, "feature_info", None) or ()
    records = list(getattr(records, "info", records))
    names = [str(each.get("module", "")) for each in records]
    if not names or len(set(names)) < len(names):
        raise _unreadable(where, "timm names no stages of it")
    try:
        return [(name, _module(model, name), each) for name, each in zip(names, records, strict=True)]
    except AttributeError as error:
        raise _unreadable(where, f"what timm names as a stage is not there ({error})") from error


def _module(model: nn.Module, name: str) -> nn.Module:
    if not name:
        raise AttributeError("a stage without a name")
    return model.get_submodule(name)


def _map_shape(name: str, output: Any, n_channels: int, where: str) -> tuple[int, ...]:
    if not isinstance(output, Tensor) or output.ndim != 4 or n_channels not in output.shape[1:]:
        seen = f"a tensor {tuple(output.shape)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
        problem = f"its {name} gives {seen} (need a map of {n_channels} channels: (n, {n_channels}, h, w))"
        raise _unreadable(where, problem)
    return tuple(output.shape)


def _channels_are_last(maps: list[tuple[tuple[int, ...], int]]) -> list[bool]:
    """Of each map whether it is `(n, h, w, c)`; where its shape fits both, as those of the others are."""
    fits = [(shape[1] == n, shape[3] == n) for shape, n in maps]
    is_usual = not any(last and not first for first, last in fits)
    return [last if first != last else not is_usual for first, last in fits]


def _passed(model: Any, size: int, where: str) -> Any:
    """What a model makes of one batch of two."""
    try:
        with torch.inference_mode(), torch.device("meta"):
            return model.eval()(torch.zeros(2, 3, size, size))
    except (RuntimeError, AssertionError, ValueError, TypeError, NotImplementedError, IndexError) as error:
        said = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise StudyError(
            where, f"takes no images of {size} pixels ({said})", "set another input_size, or leave it out"
        ) from error


def _left_out(create: Callable[[int], Any], size: int, where: str) -> dict[str, int]:
    """Of each convolution and pooling the rows of its input, at the end, that none of its windows reaches."""
    try:
        with torch.device("meta"):
            model = create(size)
    except (RuntimeError, AssertionError, ValueError, TypeError, ZeroDivisionError) as error:
        said = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        problem = f"input_size = {size}: timm does not build it for this size ({said})"
        raise StudyError(where, problem, "leave input_size out") from error
    found: dict[str, int] = {}
    with _watching(model, found):
        _passed(model, size, where)
    return found


@contextmanager
def _watching(model: nn.Module, found: dict[str, int]) -> Iterator[None]:
    def watch(name: str) -> Callable[..., None]:
        def look(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            n = _rest(module, inputs[0].shape[-1], output.shape[-1])
            if n > 0:
                found[name] = max(n, found.get(name, 0))

        return look

    kinds = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
    handles = [module.register_forward_hook(watch(name)) for name, module in model.named_modules()
               if isinstance(module, kinds)]  # fmt: skip
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _rest(module: Any, n_in: int, n_out: int) -> int:
    """Positions beyond the last window, less those that a step longer than the window passes over anyhow."""
    kernel, stride, dilation = (_last(getattr(module, name, 1)) for name in ("kernel_size", "stride", "dilation"))
    padding = 0 if isinstance(module.padding, str) else _last(module.padding)
    window = dilation * (kernel - 1) + 1
    return n_in + padding - ((n_out - 1) * stride + window) - max(0, stride - window)


def _last(value: int | _Window) -> int:
    return value[-1] if isinstance(value, tuple) else value


def _unreadable(where: str, why: str) -> StudyError:
    return StudyError(
        where, f"its layers can be read neither as blocks of tokens nor as stages of maps: {why}", _NO_FIX
    )
