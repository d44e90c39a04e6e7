"""The table of figures: the number that a user gives, the name of the file, and what draws it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from engine.analysis.options import TableOptions
from engine.figures.attention import draw_attention
from engine.figures.correlation import draw_correlation
from engine.figures.drawing import Drawing, Source
from engine.figures.forgetting import draw_forgetting
from engine.figures.space import draw_space
from engine.figures.trajectories import draw_trajectories


@dataclass(frozen=True)
class FigureKind:
    """One of the paper's figures."""

    file_stem: str
    draw: Callable[[Source, TableOptions], Drawing]


FIGURES: Mapping[str, FigureKind] = {
    "1": FigureKind("figure1_forgetting", draw_forgetting),
    "2": FigureKind("figure2_space", draw_space),
    "3": FigureKind("figure3_attention", draw_attention),
    "4": FigureKind("figure4_trajectories", draw_trajectories),
    "5": FigureKind("figure5_correlation", draw_correlation),
}
