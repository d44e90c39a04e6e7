"""Augmented batches: other pictures for each image, the same on resuming, and both ways alike."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.finetune import augment
from engine.finetune.augment import CROP_AREA, Augmentation, augmented


def smooth(n: int = 6, side: int = 64) -> Tensor:
    """`(n, side, side, 3)`: red grows to the right, green downwards, blue is constant."""
    ramp = torch.linspace(40, 200, side)
    red, green = ramp.expand(side, side), ramp.view(-1, 1).expand(side, side)
    image = torch.stack([red, green, torch.full((side, side), 100.0)], dim=2)
    return image.round().to(torch.uint8).expand(n, -1, -1, -1).contiguous()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_every_image_is_cropped_in_its_own_way_and_the_same_again() -> None:
    one = augmented(smooth(), Augmentation(32, "both", 15.0, 0.3), generator())
    assert one.shape == (6, 3, 32, 32) and one.dtype == torch.float32
    assert float(one.min()) >= 0 and float(one.max()) <= 1
    assert all(not torch.equal(one[0], other) for other in one[1:])
    assert torch.equal(one, augmented(smooth(), Augmentation(32, "both", 15.0, 0.3), generator()))
    assert not torch.equal(one, augmented(smooth(), Augmentation(32, "both", 15.0, 0.3), generator(1)))


def test_crops_keep_between_half_and_all_of_the_area_and_their_place() -> None:
    found = augmented(smooth(200), Augmentation(32, "none"), generator())
    slope_x = (found[:, 0, 16, 28] - found[:, 0, 16, 4]) / 24 * 255
    slope_y = (found[:, 1, 28, 16] - found[:, 1, 4, 16]) / 24 * 255
    a_pixel = 160 / 63
    areas = (slope_x / a_pixel) * (slope_y / a_pixel) * (32 / 64) ** 2
    assert CROP_AREA[0] - 0.04 < float(areas.min()) and float(areas.max()) < CROP_AREA[1] + 0.04
    assert float(areas.max() - areas.min()) > 0.3
    assert float(found[:, 2].sub(100 / 255).abs().max()) < 1e-6


@pytest.mark.parametrize(("flips", "left_right", "upside_down"), [
    ("none", False, False), ("horizontal", True, False), ("both", True, True),
])  # fmt: skip
def test_flips(flips: str, left_right: bool, upside_down: bool) -> None:
    found = augmented(smooth(60), Augmentation(32, flips), generator())  # type: ignore[arg-type]
    mirrored = (found[:, 0, 16, 4] > found[:, 0, 16, 28]).float().mean()
    turned = (found[:, 1, 4, 16] > found[:, 1, 28, 16]).float().mean()
    assert (0.2 < mirrored < 0.8) == left_right and (mirrored == 0) == (not left_right)
    assert (0.2 < turned < 0.8) == upside_down and (turned == 0) == (not upside_down)


def test_cropping_bytes_and_sampling_a_grid_agree_within_a_grey_level() -> None:
    pixels, drawn = smooth(20), generator()
    boxes, mirrored = augment._boxes(20, 64, "both", drawn)
    as_bytes = augment._cropped_bytes(pixels, boxes, mirrored, 48)
    sampled = augment._sampled(pixels, boxes, mirrored, torch.zeros(20), 48)
    inner = (as_bytes - sampled)[..., 2:-2, 2:-2].abs().max() * 255
    assert float(inner) < 1.5


def test_rotation_turns_about_the_middle_and_no_further_than_asked() -> None:
    found = augmented(smooth(100), Augmentation(33, "none", rotation=20.0), generator())
    right, down = found[:, 0, 16, 26] - found[:, 0, 16, 6], found[:, 0, 26, 16] - found[:, 0, 6, 16]
    # The red ramp, turned: its slope downwards over its slope to the right is the tangent, up to the crop's ratio.
    angles = torch.rad2deg(torch.atan2(down, right))
    assert 12 < float(angles.max()) < 27 and -27 < float(angles.min()) < -12
    still = augmented(smooth(100), Augmentation(33, "none"), generator())
    assert float((still[:, 0, 26, 16] - still[:, 0, 6, 16]).abs().max()) < 0.01


def test_colour_changes_brightness_contrast_and_saturation_within_bounds() -> None:
    grey = torch.full((50, 64, 64, 3), 100, dtype=torch.uint8)
    found = augmented(grey, Augmentation(32, colour=0.2), generator())
    # A grey image without contrast shows the brightness alone.
    factors = found.mean(dim=(1, 2, 3)) * 255 / 100
    assert 0.8 - 1e-4 <= float(factors.min()) < 0.85 and 1.15 < float(factors.max()) <= 1.2 + 1e-4
    assert float(found.std(dim=1).max()) < 1e-6
    tinted = augmented(smooth(50), Augmentation(32, colour=0.5), generator())
    plain = augmented(smooth(50), Augmentation(32), generator())
    ratios = tinted.flatten(1).std(dim=1) / plain.flatten(1).std(dim=1)
    assert float(ratios.max()) > 1.2 and float(ratios.min()) < 0.8


def test_an_image_that_no_crop_changes_comes_out_as_it_went_in(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8))
    whole = torch.tensor([[0, 0, 32, 32]] * 2), torch.zeros(2, 2, dtype=torch.bool)
    monkeypatch.setattr(augment, "_boxes", lambda *arguments: whole)
    expected = pixels.permute(0, 3, 1, 2).float() / 255
    assert torch.allclose(augmented(pixels, Augmentation(32), generator()), expected, atol=1e-6)
    sampled = augment._sampled(pixels, *whole, torch.zeros(2), 32)
    assert torch.allclose(sampled, expected, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_the_same_is_drawn_as_on_the_cpu() -> None:
    turned = Augmentation(48, "both", rotation=20.0, colour=0.3)
    on_gpu, on_cpu = (augmented(smooth(20).to(device), turned, generator()).cpu() for device in ("cuda", "cpu"))
    assert float((on_gpu - on_cpu).abs().max()) < 1e-4
    plain = Augmentation(48, "both")
    on_gpu, on_cpu = (augmented(smooth(20).to(device), plain, generator()).cpu() for device in ("cuda", "cpu"))
    assert float((on_gpu - on_cpu)[..., 2:-2, 2:-2].abs().max()) * 255 < 1.5
