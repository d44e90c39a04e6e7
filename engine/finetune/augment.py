"""Random crops, flips, rotation and colour of a whole batch, other ones for each image; knows no labels or models.

On a CPU crops are resized as bytes, image by image, which is five times faster than sampling the batch on a grid; on
other devices, and where images are rotated, the batch is sampled at once. Which way it goes changes pixels by a grey
level or so, never what is drawn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.finetune.team import Share

CROP_AREA = (0.5, 1.0)
CROP_RATIO = (3 / 4, 4 / 3)
_GREY = (0.299, 0.587, 0.114)  # ITU-R 601, as Pillow's "L"


@dataclass(frozen=True)
class Augmentation:
    """What is drawn for every image.

    Attributes:
        size: side of the result in pixels.
        flips: "none", "horizontal" or "both".
        rotation: the largest angle in degrees, to either side.
        colour: the largest relative change of brightness, contrast and saturation.
    """

    size: int
    flips: Literal["none", "horizontal", "both"] = "horizontal"
    rotation: float = 0.0
    colour: float = 0.0


def augmented(
    pixels: Tensor, augmentation: Augmentation, generator: torch.Generator, share: Share | None = None
) -> Tensor:
    """A random resized crop of every image, then random flips, rotation about the crop's centre, and colour.

    Crops have 50 to 100 % of the area, sides 3 : 4 to 4 : 3, and lie on whole pixels. Where a rotated crop reaches
    beyond the image, the image is mirrored.

    Args:
        pixels: `(n, s, s, 3)` uint8, on any device.
        generator: of the CPU, so that every device draws the same numbers.
        share: which rows of a batch the pixels are, where they are not all: what is drawn for each image is the same.
    Returns:
        `(n, 3, size, size)` float32 in [0, 1], bilinear.
    """
    share = share or Share.whole(len(pixels))
    n, side = share.n, pixels.shape[1]
    boxes, mirrored = (each[share.rows] for each in _boxes(n, side, augmentation.flips, generator))
    angles = torch.zeros(n)
    if augmentation.rotation:
        angles = torch.deg2rad(augmentation.rotation * (2 * torch.rand(n, generator=generator) - 1))
    angles = angles[share.rows]
    factors = 1 + augmentation.colour * (2 * torch.rand(3, n, generator=generator) - 1) if augmentation.colour else None
    if pixels.device.type == "cpu" and not augmentation.rotation:
        images = _cropped_bytes(pixels, boxes, mirrored, augmentation.size)
    else:
        images = _sampled(pixels, boxes, mirrored, angles, augmentation.size)
    return images if factors is None else _coloured(images, factors[:, share.rows].to(images.device))


def _boxes(n: int, side: int, flips: str, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """`(n, 4)` left, top, width, height in whole pixels; `(n, 2)` whether mirrored left to right, and upside down."""
    uniform = torch.rand(6, n, generator=generator)
    area = CROP_AREA[0] + (CROP_AREA[1] - CROP_AREA[0]) * uniform[0]
    low, high = math.log(CROP_RATIO[0]), math.log(CROP_RATIO[1])
    root_ratio = torch.exp((low + (high - low) * uniform[1]) / 2)
    width = (side * area.sqrt() * root_ratio).round().clamp(1, side)
    height = (side * area.sqrt() / root_ratio).round().clamp(1, side)
    left = ((side - width + 1) * uniform[2]).floor()
    top = ((side - height + 1) * uniform[3]).floor()
    mirrored = torch.stack([(uniform[4] < 0.5) & (flips != "none"), (uniform[5] < 0.5) & (flips == "both")], dim=1)
    return torch.stack([left, top, width, height], dim=1).long(), mirrored


def _cropped_bytes(pixels: Tensor, boxes: Tensor, mirrored: Tensor, size: int) -> Tensor:
    out = torch.empty((len(pixels), size, size, 3), dtype=torch.uint8)
    channels_first = pixels.permute(0, 3, 1, 2)
    for at, ((left, top, width, height), flips) in enumerate(zip(boxes.tolist(), mirrored.tolist(), strict=True)):
        crop = channels_first[at : at + 1, :, top : top + height, left : left + width]
        resized = F.interpolate(crop, size=(size, size), mode="bilinear", antialias=True, align_corners=False)[0]
        axes = [axis for axis, flip in zip((2, 1), flips, strict=True) if flip]
        out[at] = (resized.flip(axes) if axes else resized).permute(1, 2, 0)
    return out.permute(0, 3, 1, 2).float().mul_(1 / 255)


def _sampled(pixels: Tensor, boxes: Tensor, mirrored: Tensor, angles: Tensor, size: int) -> Tensor:
    side = pixels.shape[1]
    # In the coordinates of `grid_sample`, where the image spans [-1, 1] from edge to edge.
    left, top, width, height = (column / side for column in boxes.float().unbind(1))
    sign = torch.where(mirrored, -1.0, 1.0)
    theta = torch.zeros(len(pixels), 2, 3)
    theta[:, 0, 0], theta[:, 0, 1] = width * sign[:, 0] * angles.cos(), -height * sign[:, 1] * angles.sin()
    theta[:, 1, 0], theta[:, 1, 1] = width * sign[:, 0] * angles.sin(), height * sign[:, 1] * angles.cos()
    theta[:, 0, 2], theta[:, 1, 2] = 2 * left + width - 1, 2 * top + height - 1
    images = pixels.permute(0, 3, 1, 2).float().mul_(1 / 255)
    grid = F.affine_grid(theta.to(images.device), [len(pixels), 3, size, size], align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def _coloured(images: Tensor, factors: Tensor) -> Tensor:
    """Brightness, contrast about the image's mean grey, saturation about each pixel's grey; `factors` is `(3, n)`."""
    brightness, contrast, saturation = (factor.view(-1, 1, 1, 1) for factor in factors)
    images = (images * brightness).clamp_(0, 1)
    images = torch.lerp(_grey(images).mean(dim=(2, 3), keepdim=True), images, contrast).clamp_(0, 1)
    return torch.lerp(_grey(images), images, saturation).clamp_(0, 1)


def _grey(images: Tensor) -> Tensor:
    weights = torch.tensor(_GREY, device=images.device).view(1, 3, 1, 1)
    return (images * weights).sum(dim=1, keepdim=True)
