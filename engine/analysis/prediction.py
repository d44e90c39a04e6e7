"""Owns predicting early: which runs will end inside T_X(η, ε), told from their first epochs, and how often that fails.

About 400 lines, as what is learned, how it is judged and what must be said beside it are one protocol.
A model that only learned which methods end inside would look good and say nothing of the first epochs. So backbone and
method are not among its features: the share inside of the same backbone and method is what it has to beat.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from engine.analysis import bootstrap
from engine.analysis.distribution import DECIMALS, as_compared
from engine.analysis.estimators import column_of, notes_on
from engine.analysis.options import TableOptions
from engine.analysis.space import Space, space
from engine.analysis.study_data import RunData, StudyData
from engine.analysis.table import Cell, Spread, Table
from engine.errors import StudyError
from engine.runs.record import State

PENALTY = 1.0
FEATURES = ("similarity", "score below the best", "change of similarity", "change of score")
PREDICTORS = ("model", "majority class", "share by backbone and method")
_BEST = "the best run of the same backbone and dataset, of any seed"
_SURE_FROM = 6  # seeds that all agree: below, a sign test (two-sided) has p > 0.05


@dataclass(frozen=True, eq=False)
class Model:
    """What was learned from the training runs of one fold, and from nothing else.

    Attributes:
        best: the best score at the epoch looked at, by place of `(backbone, dataset)`, NaN without a training run.
        centre, scale: mean and standard deviation of each feature, `(n_features,)`; scale 1 without spread.
        coefficients: of the standardised features, `(n_features,)`; 0 where all training runs were of one class.
        intercept: in log odds.
        is_of_one_class: all training runs were inside, or none; the intercept is then that of (inside + 1) / (n + 2).
    """

    best: np.ndarray
    centre: np.ndarray
    scale: np.ndarray
    coefficients: np.ndarray
    intercept: float
    is_of_one_class: bool


@dataclass(frozen=True)
class Forecast:
    """One run: what it had come to at the epoch looked at, and what that says of its end; None for what there is not.

    Attributes:
        similarity, score: at the epoch looked at.
        probability_inside: by a model that saw no run of this seed, or, of a run under way, by one of all runs done.
        probability_by_method: the share inside of the same backbone and method among the runs that this model saw.
        is_inside: how it did end.
    """

    run: RunData
    similarity: float | None
    score: float | None
    probability_inside: float | None = None
    probability_by_method: float | None = None
    is_inside: bool | None = None

    @property
    def is_predicted_inside(self) -> bool | None:
        """Whether the model gives it one half or more."""
        return None if self.probability_inside is None else bool(_says_inside(np.array(self.probability_inside)))


@dataclass(frozen=True)
class Failure:
    """How wrong a predictor is on seeds it has not seen: mean over seeds with its 95 % interval, lower is better.

    Attributes:
        error: share of the runs of a seed whose class is predicted wrongly, in [0, 1].
        brier: mean squared distance of the probability from 0 or 1, in [0, 1]. Source: Brier 1950, two classes.
        difference: error of the model − this error on the same seed, in [-1, 1]; below 0 the model is better.
    """

    error: Spread
    brier: Spread
    difference: Spread


@dataclass(frozen=True)
class Prediction:
    """Every run's forecast, and how good such forecasts have been.

    Attributes:
        found: the space that the classes come from.
        forecasts: in order of the study, one for each run that has results.
        failures: of each of `PREDICTORS`, on the same runs; empty where nothing could be judged.
        models: by the seed that each was kept from.
        why_none: why there are no forecasts, or none that can be judged; empty where there are.
        left_out: why a run has no forecast -> how many have none.
    """

    found: Space
    forecasts: tuple[Forecast, ...]
    failures: Mapping[str, Failure] = field(default_factory=dict)
    models: Mapping[int, Model] = field(default_factory=dict)
    why_none: str = ""
    left_out: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class _Early:
    """All runs of the study as arrays, `(n_runs,)` or, at epoch 1 and at the epoch looked at, `(n_runs, 2)`.

    `obstacles` say why a run cannot be used, empty where it can; `is_inside` is NaN where it is not known; `pretrained`
    and `group` number the pairs of backbone and dataset, and of backbone and method.
    """

    similarity: np.ndarray
    score: np.ndarray
    is_inside: np.ndarray
    is_done: np.ndarray
    seed: np.ndarray
    pretrained: np.ndarray
    group: np.ndarray
    obstacles: tuple[str, ...]
    has_change: bool

    def features(self, best: np.ndarray) -> np.ndarray:
        """`FEATURES`, `(n_runs, 4)`, or the first two where the epoch looked at is the first."""
        now = [self.similarity[:, 1], self.score[:, 1] - best[self.pretrained]]
        change = [self.similarity[:, 1] - self.similarity[:, 0], self.score[:, 1] - self.score[:, 0]]
        return as_compared(np.column_stack(now + (change if self.has_change else [])))


def prediction(data: StudyData, options: TableOptions) -> Prediction:
    """Forecasts of every run: one seed is left out at a time, and its runs are predicted by a model of all others.

    Raises:
        StudyError: as `space`; `options.until` is below 1, or no run has an epoch after it.
    """
    found = space(data, options)
    _check_until(data, options.until)
    early = _early(data, options, found)
    is_usable = np.array([not each for each in early.obstacles], bool)
    is_known = is_usable & np.isfinite(early.is_inside)
    shares = np.full((len(data.runs), len(PREDICTORS)), np.nan)
    models: dict[int, Model] = {}
    why_none = _why_none(early, is_known)
    if not why_none:
        for seed in np.unique(early.seed[is_usable & early.is_done]).tolist():
            is_of_seed = early.seed == seed
            models[seed] = _forecast(early, is_known & ~is_of_seed, is_usable & early.is_done & is_of_seed, shares)
        _forecast(early, is_known, is_usable & ~early.is_done, shares)
        if len(np.unique(early.seed[is_known & np.isfinite(shares[:, 0])])) < 2:
            why_none = "the best of the same backbone and dataset is known from other seeds for fewer than 2 seeds"
    has_none = is_usable & ~np.isfinite(shares[:, 0])
    left_out = Counter(each for each in early.obstacles if each)
    if models and has_none.any():
        left_out["without a run of the same backbone and dataset to learn from"] = int(has_none.sum())
    failures = _failures(early, is_known & ~has_none, shares) if not why_none else {}
    return Prediction(found, _forecasts(data.runs, early, shares), failures, models, why_none, left_out)


def logistic_regression(x: np.ndarray, y: np.ndarray, penalty: float = PENALTY) -> tuple[np.ndarray, float]:
    """Least Σ log loss + penalty / 2 · ‖w‖², the intercept without penalty, by Newton's method with halved steps.

    Its own code, as scikit-learn takes seconds to load, scipy.optimize 0.4 s, and a table needs one fit a seed.

    Args:
        x: `(n, d)` float64, finite.
        y: `(n,)` of 0 and 1, both present.
        penalty: above 0; 1 / C of scikit-learn.
    Returns:
        Coefficients `(d,)` and intercept, exact to about 1e-9.
    """
    design = np.column_stack([x, np.ones(len(x))])
    ridge = np.append(np.full(x.shape[1], penalty), 0.0)

    def loss(weights: np.ndarray) -> float:
        z = design @ weights
        return float(np.sum(np.logaddexp(0, z) - y * z) + ridge @ weights**2 / 2)

    weights = np.zeros(design.shape[1])
    for _ in range(100):
        p = _logistic(design @ weights)
        slope = design.T @ (p - y) + ridge * weights
        step = np.linalg.solve((design.T * (p * (1 - p))) @ design + np.diag(ridge), slope)
        limit = loss(weights)
        limit += 1e-12 * (1 + limit)
        while loss(weights - step) > limit:
            step /= 2
        weights = weights - step
        if np.abs(step).max() < 1e-9:
            break
    return weights[:-1], float(weights[-1])


def prediction_table(data: StudyData, options: TableOptions) -> Table:
    """One row a run that has results, in order of the study; how good the forecasts are stands in the notes.

    Raises:
        StudyError: as `prediction`.
    """
    made = prediction(data, options)
    rows: list[tuple[Cell, ...]] = []
    for each in made.forecasts:
        record = each.run.record
        rows.append(
            (
                record.run_id, record.spec.backbone.name, record.spec.method, record.spec.seed, record.state.value,
                options.until, each.similarity, each.score, each.probability_inside,
                _yes_no(each.is_predicted_inside), _yes_no(each.is_inside), each.probability_by_method,
            )
        )  # fmt: skip
    columns = (
        "run", "backbone", "method", "seed", "state", "until", column_of(made.found.key), made.found.metric,
        "probability_inside", "predicted", "actual", "probability_by_method",
    )  # fmt: skip
    estimators = notes_on(data.records, [made.found.key.measure], made.found.key.probe)
    notes = (
        *_definitions(made, options),
        *_verdict(made),
        *_left_out(made),
        *estimators,
        *data.notes(made.found.key, made.found.layer),
    )
    return Table("prediction", columns, tuple(rows), notes)


def _check_until(data: StudyData, until: int) -> None:
    last = max((record.spec.epochs for record in data.records), default=until + 1)
    fix = f"give 1 to {last - 1}" if last > 1 else "predict in a study of 2 epochs or more"
    if until < 1:
        raise StudyError("until", f"the first epoch of training is 1 (seen {until})", fix if data.runs else "give 1")
    if until >= last:
        raise StudyError("until", f"the last epoch is {last}, so nothing is left to predict (seen {until})", fix)


def _early(data: StudyData, options: TableOptions, found: Space) -> _Early:
    runs, epochs = data.runs, (1, options.until)
    is_inside = {id(run): float(each) for run, each in zip(found.runs, found.is_inside, strict=True)}
    specs = [run.record.spec for run in runs]
    similarity = _at([run.similarity(found.key, options.layer) for run in runs], epochs)
    score = _at([run.metric(found.metric) for run in runs], epochs)
    is_finite = np.isfinite(similarity).all(axis=1) & np.isfinite(score).all(axis=1)
    return _Early(
        similarity, score,
        np.array([is_inside.get(id(run), np.nan) for run in runs], np.float64),
        np.array([run.is_done for run in runs], bool),
        np.array([spec.seed for spec in specs], int),
        _numbered([(spec.backbone.name, spec.dataset) for spec in specs]),
        _numbered([(spec.backbone.name, spec.method) for spec in specs]),
        tuple(_obstacle(run, options.until, finite) for run, finite in zip(runs, is_finite.tolist(), strict=True)),
        options.until > 1,
    )  # fmt: skip


def _obstacle(run: RunData, until: int, is_finite: bool) -> str:
    """Why there is no forecast for this run; empty where nothing is in the way."""
    if run.record.state is State.FAILED:
        return "failed"
    if run.n_epochs <= until or run.record.spec.epochs <= until:
        return f"not at epoch {until} yet, or without an epoch after it"
    return "" if is_finite else f"without similarity or score at epoch 1 or {until} (undefined, or not measured)"


def _at(curves: Sequence[np.ndarray], epochs: Sequence[int]) -> np.ndarray:
    """`(n_runs, n_epochs)`; NaN where a curve is too short."""
    values = [[curve[epoch] if epoch < len(curve) else np.nan for epoch in epochs] for curve in curves]
    return np.array(values, np.float64).reshape(len(curves), len(epochs))


def _numbered(names: Sequence[tuple[str, str]]) -> np.ndarray:
    numbers: dict[tuple[str, str], int] = {}
    return np.array([numbers.setdefault(each, len(numbers)) for each in names], int)


def _why_none(early: _Early, is_known: np.ndarray) -> str:
    n_seeds = len(np.unique(early.seed[is_known]))
    if n_seeds < 2:
        return f"one seed is left out at a time, so that 2 are needed (seen {n_seeds} with finished runs)"
    if len(classes := np.unique(early.is_inside[is_known])) < 2:
        which = "all" if classes[0] else "none"
        return f"{which} of the {is_known.sum()} finished runs ended inside, so there is nothing to tell apart"
    return ""


def _forecast(early: _Early, is_seen: np.ndarray, is_held: np.ndarray, shares: np.ndarray) -> Model:
    """Learns from the runs that are seen, and writes what each of `PREDICTORS` gives the others into `shares`."""
    model = _model(early, is_seen)
    x = (early.features(model.best)[is_held] - model.centre) / model.scale
    overall = float(early.is_inside[is_seen].mean())
    groups = early.group[is_seen]
    n = np.bincount(groups, minlength=len(early.group))
    n_inside = np.bincount(groups, early.is_inside[is_seen], len(early.group))
    by_group = np.where(n > 0, n_inside / np.maximum(n, 1), overall)
    with np.errstate(invalid="ignore"):  # NaN where there is no best to be held against
        shares[is_held, 0] = _logistic(x @ model.coefficients + model.intercept)
    shares[is_held, 1] = overall
    shares[is_held, 2] = by_group[early.group[is_held]]
    return model


def _model(early: _Early, is_seen: np.ndarray) -> Model:
    """Everything is learned here, the best score of each pre-trained model and the scale of each feature too."""
    best = np.full(len(early.seed), -np.inf)
    np.maximum.at(best, early.pretrained[is_seen], early.score[is_seen, 1])
    best[np.isinf(best)] = np.nan
    x, y = early.features(best)[is_seen], early.is_inside[is_seen]
    centre, scale = x.mean(axis=0), np.where(np.ptp(x, axis=0) > 0, x.std(axis=0), 1.0)
    if 0 < y.mean() < 1:
        return Model(best, centre, scale, *logistic_regression((x - centre) / scale, y), is_of_one_class=False)
    odds = (y.sum() + 1) / (len(y) - y.sum() + 1)
    return Model(best, centre, scale, np.zeros(x.shape[1]), float(np.log(odds)), is_of_one_class=True)


def _logistic(z: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0, -z))


def _says_inside(shares: np.ndarray) -> np.ndarray:
    return as_compared(shares) >= 0.5


def _failures(early: _Early, is_judged: np.ndarray, shares: np.ndarray) -> dict[str, Failure]:
    """The error and the Brier score of each predictor, of each seed as one value."""
    truth, given = early.is_inside[is_judged, None], shares[is_judged]
    error = (_says_inside(given) != (truth == 1)).astype(np.float64)
    each = np.column_stack([error, (given - truth) ** 2, error[:, :1] - error])
    seeds, place = np.unique(early.seed[is_judged], return_inverse=True)
    totals = np.zeros((len(seeds), each.shape[1]))
    np.add.at(totals, place, each)
    by_seed = totals / np.bincount(place)[:, None]
    low, high = bootstrap.mean_interval(by_seed)
    spreads = [Spread.of(by_seed[:, i].tolist()).within(low[i], high[i]) for i in range(each.shape[1])]
    n = len(PREDICTORS)
    return {name: Failure(spreads[i], spreads[n + i], spreads[2 * n + i]) for i, name in enumerate(PREDICTORS)}


def _forecasts(runs: Sequence[RunData], early: _Early, shares: np.ndarray) -> tuple[Forecast, ...]:
    figures = np.column_stack([early.similarity[:, 1], early.score[:, 1], shares[:, 0], shares[:, 2], early.is_inside])
    cells = [[value if np.isfinite(value) else None for value in row] for row in figures.tolist()]
    return tuple(
        Forecast(run, similarity, score, share, None if share is None else by_method, None if end is None else end == 1)
        for run, (similarity, score, share, by_method, end) in zip(runs, cells, strict=True)
    )


def _definitions(made: Prediction, options: TableOptions) -> tuple[str, ...]:
    found, until = made.found, options.until
    features = ", ".join(FEATURES if until > 1 else FEATURES[:2])
    return (
        f"inside: M_X ≥ η = {found.eta:g} and A_X ≤ ε = {found.epsilon:g} at the last epoch, compared at {DECIMALS} "
        f"decimals; M_X: {column_of(found.key)}, {found.layer}; A_X: reference − {found.metric}; reference: "
        f"{options.reference or _BEST}",
        f"{column_of(found.key)} and {found.metric}: at epoch {until}; nothing after it is a feature",
        f"probability_inside: logistic regression on {features}, at epoch {until}, changes since epoch 1; standardised "
        f"by mean and sd, L2 penalty {PENALTY:g} / 2 · ‖w‖² on the summed log loss; the best: of the same backbone and "
        "dataset, among the runs learned from",
        "backbone and method are not among the features: what they alone tell is probability_by_method, the share "
        "inside of the same backbone and method among the runs learned from (of all of these where it has none)",
        "learned from: the runs done of all other seeds; for a run under way, all runs done; predicted: yes from 0.5; "
        "what is learned leans against the seed left out, so that near one half a share does worse than chance",
    )  # fmt: skip


def _verdict(made: Prediction) -> tuple[str, ...]:
    if made.why_none:
        return (f"no forecast that could be judged: {made.why_none}",)
    if not made.failures:
        return ()
    n_seeds = made.failures["model"].error.n
    lines = [
        f"{name}: error {_said(each.error)}, Brier score {_said(each.brier)}" for name, each in made.failures.items()
    ]
    is_beaten = {name: round(made.failures[name].difference.high or 0.0, DECIMALS) < 0 for name in PREDICTORS[1:]}
    verdict = "the model beats both trivial predictors" if all(is_beaten.values()) else (
        "the model does not beat " + " nor ".join(name for name, each in is_beaten.items() if not each)
    )  # fmt: skip
    gains = "; ".join(f"its error − that of {name}: {_said(made.failures[name].difference)}" for name in is_beaten)
    doubt = f"; from {n_seeds} seeds this is no proof" if n_seeds < _SURE_FROM else ""
    n_single = sum(model.is_of_one_class for model in made.models.values())
    return (
        *lines, f"{verdict}: {gains}{doubt}",
        f"over {n_seeds} seeds, each as one value; in brackets the 95 % interval of the mean (bootstrap BCa, "
        f"{bootstrap.N_RESAMPLES:,} resamples; too narrow with few seeds); better: the interval lies below 0",
        *([f"{n_single} of {len(made.models)} seeds: all runs learned from are of one class, so the model says "
           "(number inside + 1) / (number + 2)"] if n_single else []),
    )  # fmt: skip


def _said(spread: Spread) -> str:
    mean, low, high = (f"{round(each or 0.0, 3) + 0.0:.3f}" for each in (spread.mean, spread.low, spread.high))  # no −0
    return f"{mean} ({low} to {high})"


def _left_out(made: Prediction) -> tuple[str, ...]:
    n = len(made.forecasts)
    reasons = tuple(f"no forecast: {count} of {n} runs, {reason}" for reason, count in made.left_out.items())
    return (*reasons, *((made.found.left_out,) if made.found.left_out else ()))


def _yes_no(value: bool | None) -> str | None:
    return None if value is None else "yes" if value else "no"
