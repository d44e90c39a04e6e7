"""Early prediction on made-up runs: what is learned, from which runs, how it is judged, and what has no forecast."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from engine.analysis.options import TableOptions
from engine.analysis.prediction import (
    PENALTY,
    PREDICTORS,
    Model,
    Prediction,
    logistic_regression,
    prediction,
    prediction_table,
)
from engine.analysis.study_data import RunData, StudyData
from engine.analysis.table import Spread, Table
from engine.errors import StudyError
from engine.export import to_csv
from engine.runs.record import State
from tests.engine.analysis.made_runs import COLUMN, KEY, made_run, study

OTHER = {"backbone": "bundled:image-text", "paradigm": "image-text"}
OPTIONS = TableOptions(eta=0.8, epsilon=0.1, until=2)
SCORES = (0.1, 0.5, 0.6, 0.7, 0.8)
MODEL, MAJORITY, BY_METHOD = PREDICTORS


def _run(name: str, similarity: Sequence[float], score: Sequence[float] = SCORES, **more: object) -> RunData:
    """A run of 4 epochs, by its similarity and score at each epoch that it has reached, epoch 0 first."""
    run = made_run(name, n_epochs=len(similarity), **more)  # type: ignore[arg-type]
    record = replace(run.record, spec=replace(run.record.spec, epochs=4))
    both = np.array([similarity, similarity], np.float32).T
    return replace(run, record=record, diagonal={KEY: both}, quality={"test_accuracy": np.array(score, np.float32)})


def _steep(name: str, **more: object) -> RunData:
    """Falls from the start, and ends outside."""
    return _run(name, (1, 0.7, 0.5, 0.4, 0.3), **more)  # type: ignore[arg-type]


def _flat(name: str, **more: object) -> RunData:
    """Hardly falls, and ends inside."""
    return _run(name, (1, 0.99, 0.97, 0.95, 0.9), **more)  # type: ignore[arg-type]


def _separable(n_seeds: int, n: int = 3) -> list[RunData]:
    """As many runs of each kind, of one backbone and method: only the first epochs tell them apart."""
    kinds = {"flat": _flat, "steep": _steep}
    return [make(f"{kind} {seed} {i}", seed=seed) for seed in range(n_seeds) for i in range(n)
            for kind, make in kinds.items()]  # fmt: skip


def _random(n_seeds: int = 8, n: int = 12, rng_seed: int = 0) -> list[RunData]:
    """Runs whose first epochs say nothing of their end; half of them have a backbone that ends inside more often."""
    rng = np.random.default_rng(rng_seed)
    made = []
    for seed in range(n_seeds):
        for i in range(n):
            is_inside = rng.uniform() < (0.95 if i % 2 else 0.1)
            similarity = [1, *rng.uniform(0.5, 1, 3), 0.9 if is_inside else 0.4]
            score = [0.1, *rng.uniform(0.4, 0.7, 3), 0.8]
            made.append(_run(f"{seed} {i}", similarity, score, seed=seed, **(OTHER if i % 2 else {})))
    return made


def _cells(table: Table, run: str) -> dict[str, object]:
    return dict(zip(table.columns, next(row for row in table.rows if row[0] == run), strict=True))


def _text(data: StudyData, options: TableOptions = OPTIONS) -> str:
    return "\n".join(prediction_table(data, options).notes)


def _same(a: Model, b: Model) -> bool:
    names = ("best", "centre", "scale", "coefficients", "intercept")
    return all(np.array_equal(getattr(a, name), getattr(b, name), equal_nan=True) for name in names)


class TestLogisticRegression:
    @pytest.mark.parametrize(("n", "d", "penalty"), [(2, 1, 1.0), (40, 2, 1.0), (300, 4, 0.01), (300, 4, 30.0)])
    def test_agrees_with_scikit_learn(self, n: int, d: int, penalty: float) -> None:
        rng = np.random.default_rng(n)
        x = rng.standard_normal((n, d))
        y = (x[:, 0] + rng.standard_normal(n) > 0.5).astype(float)
        y[:2] = 0, 1
        theirs = LogisticRegression(C=1 / penalty, tol=1e-12, max_iter=10_000).fit(x, y)
        coefficients, intercept = logistic_regression(x, y, penalty)
        assert coefficients == pytest.approx(theirs.coef_[0], abs=1e-6)
        assert intercept == pytest.approx(theirs.intercept_[0], abs=1e-6)

    @pytest.mark.parametrize("x", [np.linspace(-1, 1, 500), np.r_[np.full(499, -30.0), 30.0]], ids=["even", "one far"])
    def test_what_can_be_told_apart_has_an_end(self, x: np.ndarray) -> None:
        y = (x > 0).astype(float)
        coefficients, intercept = logistic_regression(x[:, None], y, 1e-3)
        p = 1 / (1 + np.exp(-(x * coefficients[0] + intercept)))
        assert (x @ (p - y) + 1e-3 * coefficients[0], (p - y).sum()) == pytest.approx((0, 0), abs=1e-6)

    def test_a_step_that_leads_upwards_is_halved(self) -> None:
        """Newton's whole steps end at a singular matrix here."""
        x = np.array([[0.9, 1.4], [-1.0, 0.7], [219.5, 1.4], [0.1, 1.1], [-15.2, 5.0], [0.2, 0.7]])
        y = np.array([0.0, 1, 0, 1, 0, 1])
        coefficients, intercept = logistic_regression(x, y, 1e-3)
        p = 1 / (1 + np.exp(-(x @ coefficients + intercept)))
        assert [*(x.T @ (p - y) + 1e-3 * coefficients), (p - y).sum()] == pytest.approx([0, 0, 0], abs=1e-9)

    def test_features_that_say_nothing_leave_the_share(self) -> None:
        coefficients, intercept = logistic_regression(np.zeros((4, 2)), np.array([1.0, 1, 1, 0]))
        assert coefficients.tolist() == [0, 0] and intercept == pytest.approx(math.log(3))


