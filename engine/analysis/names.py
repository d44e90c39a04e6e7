"""The name of every table, what it holds and what it can be asked for; imports nothing, so that a command is quick."""

from __future__ import annotations

TABLE_NAMES = {
    "runs": "one row a run: where it stands and its last figures",
    "heatmap": "layer × layer similarity of one run at one epoch, or of two (--run, --epoch, --interval, --beside)",
    "quality": "quality of every layer of one run at every epoch (--run)",
    "trajectory": "similarity and score at every epoch: mean, sd and 95 % interval over seeds",
    "epochs": "the single runs behind the trajectories: one row an epoch of each run",
    "layers": "which layers moved most, when, and in which runs",
    "diagonal": "similarity of each layer to itself in the pre-trained model at every epoch",
    "space": "one row a run: similarity, accuracy divergence, inside T_X(η, ε), Pareto front",
    "space_counts": "how many runs of each group are inside T_X(η, ε)",
    "distribution": "final similarity and score of each group: spread and quantiles",
    "comparison": "every two methods: Cliff's delta, Mann–Whitney (pairs: Wilcoxon), corrected by Holm",
    "methods": "each method beside full: score, similarity, forgetting, runs inside T_X(η, ε), with effect sizes",
    "correlation": "similarity against a quality metric: Pearson, Spearman, both fits (--metric, --over)",
    "correlation_intervals": "the means over intervals of similarity, as in the paper's figure 5",
    "correlation_points": "the points behind the correlation",
    "forgetting": "k-NN on the origin domain before and after, with similarity on both domains (--by)",
    "attention": "entropy, attention distance and likeness of attention maps, by layer",
    "attention_map": "one image's attention by patch: before, after, difference (--run, --image, --layer, --head)",
    "prediction": "which runs will end inside T_X(η, ε), told from the first epochs (--until)",
}

_SIMILARITY = ("layer", "pooling", "measure", "probe")
_SPACE = (*_SIMILARITY, "eta", "epsilon", "reference")
_CORRELATION = (*_SIMILARITY, "metric", "over", "width", "min_count")
# The fields of `options.TableOptions` that each table goes by.
TABLE_USES = {
    "runs": (),
    "heatmap": ("run", "epoch", "pooling", "measure", "probe", "interval", "beside"),
    "quality": ("run", "pooling"),
    "trajectory": (*_SIMILARITY, "by"),
    "epochs": _SIMILARITY,
    "layers": (*_SIMILARITY[1:], "by"),
    "diagonal": (*_SIMILARITY[1:], "by"),
    "space": _SPACE,
    "space_counts": (*_SPACE, "by"),
    "distribution": (*_SIMILARITY, "by"),
    "comparison": (*_SIMILARITY, "by"),
    "methods": _SPACE,
    "correlation": (*_CORRELATION, "by"),
    "correlation_intervals": _CORRELATION,
    "correlation_points": _CORRELATION,
    "forgetting": ("by",),
    "attention": ("by",),
    "attention_map": ("run", "layer", "pooling", "image", "head"),
    "prediction": (*_SPACE, "until"),
}
