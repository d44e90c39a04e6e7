"""Draws one dermoscopy-like image of a class; knows nothing of datasets or files, and claims nothing medical.

A class is a row of `TRAITS`: how its lesions tend to be shaped and coloured, and how often each structure shows. Light
is absorbed by melanin, blood and deep pigment over a skin tone (Beer-Lambert), so colours mix as they do in skin.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

WIDTH, HEIGHT = 600, 450
COARSE = 2  # the lesion is drawn at half the size and enlarged: it has no finer structure; hairs are drawn at full size
MAX_MIXING = 0.4  # the share of another class's traits that an untypical lesion may have

MELANIN = np.array([0.55, 1.0, 1.35], np.float32)  # absorption of red, green, blue
BLOOD = np.array([0.12, 1.0, 0.8], np.float32)
DEEP = np.array([1.3, 0.85, 0.45], np.float32)


@dataclass(frozen=True)
class Traits:
    """The first six are magnitudes in [0, 1]; the others are chances that a lesion shows the structure."""

    size: float
    irregularity: float
    softness: float
    darkness: float
    redness: float
    variegation: float
    network: float = 0.05
    globules: float = 0.05
    milia: float = 0.02
    vessels: float = 0.05
    blue: float = 0.02
    scar: float = 0.02
    scales: float = 0.02
    ridges: float = 0.02
    lacunae: float = 0.01


TRAITS: Mapping[str, Traits] = {
    "MEL": Traits(0.8, 0.85, 0.25, 0.85, 0.15, 0.9, network=0.45, globules=0.4, blue=0.7, scar=0.15, vessels=0.1),
    "NV": Traits(0.45, 0.15, 0.45, 0.5, 0.1, 0.2, network=0.6, globules=0.35),
    "BCC": Traits(0.5, 0.45, 0.6, 0.08, 0.5, 0.4, vessels=0.9, blue=0.5, globules=0.15, scar=0.15, scales=0.1),
    "AKIEC": Traits(0.8, 0.55, 0.9, 0.08, 0.85, 0.4, scales=0.9, milia=0.2, vessels=0.2),
    "BKL": Traits(0.7, 0.5, 0.08, 0.28, 0.05, 0.4, milia=0.7, ridges=0.85, globules=0.15, scales=0.1),
    "DF": Traits(0.3, 0.15, 0.8, 0.3, 0.35, 0.2, scar=0.95, network=0.4, vessels=0.1),
    "VASC": Traits(0.35, 0.3, 0.2, 0.08, 1.0, 0.3, lacunae=0.95, blue=0.3),
}


@dataclass
class _Sheet:
    """What the layers draw on: maps `(h, w)` float32 of the absorbers and of white cover, and where the lesion is."""

    rng: np.random.Generator
    x: np.ndarray
    y: np.ndarray
    radius: float
    depth: np.ndarray  # 1 at the centre of the lesion, 0 on its border, negative outside
    inside: np.ndarray  # soft mask of the lesion
    melanin: np.ndarray
    blood: np.ndarray
    deep: np.ndarray
    white: np.ndarray


def draw_lesion(name: str, rng: np.random.Generator) -> np.ndarray:
    """An image `(450, 600, 3)` uint8 of class `name`, one of `TRAITS`."""
    traits = _individual(name, rng)
    sheet = _outline(traits, rng)
    _pigment(traits, sheet)
    for chance, layer in (
        (traits.network, _network),
        (traits.globules, _globules),
        (traits.ridges, _ridges),
        (traits.blue, _blue_veil),
        (traits.lacunae, _lacunae),
        (traits.scar, _scar),
        (traits.scales, _scales),
        (traits.vessels, _vessels),
        (traits.milia, _milia),
    ):
        if rng.random() < chance:
            layer(sheet)
    image = Image.fromarray(_develop(sheet)).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    if rng.random() < 0.6:
        image = _with_hairs(image, rng)
    if rng.random() < 0.15:
        _draw_ruler(image, rng)
    return np.asarray(image)


def _individual(name: str, rng: np.random.Generator) -> Traits:
    """The traits of one lesion: its class's, mixed with another class's, and jittered."""
    names = list(TRAITS)
    other = TRAITS[names[rng.integers(len(names))]]
    share = MAX_MIXING * rng.random() ** 2
    mixed = (1 - share) * np.array(astuple(TRAITS[name])) + share * np.array(astuple(other))
    mixed[:6] += rng.normal(0, 0.1, 6)
    return Traits(*np.clip(mixed, 0, 1).tolist())


def _smooth(rng: np.random.Generator, n_cells: int, shape: tuple[int, int]) -> np.ndarray:
    """Smooth noise `shape` float32, about unit variance, whose blobs are about an `n_cells`-th of the width."""
    grid = rng.standard_normal((max(2, n_cells * 3 // 4), n_cells), dtype=np.float32)
    return np.asarray(Image.fromarray(grid).resize(shape[::-1], Image.Resampling.BICUBIC)) * np.float32(1.3)


def _outline(traits: Traits, rng: np.random.Generator) -> _Sheet:
    height, width = HEIGHT // COARSE, WIDTH // COARSE
    x = (np.arange(width, dtype=np.float32)[None, :] - width / 2) / height - np.float32(rng.normal(0, 0.05))
    y = (np.arange(height, dtype=np.float32)[:, None] - height / 2) / height - np.float32(rng.normal(0, 0.04))
    turn, stretch = rng.uniform(0, 2 * np.pi), np.exp(rng.uniform(0, 0.3))
    across = (np.cos(turn) * x + np.sin(turn) * y) * np.float32(stretch)
    along = (np.cos(turn) * y - np.sin(turn) * x) / np.float32(stretch)
    radius = 0.15 + 0.25 * traits.size
    angle = np.linspace(-np.pi, np.pi, 361)
    border = np.ones_like(angle)
    for order in range(2, 12):
        amplitude = 0.35 * traits.irregularity / order**0.9 * rng.normal()
        border += amplitude * np.cos(order * angle + rng.uniform(0, 2 * np.pi))
    at = np.interp(np.arctan2(along, across), angle, np.clip(border, 0.35, 1.8)).astype(np.float32)
    depth = 1 - np.hypot(across, along) / (np.float32(radius) * at)
    depth += np.float32(0.06 * traits.irregularity) * _smooth(rng, 24, depth.shape)
    inside = 1 / (1 + np.exp(np.clip(-depth / np.float32(0.02 + 0.16 * traits.softness), -30, 30)))
    melanin, blood, deep, white = (np.zeros((height, width), np.float32) for _ in range(4))
    return _Sheet(rng, x, y, radius, depth, inside, melanin, blood, deep, white)


def _pigment(traits: Traits, sheet: _Sheet) -> None:
    rng, shape = sheet.rng, sheet.depth.shape
    clouds = 1 + np.float32(0.65 * traits.variegation) * _smooth(rng, 8, shape)
    side = rng.uniform(0, 2 * np.pi)  # one half of an uneven lesion is darker
    clouds += np.float32(1.2 * traits.variegation) * (np.cos(side) * sheet.x + np.sin(side) * sheet.y)
    sheet.melanin += sheet.inside * np.clip(clouds, 0.1, 2.5) * np.float32(0.15 + 1.25 * traits.darkness)
    redness = 1 + np.float32(0.4) * _smooth(rng, 7, shape)
    sheet.blood += sheet.inside * np.clip(redness, 0.1, 2) * np.float32(1.2 * traits.redness)


def _network(sheet: _Sheet) -> None:
    """Pigment network: a honeycomb of darker lines, warped, strongest towards the border."""
    rng, shape = sheet.rng, sheet.depth.shape
    frequency = np.float32(2 * np.pi * rng.uniform(9, 15))
    u = sheet.x + np.float32(0.02) * _smooth(rng, 10, shape)
    v = sheet.y + np.float32(0.02) * _smooth(rng, 10, shape)
    waves = sum(np.cos(frequency * np.float32(np.cos(a)) * u + frequency * np.float32(np.sin(a)) * v) for a in _THIRDS)
    lines = np.clip(0.5 - waves, 0, 1.5)
    patchy = np.clip(0.6 + 0.5 * _smooth(rng, 6, shape), 0, 1)
    sheet.melanin += sheet.inside * lines * patchy * np.float32(rng.uniform(0.4, 0.7))


def _globules(sheet: _Sheet) -> None:
    mask = _spots(sheet, int(sheet.rng.integers(12, 36)), (3.0, 6.0))
    sheet.melanin += mask * np.float32(sheet.rng.uniform(0.6, 1.2))


def _ridges(sheet: _Sheet) -> None:
    """Brain-like furrows: contour lines of smooth noise."""
    bands = np.sin(
        np.float32(sheet.rng.uniform(3.5, 5)) * _smooth(sheet.rng, int(sheet.rng.integers(9, 14)), sheet.depth.shape)
    )
    sheet.melanin += sheet.inside * np.clip(bands, 0, 1) * np.float32(sheet.rng.uniform(0.3, 0.6))


def _blue_veil(sheet: _Sheet) -> None:
    patch = np.clip(_smooth(sheet.rng, int(sheet.rng.integers(5, 9)), sheet.depth.shape), 0, 1.5)
    sheet.deep += sheet.inside * patch * np.float32(sheet.rng.uniform(0.4, 0.9))


def _lacunae(sheet: _Sheet) -> None:
    """Red to purple lakes."""
    mask = _spots(sheet, int(sheet.rng.integers(6, 22)), (5.0, 13.0))
    sheet.blood += mask * np.float32(sheet.rng.uniform(0.7, 1.4))
    sheet.deep += mask * np.float32(sheet.rng.uniform(0.0, 0.5))


def _scar(sheet: _Sheet) -> None:
    """A white centre."""
    centre = np.clip((sheet.depth - np.float32(sheet.rng.uniform(0.3, 0.5))) * 3, 0, 1)
    uneven = np.clip(0.8 + 0.3 * _smooth(sheet.rng, 14, sheet.depth.shape), 0, 1)
    sheet.white += centre * uneven * np.float32(sheet.rng.uniform(0.35, 0.7))


def _scales(sheet: _Sheet) -> None:
    """Yellow-white flakes."""
    flakes = _smooth(sheet.rng, int(sheet.rng.integers(22, 40)), sheet.depth.shape) - np.float32(0.7)
    sheet.white += sheet.inside * np.clip(flakes, 0, 1) * np.float32(sheet.rng.uniform(0.5, 0.9))


def _milia(sheet: _Sheet) -> None:
    """Small bright cysts and small dark openings."""
    sheet.white += _spots(sheet, int(sheet.rng.integers(10, 26)), (2.5, 5.0)) * np.float32(sheet.rng.uniform(0.5, 0.8))
    sheet.melanin += _spots(sheet, int(sheet.rng.integers(3, 12)), (2.5, 5.0)) * np.float32(0.9)


def _vessels(sheet: _Sheet) -> None:
    """Branching red lines that start within the lesion."""
    rng = sheet.rng
    mask, draw = _blank(sheet)
    for _ in range(int(rng.integers(2, 6))):
        angle, spread = rng.uniform(0, 2 * np.pi), 0.8 * sheet.radius * rng.random()
        start = (spread * np.cos(angle), spread * np.sin(angle))
        _branch(draw, sheet, start, rng.uniform(0, 2 * np.pi), sheet.radius * rng.uniform(0.8, 1.4), 5)
    cover = np.asarray(mask.filter(ImageFilter.GaussianBlur(0.6)), dtype=np.float32) / 255
    sheet.blood += cover * np.float32(rng.uniform(0.8, 1.3))


def _branch(
    draw: ImageDraw.ImageDraw, sheet: _Sheet, start: tuple[float, float], angle: float, length: float, width: int
) -> None:
    rng, points = sheet.rng, [start]
    for _ in range(8):
        angle += rng.normal(0, 0.3)
        x, y = points[-1]
        points.append((x + length / 8 * np.cos(angle), y + length / 8 * np.sin(angle)))
        if width > 2 and rng.random() < 0.35:
            _branch(draw, sheet, points[-1], angle + rng.choice([-0.8, 0.8]), length * 0.6, width - 2)
    draw.line([_pixel(sheet, point) for point in points], fill=255, width=width, joint="curve")


def _spots(sheet: _Sheet, n: int, radii: tuple[float, float]) -> np.ndarray:
    """`n` soft ellipses scattered over the lesion; `radii` in pixels of the sheet."""
    rng = sheet.rng
    mask, draw = _blank(sheet)
    for angle, share, r, flat in zip(
        rng.uniform(0, 2 * np.pi, n), rng.random(n) ** 0.5, rng.uniform(*radii, n), rng.uniform(0.7, 1, n), strict=True
    ):
        reach = 0.85 * sheet.radius * share
        x, y = _pixel(sheet, (reach * np.cos(angle), reach * np.sin(angle)))
        draw.ellipse((x - r, y - r * flat, x + r, y + r * flat), fill=int(rng.integers(140, 256)))
    blurred = mask.filter(ImageFilter.GaussianBlur(0.25 * radii[0] + 0.4))
    return np.asarray(blurred, dtype=np.float32) / 255 * np.clip(sheet.inside * 1.5, 0, 1)


def _blank(sheet: _Sheet) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    mask = Image.new("L", sheet.depth.shape[::-1])
    return mask, ImageDraw.Draw(mask)


def _pixel(sheet: _Sheet, point: tuple[float, float]) -> tuple[float, float]:
    """From coordinates about the lesion's centre, in image heights, to pixels of the sheet."""
    height = sheet.depth.shape[0]
    return (point[0] - float(sheet.x[0, 0])) * height, (point[1] - float(sheet.y[0, 0])) * height


