"""Black-and-white patterns that fill the generated scenes; knows nothing of colours, scenes or files.

A texture takes coordinates `u`, `v` `(h, w)` float32 whose unit is one period of the pattern, and a generator for what
is random in it, and says of each point whether it is inked: `(h, w)` bool.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

Texture = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]


def _fraction(x: np.ndarray) -> np.ndarray:
    return x - np.floor(x)


def _polar(u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.hypot(u, v), np.arctan2(v, u) / np.float32(2 * np.pi)


def _scattered(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distances to the nearest and second nearest of points scattered one a cell, and the nearest's number."""
    jitter = rng.random((16, 16, 3), dtype=np.float32)
    column, row = np.floor(u).astype(np.int64), np.floor(v).astype(np.int64)
    du, dv = u - column, v - row
    first, second, mark = np.full_like(u, 9), np.full_like(u, 9), np.zeros_like(u)
    for i in (-1, 0, 1):
        for j in (-1, 0, 1):
            point = jitter[(row + j) % 16, (column + i) % 16]
            squared = (du - i - 0.15 - 0.7 * point[..., 0]) ** 2 + (dv - j - 0.15 - 0.7 * point[..., 1]) ** 2
            nearer = squared < first
            second = np.where(nearer, first, np.minimum(second, squared))
            first = np.where(nearer, squared, first)
            mark = np.where(nearer, point[..., 2], mark)
    return np.sqrt(first), np.sqrt(second), mark


def stripes(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return _fraction(v) < rng.uniform(0.3, 0.6)


def zigzags(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return _fraction(v + 1.2 * np.abs(_fraction(0.6 * u) - 0.5)) < rng.uniform(0.35, 0.55)


def waves(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return _fraction(v + 0.35 * np.sin(np.float32(3.5) * u)) < rng.uniform(0.35, 0.55)


def checks(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return (np.floor(1.4 * u) + np.floor(1.4 * v)) % 2 < 1


def bricks(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    joint = rng.uniform(0.14, 0.24)
    shifted = 0.5 * u + 0.5 * (np.floor(v) % 2)
    return (_fraction(v) > joint) & (_fraction(shifted) > joint / 2)


def net(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    thread = rng.uniform(0.15, 0.3)
    return (_fraction(u) < thread) | (_fraction(v) < thread)


def cells(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    first, second, _ = _scattered(u, v, rng)
    return second - first < rng.uniform(0.12, 0.2)


def bubbles(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    first, _, mark = _scattered(u, v, rng)
    return np.abs(first - 0.2 - 0.2 * mark) < 0.09


def ripples(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    radius, _ = _polar(u, v)
    return _fraction(radius) < rng.uniform(0.35, 0.55)


def rays(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    _, turn = _polar(u, v)
    return _fraction(turn * rng.integers(7, 15)) < rng.uniform(0.35, 0.55)


def spirals(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    radius, turn = _polar(u, v)
    return _fraction(radius + turn * rng.choice([-2, 2])) < rng.uniform(0.35, 0.55)


def maze(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    total = np.zeros_like(u)
    for angle, phase in zip(rng.uniform(0, np.pi, 9), rng.uniform(0, 2 * np.pi, 9), strict=True):
        total += np.sin(np.float32(4.5 * np.cos(angle)) * u + np.float32(4.5 * np.sin(angle)) * v + np.float32(phase))
    return total > 0


TEXTURES: Mapping[str, Texture] = {
    "stripes": stripes, "zigzags": zigzags, "waves": waves, "checks": checks, "bricks": bricks, "net": net,
    "cells": cells, "bubbles": bubbles, "ripples": ripples, "rays": rays, "spirals": spirals, "maze": maze,
}  # fmt: skip
