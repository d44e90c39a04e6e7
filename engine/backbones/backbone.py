"""One pre-trained vision transformer behind one interface; knows nothing of libraries, names or weight files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from engine.errors import ShapeError


@dataclass(frozen=True)
class BackboneInfo:
    """What is known of a backbone.

    Args:
        name: as in the study file.
        paradigm: "supervised", "image-text", "self-supervised" or "unknown".
        input_size: height and width of an image in pixels.
        mean, std: of the pre-training, for pixels in [0, 1], red, green, blue.
        n_blocks: transformer blocks, the layers whose outputs are compared.
        n_features: width of the embedding.
        weights_source: "file:<path>", "hub:<repository>/<file>@<revision>", "bundled:<file>" or "random (seed <n>)".
        weights_sha256: digest of the weights file; None where the weights are random.
        poolings: what `forward_blocks` gives; "cls" is not among them where the model has no CLS token.
    """

    name: str
    family: str
    paradigm: str
    input_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    n_blocks: int
    n_features: int
    weights_source: str
    weights_sha256: str | None
    poolings: tuple[str, ...] = ("cls", "feat")


@dataclass(frozen=True)
class BlockOutputs:
    """The outputs of every block for n images, each pooled to one vector an image, before any final norm.

    Args:
        embedding: `(n, n_features)`, bit-equal to `Backbone.forward`.
        cls: `(L, n, d)` float32, the CLS token; None where the model has none.
        feat: `(L, n, d)` float32, mean of the patch tokens; CLS, registers and other prefix tokens are left out.
    """

    embedding: Tensor
    cls: Tensor | None
    feat: Tensor


class Backbone(nn.Module):
    """A vision transformer without its head.

    Images are `(n, 3, s, s)` floats, s = `info.input_size`, normalised with `info.mean` and `info.std`.

    Args:
        model: gives the embedding of images when called.
        blocks: the modules within `model` whose outputs are `(n, tokens, d)`, in order.
        n_prefix_tokens: how many tokens stand before the patch tokens.
        has_cls: the first of them is the CLS token.
        create: gives a `model` with random weights, as its library initialises it.
    """

    def __init__(
        self,
        model: nn.Module,
        info: BackboneInfo,
        *,
        blocks: Sequence[nn.Module],
        n_prefix_tokens: int,
        has_cls: bool,
        create: Callable[[], nn.Module],
    ) -> None:
        super().__init__()
        self.model = model
        self.info = info
        self.create = create
        self.blocks = tuple(blocks)  # a tuple is not registered: the parameters appear once, under `model`
        self.n_prefix_tokens = n_prefix_tokens
        self._has_cls = has_cls

    def forward(self, x: Tensor) -> Tensor:
        """The embedding `(n, n_features)`: what a classifier head sits on, final norm applied, before any projection.

        timm: the model's own pooling (CLS token, mean, or attention). open_clip: the CLS token after
        `ln_post`, or the model's own pooling.

        Raises:
            ShapeError: the images are not `(n, 3, s, s)`.
        """
        self._check(x)
        embedding: Tensor = self.model(x)
        return embedding

    def forward_blocks(self, x: Tensor) -> BlockOutputs:
        """The embedding and the outputs of all blocks in one pass.

        Each block's output is pooled as soon as it is there: it is still in the cache, and only one is alive at a time.
        Pooling is done in float32 under autocast too.

        Raises:
            ShapeError: the images are not `(n, 3, s, s)`.
        """
        self._check(x)
        cls: list[Tensor] = []
        feat: list[Tensor] = []

        def pool(_block: nn.Module, _inputs: object, tokens: Tensor) -> None:
            if self._has_cls:
                cls.append(tokens[:, 0].to(torch.float32, copy=True))  # a view would keep all tokens alive
            feat.append(tokens[:, self.n_prefix_tokens :].mean(1, dtype=torch.float32))

        handles = [block.register_forward_hook(pool) for block in self.blocks]
        try:
            embedding = self.model(x)
        finally:
            for handle in handles:
                handle.remove()
        return BlockOutputs(embedding, torch.stack(cls) if cls else None, torch.stack(feat))

    def _check(self, x: Tensor) -> None:
        size = self.info.input_size
        if x.shape[1:] != (3, size, size):
            raise ShapeError(
                self.info.name,
                f"images are {tuple(x.shape)} (need (n, 3, {size}, {size}))",
                f"resize the images to {size} pixels, or load the backbone with input_size={x.shape[-1]}",
            )