def _develop(sheet: _Sheet) -> np.ndarray:
    """Absorbers to pixels `(h, w, 3)` uint8: skin tone, mottling, white cover, light, vignette, noise."""
    rng, shape = sheet.rng, sheet.depth.shape
    tone = rng.random() ** 1.5
    skin = np.array([236, 190, 172], np.float32) * np.exp(-MELANIN * np.float32(0.45 * tone))
    skin *= np.float32(1) + rng.normal(0, 0.03, 3).astype(np.float32)
    blood = sheet.blood + np.clip(0.12 + 0.045 * _smooth(rng, 9, shape), 0, 1) * np.float32(rng.uniform(0.2, 0.9))
    melanin = sheet.melanin + np.clip(0.05 * _smooth(rng, 30, shape), 0, 1)
    density = melanin[..., None] * MELANIN + blood[..., None] * BLOOD + sheet.deep[..., None] * DEEP
    image = skin * np.exp(-density)
    white = np.clip(sheet.white, 0, 0.9)[..., None]
    image = image * (1 - white) + np.array([244, 230, 214], np.float32) * white
    angle, tilt = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.2)
    light = 1 + np.float32(tilt) * (np.cos(angle) * sheet.x + np.sin(angle) * sheet.y)
    distance = np.hypot(sheet.x, sheet.y)
    if rng.random() < 0.6:
        light = light * (1 - np.float32(rng.uniform(0.2, 0.9)) * np.clip(distance - 0.35, 0, 1) ** 2)
    if rng.random() < 0.12:  # the dark ring of the dermoscope
        light = light * np.clip((np.float32(rng.uniform(0.58, 0.7)) - distance) * 40, 0, 1)
    noise = rng.standard_normal((*shape, 1), dtype=np.float32) * np.float32(rng.uniform(1, 4))
    return np.clip(image * (light * np.float32(rng.uniform(0.85, 1.08)))[..., None] + noise, 0, 255).astype(np.uint8)


