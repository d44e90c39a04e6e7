"""One pre-trained vision network behind one interface; knows nothing of libraries, names or weight files.

Its layers are the blocks of a transformer, which give tokens, or the stages of any other network, which give maps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from engine.errors import ShapeError

LayerKind = Literal["blocks", "stages"]


@dataclass(frozen=True)
class BackboneInfo:
    """What is known of a backbone.

    Args:
        name: as in the study file.
        paradigm: "supervised", "image-text", "self-supervised" or "unknown".
        input_size: height and width of an image in pixels.
        mean, std: of the pre-training, for pixels in [0, 1], red, green, blue.
        layers: names of the layers whose outputs are compared, first to last: `blocks.0`, … of a transformer, whatever
            its library calls them; of stages the names of their modules.
        widths: features of each layer's output.
        n_features: width of the embedding.
        weights_source: "file:<path>", "hub:<repository>/<file>@<revision>", "bundled:<file>" or "random (seed <n>)".
        weights_sha256: digest of the weights file; None where the weights are random.
        poolings: what `forward_blocks` gives; "cls" is not among them where the model has no CLS token.
        layer_kind: "blocks" of tokens that attend to each other, or "stages" of maps, which have no attention to show.
    """

    name: str
    family: str
    paradigm: str
    input_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    layers: tuple[str, ...]
    widths: tuple[int, ...]
    n_features: int
    weights_source: str
    weights_sha256: str | None
    poolings: tuple[str, ...] = ("cls", "feat")
    layer_kind: LayerKind = "blocks"

    @property
    def n_blocks(self) -> int:
        """How many layers are compared."""
        return len(self.layers)


@dataclass(frozen=True)
class BlockOutputs:
    """The outputs of every layer for n images, each pooled to one vector an image, before any final norm.

    Args:
        embedding: `(n, n_features)`, bit-equal to `Backbone.forward`.
        cls: a layer `(n, d_i)` float32, the CLS token; None where the model has none.
        feat: a layer `(n, d_i)` float32, mean of the patch tokens (CLS, registers and other prefix tokens are left
            out), or of all positions of a map.
    """

    embedding: Tensor
    cls: tuple[Tensor, ...] | None
    feat: tuple[Tensor, ...]


class Backbone(nn.Module):
    """A vision network without its head.

    Images are `(n, 3, s, s)` floats, s = `info.input_size`, normalised with `info.mean` and `info.std`.

    Args:
        model: gives the embedding of images when called.
        blocks: the modules within `model` whose outputs are the layers', in order.
        create: gives a `model` with random weights, as its library initialises it.
        n_prefix_tokens: how many tokens stand before the patch tokens.
        has_cls: the first of them is the CLS token.
        positions: of each block the axes of its output over which "feat" is the mean; `(n, tokens, d)` without.
    """

    def __init__(
        self,
        model: nn.Module,
        info: BackboneInfo,
        *,
        blocks: Sequence[nn.Module],
        create: Callable[[], nn.Module],
        n_prefix_tokens: int = 0,
        has_cls: bool = False,
        positions: Sequence[tuple[int, ...]] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.info = info
        self.create = create
        self.blocks = tuple(blocks)  # a tuple is not registered: the parameters appear once, under `model`
        self.n_prefix_tokens = n_prefix_tokens
        self._has_cls = has_cls
        self._positions = tuple(positions) if positions else ((1,),) * len(self.blocks)

    def forward(self, x: Tensor) -> Tensor:
        """The embedding `(n, n_features)`: what a classifier head sits on, final norm applied, before any projection.

        timm: the model's own pooling (CLS token, mean, or attention) and all else before the classifier. open_clip:
        the CLS token after `ln_post`, or the model's own pooling.

        Raises:
            ShapeError: the images are not `(n, 3, s, s)`.
        """
        self._check(x)
        embedding: Tensor = self.model(x)
        return embedding

    def forward_blocks(self, x: Tensor) -> BlockOutputs:
        """The embedding and the outputs of all layers in one pass.

        Each layer's output is pooled as soon as it is there: it is still in the cache, and only one is alive at a time.
        Pooling is done in float32 under autocast too.

        Raises:
            ShapeError: the images are not `(n, 3, s, s)`.
        """
        self._check(x)
        cls: list[Tensor] = []
        feat: list[Tensor] = []

        def pool(positions: tuple[int, ...], _block: nn.Module, _inputs: object, output: Tensor) -> None:
            if self._has_cls:
                cls.append(output[:, 0].to(torch.float32, copy=True))  # a view would keep all tokens alive
            feat.append(output[:, self.n_prefix_tokens :].mean(positions, dtype=torch.float32))

        places = zip(self.blocks, self._positions, strict=True)
        handles = [block.register_forward_hook(partial(pool, positions)) for block, positions in places]
        try:
            embedding = self.model(x)
        finally:
            for handle in handles:
                handle.remove()
        return BlockOutputs(embedding, tuple(cls) if cls else None, tuple(feat))

    def _check(self, x: Tensor) -> None:
        size = self.info.input_size
        if x.shape[1:] != (3, size, size):
            raise ShapeError(
                self.info.name,
                f"images are {tuple(x.shape)} (need (n, 3, {size}, {size}))",
                f"resize the images to {size} pixels, or load the backbone with input_size={x.shape[-1]}",
            )
