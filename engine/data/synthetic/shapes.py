"""Outlines of the objects in the generated scenes; knows nothing of colours, scenes or files.

An outline is a closed polygon `(n, 2)` float64 that fits the unit circle. A hole is the inner contour run backwards in
the same polygon, which an even-odd fill leaves open.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

N_ARC = 40  # points of a full circle: rounder than a pixel shows at the sizes of the scenes


def _arc(start: float, stop: float, radius: float = 1.0, n: int = N_ARC) -> np.ndarray:
    angle = np.linspace(start, stop, n)
    return radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _polar(radius_of: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, 2 * N_ARC, endpoint=False)
    radius = radius_of(angle)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def disc() -> np.ndarray:
    return _arc(0, 2 * np.pi)


def ring() -> np.ndarray:
    return np.concatenate([_arc(0, 2 * np.pi), _arc(2 * np.pi, 0, radius=0.55)])


def square() -> np.ndarray:
    return np.array([(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)])


def triangle() -> np.ndarray:
    return _arc(-np.pi / 2, 3 * np.pi / 2, n=4)[:-1]


def star() -> np.ndarray:
    points = _arc(-np.pi / 2, 3 * np.pi / 2, n=11)[:-1]
    points[1::2] *= 0.42
    return points


def cross() -> np.ndarray:
    a, b = 0.3, 0.95
    return np.array(
        [(-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a), (a, b), (-a, b), (-a, a), (-b, a), (-b, -a), (-a, -a)]
    )


def crescent() -> np.ndarray:
    inner = _arc(2 * np.pi - 1.3, 1.3, radius=0.82)
    inner[:, 0] += 0.4
    return np.concatenate([_arc(0.9, 2 * np.pi - 0.9), inner])


def heart() -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, 2 * N_ARC, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return np.stack([x, y], axis=1) / 17


def arrow() -> np.ndarray:
    return np.array(
        [(1.0, 0.0), (0.15, 0.75), (0.15, 0.25), (-0.95, 0.25), (-0.95, -0.25), (0.15, -0.25), (0.15, -0.75)]
    )


def flower() -> np.ndarray:
    return _polar(lambda angle: 0.66 + 0.34 * np.cos(5 * angle))


def leaf() -> np.ndarray:
    t = np.linspace(0, np.pi, N_ARC)
    x, y = np.cos(t), 0.42 * np.sin(t) ** 1.3
    return np.concatenate([np.stack([x, y], axis=1), np.stack([-x, -y], axis=1)[1:-1]])


def bolt() -> np.ndarray:
    return np.array([(0.25, -1.0), (-0.6, 0.15), (-0.05, 0.15), (-0.3, 1.0), (0.6, -0.25), (0.05, -0.25)])


OUTLINES: Mapping[str, Callable[[], np.ndarray]] = {
    "disc": disc, "ring": ring, "square": square, "triangle": triangle, "star": star, "cross": cross,
    "crescent": crescent, "heart": heart, "arrow": arrow, "flower": flower, "leaf": leaf, "bolt": bolt,
}  # fmt: skip