def _with_hairs(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    mask = Image.new("L", image.size)
    draw = ImageDraw.Draw(mask)
    t = np.linspace(0, 1, 14)[:, None]
    direction = rng.uniform(0, np.pi)
    for _ in range(int(rng.integers(2, 26))):
        middle = rng.uniform((0, 0), image.size)
        angle, length = direction + rng.normal(0, 0.5), rng.uniform(100, 420)
        reach = length / 2 * np.array([np.cos(angle), np.sin(angle)])
        bend = rng.normal(0, 0.2 * length, 2)
        curve = (1 - t) ** 2 * (middle - reach) + 2 * t * (1 - t) * (middle + bend) + t**2 * (middle + reach)
        draw.line(
            [(float(x), float(y)) for x, y in curve], fill=int(rng.integers(150, 256)), width=rng.choice([1, 2, 2, 3])
        )
    tone = tuple(int(value) for value in rng.uniform(0.6, 1.6) * np.array([38, 26, 20]))
    return Image.composite(Image.new("RGB", image.size, tone), image, mask.filter(ImageFilter.BoxBlur(0.6)))


def _draw_ruler(image: Image.Image, rng: np.random.Generator) -> None:
    """Tick marks along the lower or upper edge, every fifth one longer."""
    draw = ImageDraw.Draw(image)
    gap, offset = rng.uniform(12, 22), rng.uniform(0, 20)
    base, sign = (HEIGHT - 1, -1) if rng.random() < 0.5 else (0, 1)
    for tick in range(int((WIDTH - offset) / gap)):
        x = offset + gap * tick
        draw.line([(x, base), (x, base + sign * (26 if tick % 5 == 0 else 14))], fill=(28, 26, 30), width=2)


_THIRDS = (0.0, 2 * np.pi / 3, 4 * np.pi / 3)