def test_what_the_first_epochs_tell_is_told_without_error() -> None:
    data = study(*_separable(6))
    made = prediction(data, OPTIONS)
    assert [each.is_predicted_inside for each in made.forecasts] == [each.is_inside for each in made.forecasts]
    assert [each.is_inside for each in made.forecasts[:2]] == [True, False]
    assert made.failures[MODEL].error == Spread(0.0, 0.0, 6, 0.0, 0.0)
    assert 0 < made.failures[MODEL].brier.mean < 0.1  # type: ignore[operator]
    for name in (MAJORITY, BY_METHOD):
        failure = made.failures[name]
        assert (failure.error.mean, failure.brier.mean, failure.difference.high) == (0.5, 0.25, -0.5)
    assert "the model beats both trivial predictors: its error − that of majority class: -0.500" in _text(data)
    assert "model: error 0.000 (0.000 to 0.000)" in _text(data) and "no proof" not in _text(data)


def test_a_probability_is_that_of_scikit_learn_on_the_other_seeds() -> None:
    runs = _random()
    made = prediction(study(*runs), OPTIONS)
    seed = np.array([run.record.spec.seed for run in runs])
    backbone = np.array([run.record.spec.backbone.name for run in runs])
    similarity = np.array([run.diagonal[KEY][:, 0] for run in runs], np.float64)
    score = np.array([run.quality["test_accuracy"] for run in runs], np.float64)
    y = np.array([similarity_at_end >= 0.8 for similarity_at_end in similarity[:, 4]], float)
    for held in (0, 5):
        seen = seed != held
        best = {name: score[seen & (backbone == name), 2].max() for name in set(backbone)}
        gap = score[:, 2] - np.array([best[name] for name in backbone])
        x = np.column_stack([similarity[:, 2], gap, *((each[:, 2] - each[:, 1]) for each in (similarity, score))])
        x = (x - x[seen].mean(axis=0)) / x[seen].std(axis=0)
        theirs = LogisticRegression(C=1 / PENALTY, tol=1e-12, max_iter=10_000).fit(x[seen], y[seen])
        ours = [each.probability_inside for each in made.forecasts if each.run.record.spec.seed == held]
        assert ours == pytest.approx(theirs.predict_proba(x[~seen])[:, 1], abs=1e-5)  # features have 6 decimals


