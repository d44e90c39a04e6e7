"""Random crops and colour changes of whole batches; knows nothing of models. All randomness is the generator's."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional


def random_crops(
    images: Tensor, size: int, area: tuple[float, float], generator: torch.Generator, *, turned: bool = False
) -> Tensor:
    """One random crop of every image, flipped half of the time; what lies outside the image is its reflection.

    Args:
        images: `(n, 3, h, w)` float.
        size: pixels a side of the result.
        area: range of the share of the image's area that a crop covers; its aspect ratio lies in 3/4 to 4/3.
        turned: also turn every crop by a random angle.
    Returns:
        `(n, 3, size, size)`.
    """
    n = len(images)
    side = _uniform(n, *area, generator).sqrt()
    stretch = _uniform(n, -math.log(4 / 3) / 2, math.log(4 / 3) / 2, generator).exp()
    width, height = (side * stretch).clamp(max=1), (side / stretch).clamp(max=1)
    angle = _uniform(n, 0, 2 * math.pi, generator) if turned else torch.zeros(n)
    flip = _sign(n, generator)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 0, 1] = flip * width * angle.cos(), -height * angle.sin()
    theta[:, 1, 0], theta[:, 1, 1] = flip * width * angle.sin(), height * angle.cos()
    theta[:, 0, 2] = (1 - width) * _uniform(n, -1, 1, generator)
    theta[:, 1, 2] = (1 - height) * _uniform(n, -1, 1, generator)
    grid = functional.affine_grid(theta, [n, 3, size, size], align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def jitter(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Random brightness, contrast and saturation of every image `(n, 3, h, w)` in [0, 1]; 1 is strong."""
    n = len(images)

    def factor() -> Tensor:
        return (1 + 0.5 * strength * _uniform(n, -1, 1, generator)).view(n, 1, 1, 1)

    grey = images.mean(dim=1, keepdim=True)
    images = grey + (images - grey) * factor()
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return ((mean + (images - mean) * factor()) * factor()).clamp(0, 1)


def recolour(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """New colours and noise for every image, so that two crops of a scene share only its shapes.

    Blurred luma is brought near to two levels, figure and ground, which takes away grain, shading and contrast. The two
    are drawn in black and white at strength 0, in random colours and random order at strength 1.

    Args:
        images: `(n, 3, h, w)` in [0, 1]; the result has the same shape.
    """
    n = len(images)
    luma = (images * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
    luma = functional.avg_pool2d(functional.pad(luma, (1, 1, 1, 1), mode="reflect"), 3, stride=1)
    low, high = luma.amin(dim=(2, 3), keepdim=True), luma.amax(dim=(2, 3), keepdim=True)
    level = torch.sigmoid(10 * (luma - (low + high) / 2) / (high - low).clamp(min=0.12))
    level = level + torch.randn(luma.shape, generator=generator) * 0.1 * torch.rand(n, 1, 1, 1, generator=generator)
    dark = 0.55 * strength * torch.rand(n, 3, 1, 1, generator=generator)
    light = 1 - 0.65 * strength * torch.rand(n, 3, 1, 1, generator=generator)
    swapped = (torch.rand(n, generator=generator) < 0.5 * strength).view(n, 1, 1, 1)
    return torch.lerp(torch.where(swapped, light, dark), torch.where(swapped, dark, light), level)


def _uniform(n: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(n, generator=generator)


def _sign(n: int, generator: torch.Generator) -> Tensor:
    return torch.randint(0, 2, (n,), generator=generator) * 2.0 - 1
