"""The name of every table and what it holds, for help and choices; imports nothing, so that a command line is quick."""

from __future__ import annotations

TABLE_NAMES = {
    "runs": "one row a run: where it stands and its last figures",
    "heatmap": "layer × layer similarity of one run at one epoch (--run, --epoch)",
    "quality": "quality of every layer of one run at every epoch (--run)",
    "trajectory": "similarity and score at every epoch: mean, sd and 95 % interval over seeds",
    "epochs": "the single runs behind the trajectories: one row an epoch of each run",
    "layers": "which layers moved most, when, and in which runs",
    "diagonal": "similarity of each layer to itself in the pre-trained model at every epoch",
    "space": "one row a run: similarity, accuracy divergence, inside T_X(η, ε), Pareto front",
    "space_counts": "how many runs of each group are inside T_X(η, ε)",
    "distribution": "final similarity and score of each group: spread and quantiles",
    "comparison": "every two methods: Cliff's delta, Mann–Whitney test, corrected by Holm",
    "correlation": "similarity against a quality metric: Pearson, Spearman, both fits (--metric, --over)",
    "correlation_intervals": "the means over intervals of similarity, as in the paper's figure 5",
    "correlation_points": "the points behind the correlation",
    "forgetting": "k-NN on the origin domain before and after, with similarity on both domains (--by)",
    "attention": "entropy, attention distance and likeness of attention maps, by layer",
    "attention_map": "one image's attention by patch: before, after, difference (--run, --image, --layer, --head)",
    "prediction": "which runs will end inside T_X(η, ε), told from the first epochs (--until)",
}