def test_what_the_first_epochs_do_not_tell_beats_nobody_and_is_said() -> None:
    data = study(*_random())
    made = prediction(data, OPTIONS)
    assert made.failures[BY_METHOD].error.mean < 0.15 < 0.3 < made.failures[MODEL].error.mean  # type: ignore[operator]
    assert made.failures[BY_METHOD].difference.low > 0  # type: ignore[operator]
    assert f"the model does not beat {MAJORITY} nor {BY_METHOD}: its error" in _text(data)


def test_to_beat_only_the_majority_is_not_to_beat_both() -> None:
    """By method everything is known, and by the first epochs as well."""
    runs = [make(f"{method} {seed} {i}", seed=seed, method=method) for seed in range(6) for i in range(2)
            for method, make in (("linear", _flat), ("full", _steep))]  # fmt: skip
    made = prediction(study(*runs), OPTIONS)
    assert made.failures[BY_METHOD].error.mean == made.failures[BY_METHOD].brier.mean == 0
    assert made.failures[BY_METHOD].difference == Spread(0.0, 0.0, 6, 0.0, 0.0)
    assert f"the model does not beat {BY_METHOD}: its error" in _text(study(*runs))
    assert {each.probability_by_method for each in made.forecasts} == {0.0, 1.0}


def test_errors_are_of_seeds_each_as_one_value() -> None:
    """Of the two runs of seed 0 one ends otherwise than it begins: 1/6 by seeds, 1/10 by runs."""
    liar = _run("liar", (1, 0.99, 0.97, 0.95, 0.3), seed=0)
    rest = [run for run in _separable(3, n=2) if run.record.spec.seed]
    made = prediction(study(liar, _flat("a", seed=0), *rest), OPTIONS)
    wrong = [each.run.record.run_id for each in made.forecasts if each.is_predicted_inside != each.is_inside]
    assert wrong == ["liar"]
    assert made.failures[MODEL].error.mean == pytest.approx(1 / 6) and made.failures[MODEL].error.n == 3
    assert "from 3 seeds this is no proof" in _text(study(liar, _flat("a", seed=0), *rest))


@pytest.mark.parametrize("until", [1, 2, 3])
def test_a_model_knows_nothing_of_the_seed_it_is_kept_from(until: int) -> None:
    runs, options = _random(), replace(OPTIONS, until=until)
    before = prediction(study(*runs), options)

    def changed(run: RunData) -> RunData:
        """Other first epochs, better than all, and the same end."""
        rows, scores = run.diagonal[KEY].copy(), run.quality["test_accuracy"].copy()
        rows[1:4], scores[1:4] = 0.25, 0.99
        return replace(run, diagonal={KEY: rows}, quality={"test_accuracy": scores})

    after = prediction(study(*(changed(run) if run.record.spec.seed == 3 else run for run in runs)), options)
    assert set(before.models) == set(range(8))
    assert [seed for seed in range(8) if _same(before.models[seed], after.models[seed])] == [3]


def test_nothing_after_the_epoch_looked_at_is_a_feature() -> None:
    runs = _random()

    def later(run: RunData) -> RunData:
        rows, scores = run.diagonal[KEY].copy(), run.quality["test_accuracy"].copy()
        rows[3], scores[3], rows[0] = 0.1, 0.1, 0.1
        return replace(run, diagonal={KEY: rows}, quality={"test_accuracy": scores})

    one, other = (prediction(study(*each), OPTIONS) for each in (runs, map(later, runs)))
    assert [each.probability_inside for each in one.forecasts] == [each.probability_inside for each in other.forecasts]


def test_at_the_first_epoch_there_is_no_change() -> None:
    made = prediction(study(*_separable(2)), replace(OPTIONS, until=1))
    assert made.models[0].coefficients.shape == (2,)
    assert prediction(study(*_separable(2)), OPTIONS).models[0].coefficients.shape == (4,)
    assert made.failures[MODEL].error.mean == 0
    assert "change of similarity" not in _text(study(*_separable(2)), replace(OPTIONS, until=1))


