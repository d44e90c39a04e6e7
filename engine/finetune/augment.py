"""Random crops and flips of a whole batch at once, different for each image; knows nothing of labels or models."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

CROP_AREA = (0.5, 1.0)
CROP_RATIO = (3 / 4, 4 / 3)


def augmented(batch: Tensor, size: int, flips: str, generator: torch.Generator) -> Tensor:
    """A random resized crop of every image, then random flips.

    Args:
        batch: `(n, 3, s, s)` float, on any device.
        size: side of the result in pixels.
        flips: "none", "horizontal" or "both".
        generator: of the CPU, so that every device draws the same numbers.
    Returns:
        `(n, 3, size, size)` float, bilinear.
    """
    n = len(batch)
    uniform = torch.rand(6, n, generator=generator)
    area = CROP_AREA[0] + (CROP_AREA[1] - CROP_AREA[0]) * uniform[0]
    low, high = math.log(CROP_RATIO[0]), math.log(CROP_RATIO[1])
    root_ratio = torch.exp((low + (high - low) * uniform[1]) / 2)
    width = (area.sqrt() * root_ratio).clamp(max=1.0)
    height = (area.sqrt() / root_ratio).clamp(max=1.0)
    # In the coordinates of `grid_sample`, where the image spans [-1, 1].
    shift_x = (1 - width) * (2 * uniform[2] - 1)
    shift_y = (1 - height) * (2 * uniform[3] - 1)
    mirror_x = torch.where((uniform[4] < 0.5) & torch.tensor(flips != "none"), -1.0, 1.0)
    mirror_y = torch.where((uniform[5] < 0.5) & torch.tensor(flips == "both"), -1.0, 1.0)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 0, 2] = width * mirror_x, shift_x
    theta[:, 1, 1], theta[:, 1, 2] = height * mirror_y, shift_y
    grid = F.affine_grid(theta.to(batch.device), [n, 3, size, size], align_corners=False)
    return F.grid_sample(batch, grid.to(batch.dtype), mode="bilinear", padding_mode="reflection", align_corners=False)
