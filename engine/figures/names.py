"""The numbers of the figures and what each shows, for help and choices; imports nothing, so a command line is quick."""

from __future__ import annotations

TABLES_NAME = "tables"
FIGURE_NAMES = {
    "1": "k-NN on the origin domain before and after; final similarity by method",
    "2": "similarity space: M_X against A_X, T_X(η, ε), Pareto front",
    "3": "attention maps of θ* and of one run (--run, --layer)",
    "4": "similarity and score by epoch; final similarity over the seeds",
    "5": "similarity against a quality metric (--metric)",
    TABLES_NAME: "final accuracy and similarity: mean ± sd by backbone and method",
}