def test_a_score_counts_below_the_best_of_its_own_backbone() -> None:
    """The second backbone is worse throughout; only how far a run is below its best tells its end."""
    runs = []
    for seed in range(6):
        for level, more in ((0.0, {}), (0.3, OTHER)):
            for gap in (0.0, 0.2):
                scores = np.array([0.1, 0.8 - gap, 0.8 - gap, 0.8 - gap, 0.8 - gap]) - level
                runs.append(_run(f"{seed} {level} {gap}", (1, 0.9, 0.9, 0.9, 0.9), scores, seed=seed, **more))
    made = prediction(study(*runs), OPTIONS)
    assert made.failures[MODEL].error.mean == 0 and made.failures[BY_METHOD].error.mean == 0.5
    assert made.models[0].best[:2] == pytest.approx([0.8, 0.5])


def test_one_row_a_run_with_all_that_it_is_judged_by() -> None:
    runs = [*_separable(2), _flat("under way", seed=1)]
    runs[-1] = replace(runs[-1], record=replace(runs[-1].record, state=State.RUNNING))
    table = prediction_table(study(*runs), OPTIONS)
    assert table.name == "prediction" and table.columns == (
        "run", "backbone", "method", "seed", "state", "until", COLUMN, "test_accuracy", "probability_inside",
        "predicted", "actual", "probability_by_method",
    )  # fmt: skip
    assert len(table.rows) == 13
    first = table.rows[0]
    assert first[:6] == ("flat 0 0", "bundled:supervised", "full", 0, "done", 2)
    assert first[6:8] == pytest.approx((0.97, 0.6)) and first[8] > 0.5 and first[9:] == ("yes", "yes", 0.5)  # type: ignore
    assert table.rows[1][9:11] == ("no", "no")


@pytest.mark.parametrize("state", [State.RUNNING, State.STOPPED, State.INTERRUPTED])
def test_runs_under_way_are_told_by_all_that_are_done(state: State) -> None:
    more = {"seed": 0, "state": state}
    young = {"similarity": (1, 0.99, 0.97), "score": (0.1, 0.5, 0.6), **more}
    done = _separable(2)
    data = study(*done, _run("young", **young), _run("new", (1, 0.9), (0.1, 0.5), **more))  # type: ignore[arg-type]
    table = prediction_table(data, OPTIONS)
    cells = _cells(table, "young")
    assert cells["probability_inside"] > 0.5 and (cells["predicted"], cells["actual"]) == ("yes", None)  # type: ignore
    # All runs done are more than those of the other seeds: the model is surer.
    assert cells["probability_inside"] > _cells(table, "flat 0 0")["probability_inside"]  # type: ignore[operator]
    assert set(list(_cells(table, "new").values())[6:]) == {None}
    assert "no forecast: 1 of 14 runs, not at epoch 2 yet, or without an epoch after it" in table.notes
    assert [row[:-1] for row in table.rows[:12]] == [row[:-1] for row in prediction_table(study(*done), OPTIONS).rows]


def test_a_run_that_was_planned_to_be_short_has_its_end_seen_and_no_forecast() -> None:
    short = _run("short", (1, 0.9, 0.9), (0.1, 0.5, 0.8), seed=0)
    short = replace(short, record=replace(short.record, spec=replace(short.record.spec, epochs=2)))
    cells = _cells(prediction_table(study(*_separable(2), short), OPTIONS), "short")
    assert (cells["probability_inside"], cells["actual"]) == (None, "yes")
    assert "no forecast: 1 of 13 runs, not at epoch 2 yet" in _text(study(*_separable(2), short))


def test_a_failed_run_has_no_forecast_and_teaches_nothing() -> None:
    failed = _steep("failed", seed=0, state=State.FAILED)
    data = study(*_separable(2), failed)
    assert list(_cells(prediction_table(data, OPTIONS), "failed").values())[8:] == [None] * 4
    assert "no forecast: 1 of 13 runs, failed" in prediction_table(data, OPTIONS).notes
    before, after = (prediction(study(*each), OPTIONS).models[1] for each in (_separable(2), data.runs))
    assert before.coefficients.tolist() == after.coefficients.tolist()


def test_undefined_figures_are_left_out_and_counted() -> None:
    nan = math.nan
    data = study(
        *_separable(3),
        _run("no similarity", (1, 0.9, nan, 0.9, 0.9), seed=0), _run("no start", (1, nan, 0.9, 0.9, 0.9), seed=0),
        _run("no score", (1, 0.9, 0.9, 0.9, 0.9), (0.1, 0.5, nan, 0.5, 0.8), seed=1),
        _run("no end", (1, 0.99, 0.97, 0.95, nan), seed=1),
    )  # fmt: skip
    table = prediction_table(data, OPTIONS)
    for name in ("no similarity", "no start", "no score"):
        cells = _cells(table, name)
        assert (cells["probability_inside"], cells["predicted"], cells["actual"]) == (None, None, "yes")
    assert (_cells(table, "no end")["predicted"], _cells(table, "no end")["actual"]) == ("yes", None)
    assert "no forecast: 3 of 22 runs, without similarity or score at epoch 1 or 2 (undefined, or not measured)" in (
        table.notes
    )
    assert any(note.startswith("left out: 1 of 22 runs that are done: 1 without") for note in table.notes)
    assert all(not isinstance(cell, float) or math.isfinite(cell) for row in table.rows for cell in row)
    assert prediction(data, OPTIONS).failures == prediction(study(*_separable(3)), OPTIONS).failures


@pytest.mark.parametrize(("runs", "why"), [
    (_separable(1), "one seed is left out at a time, so that 2 are needed (seen 1 with finished runs)"),
    ([_flat("a"), _flat("b", seed=1)], "all of the 2 finished runs ended inside, so there is nothing to tell apart"),
    ([_steep("a"), _steep("b", seed=1)], "none of the 2 finished runs ended inside, so there is nothing to tell apart"),
    ([_run("young", (1, 0.9, 0.9), (0.1, 0.5, 0.5), state=State.RUNNING)], "(seen 0 with finished runs)"),
])  # fmt: skip
def test_why_there_is_none(runs: list[RunData], why: str) -> None:
    data = study(*runs)
    made, table = prediction(data, OPTIONS), prediction_table(data, OPTIONS)
    assert why in made.why_none and f"no forecast that could be judged: {made.why_none}" in table.notes
    assert len(table.rows) == len(runs) and not made.failures and not made.models
    for column in ("probability_inside", "predicted", "probability_by_method"):
        assert set(table.column(column)) == {None}
    assert None not in table.column(COLUMN)
    assert not any("beat" in note for note in table.notes)


def test_a_backbone_of_one_seed_has_no_best_to_be_held_against() -> None:
    alone = _steep("alone", seed=0, **OTHER)
    data = study(*_separable(2), alone)
    assert _cells(prediction_table(data, OPTIONS), "alone")["probability_by_method"] is None
    assert "no forecast: 1 of 13 runs, without a run of the same backbone and dataset to learn from" in _text(data)
    assert [each.brier.n for each in prediction(data, OPTIONS).failures.values()] == [2, 2, 2]
    apart = study(_flat("a"), _steep("b"), _flat("c", seed=1, **OTHER), _steep("d", seed=1, **OTHER))
    made = prediction(apart, OPTIONS)
    assert made.why_none.startswith("the best of the same backbone and dataset is known from other seeds for fewer")
    assert not made.failures and "beat" not in _text(apart)


def test_a_method_that_is_new_counts_as_all_others() -> None:
    data = study(*_separable(2), _flat("new", seed=0, method="linear"))
    new = prediction(data, OPTIONS).forecasts[-1]
    assert new.probability_by_method == 0.5 and new.is_predicted_inside


def test_runs_of_one_class_give_their_smoothed_share() -> None:
    data = study(*(_flat(f"a{i}", seed=0) for i in range(3)), *(_steep(f"b{i}", seed=1) for i in range(2)))
    made = prediction(data, OPTIONS)
    assert all(model.is_of_one_class for model in made.models.values())
    assert [each.probability_inside for each in made.forecasts] == pytest.approx([1 / 4] * 3 + [4 / 5] * 2)
    assert [each.probability_by_method for each in made.forecasts] == [0.0] * 3 + [1.0] * 2
    assert made.failures[MODEL].error.mean == 1
    assert any(
        note.startswith("2 of 2 seeds: all runs learned from are of one class") for note in _text(data).split("\n")
    )


def test_runs_alike_at_first_are_one_half_which_says_yes() -> None:
    ends = ((0.9, "in"), (0.3, "out"))
    data = study(
        *(_run(f"{kind} {seed}", (1, 0.9, 0.9, 0.9, end), seed=seed) for seed in range(3) for end, kind in ends)
    )
    made = prediction(data, OPTIONS)
    assert [each.probability_inside for each in made.forecasts] == pytest.approx([0.5] * 6)
    assert all(each.is_predicted_inside for each in made.forecasts)
    assert {failure.error.mean for failure in made.failures.values()} == {0.5}
    assert made.models[0].scale.tolist() == [1.0] * 4


@pytest.mark.parametrize(("options", "message"), [
    ({"until": 0}, "until: the first epoch of training is 1 (seen 0)\n  fix: give 1 to 3"),
    ({"until": 4}, "until: the last epoch is 4, so nothing is left to predict (seen 4)\n  fix: give 1 to 3"),
    ({"until": 99}, "(seen 99)"),
    ({"eta": 2}, "η: linear_cka lies in 0 to 1"),
    ({"layer": "block 9"}, "choose one of block 1, block 2"),
    ({"measure": "rsa"}, "this study has no such similarity"),
])  # fmt: skip
def test_what_cannot_be_is_refused(options: dict[str, object], message: str) -> None:
    for make in (prediction, prediction_table):
        with pytest.raises(StudyError) as caught:
            make(study(*_separable(2)), replace(OPTIONS, **options))  # type: ignore[arg-type]
        assert message in str(caught.value)


def test_a_study_of_one_epoch_has_nothing_to_predict() -> None:
    run = made_run("a", n_epochs=2)
    run = replace(run, record=replace(run.record, spec=replace(run.record.spec, epochs=1)))
    with pytest.raises(StudyError, match="fix: predict in a study of 2 epochs or more"):
        prediction(study(run), replace(OPTIONS, until=1))


def test_an_empty_study_has_no_rows_and_refuses_all_the_same() -> None:
    table = prediction_table(StudyData(()), OPTIONS)
    assert table.rows == () and "(seen 0 with finished runs)" in "\n".join(table.notes)
    assert prediction(StudyData(()), OPTIONS).forecasts == ()
    with pytest.raises(StudyError, match="the first epoch of training is 1"):
        prediction(StudyData(()), replace(OPTIONS, until=0))


def test_notes_say_what_the_figures_are() -> None:
    notes = _text(study(*_separable(2)))
    assert "inside: M_X ≥ η = 0.8 and A_X ≤ ε = 0.1 at the last epoch" in notes
    assert f"{COLUMN} and test_accuracy: at epoch 2; nothing after it is a feature" in notes
    assert "L2 penalty 1 / 2 · ‖w‖²" in notes and "backbone and method are not among the features" in notes
    assert "over 2 seeds, each as one value" in notes and "linear_cka: linear CKA (biased); Kornblith" in notes
    assert "reference: the best run of the same backbone and dataset, of any seed" in notes
    assert "reference: 0.75" in _text(study(*_separable(2)), replace(OPTIONS, reference="0.75"))


def test_names_from_outside_pass_through_untouched() -> None:
    hostile = "=cmd()\x1b[31m\n"
    more = {"backbone": "bundled:" + hostile, "dataset": hostile}
    table = prediction_table(study(*_separable(2), _flat(hostile, seed=0, **more)), OPTIONS)
    assert table.rows[-1][:2] == (hostile, "bundled:" + hostile)
    assert "\"'=cmd()" in to_csv(table)


def test_another_look_in_another_order_says_the_same() -> None:
    runs = _random(4)

    def told(made: Prediction) -> dict[str, float | None]:
        return {each.run.record.run_id: each.probability_inside for each in made.forecasts}

    one, other = (prediction(study(*each), OPTIONS) for each in (runs, runs[::-1]))
    assert told(one) == pytest.approx(told(other), abs=1e-9)
    assert one.failures[MODEL].error == other.failures[MODEL].error
