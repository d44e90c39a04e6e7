"""Attention over the seeds: known means, what is left out, and the words for where there is none."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from engine.analysis.attention_table import NO_MAPS, attention_table
from engine.analysis.bootstrap import mean_interval
from engine.analysis.options import TableOptions
from engine.analysis.quality import quality_table
from engine.analysis.study_data import RunData
from engine.runs.record import Provenance, State
from engine.runs.results import Results
from tests.engine.analysis.made_runs import made_run, study

STATISTICS = ("entropy", "distance", "correlation", "overlap")
COLUMNS = (
    "attention_entropy_before_nats", "attention_entropy_after_nats", "attention_distance_before_pixels",
    "attention_distance_after_pixels", "attention_correlation", "attention_overlap",
)  # fmt: skip


def with_attention(
    run: RunData, shift: float = 0.0, *, domains: tuple[str, ...] = ("target",), poolings: tuple[str, ...] = ("feat",)
) -> RunData:
    """Entropy, distance, correlation and overlap are 1, 2, 3, 4 hundred, plus ten a layer, 1 before and 5 after."""
    metrics = {}
    for number, name in enumerate(STATISTICS, start=1):
        base = 100.0 * number + 10 * np.arange(len(run.layers))
        rows = np.array([base + 1 + shift, np.full(len(run.layers), np.nan), base + 5 + shift], np.float32)
        for domain in domains:
            for pooling in poolings:
                if (name, pooling) != ("distance", "cls"):
                    metrics[f"attention_{name}_{domain}_{pooling}"] = rows
    return replace(run, layer_quality=metrics)


def test_one_row_a_group_layer_domain_and_pooling() -> None:
    both = {"domains": ("target", "origin"), "poolings": ("cls", "feat")}
    runs = [with_attention(made_run(f"r{seed}", seed=seed), seed, **both) for seed in range(3)]  # type: ignore[arg-type]
    table = attention_table(study(*runs), TableOptions())
    assert table.columns[:6] == ("backbone", "method", "layer", "domain", "pooling", "n_runs")
    assert table.columns[6:] == tuple(
        f"{each}_{what}" for each in COLUMNS for what in ("mean", "sd", "low", "high", "n")
    )
    places = [(domain, pooling, layer) for domain in ("target", "origin") for pooling in ("cls", "feat")
              for layer in ("block 1", "block 2")]  # fmt: skip
    assert list(zip(table.column("domain"), table.column("pooling"), table.column("layer"), strict=True)) == places
    assert set(table.column("n_runs")) == {3}
    row = dict(zip(table.columns, table.rows[3], strict=True))  # target, feat, block 2
    assert row["attention_entropy_before_nats_mean"] == pytest.approx(111 + 1)
    assert row["attention_entropy_after_nats_mean"] == pytest.approx(115 + 1)
    assert row["attention_distance_before_pixels_mean"] == pytest.approx(211 + 1)
    assert row["attention_distance_after_pixels_mean"] == pytest.approx(215 + 1)
    assert row["attention_correlation_mean"] == pytest.approx(315 + 1)  # at the last epoch
    assert row["attention_overlap_mean"] == pytest.approx(415 + 1)
    assert row["attention_overlap_sd"] == pytest.approx(1) and row["attention_overlap_n"] == 3
    low, high = mean_interval(np.array([[415.0], [416.0], [417.0]]))
    assert (row["attention_overlap_low"], row["attention_overlap_high"]) == pytest.approx((low[0], high[0]))


def test_cls_has_no_distance() -> None:
    runs = [with_attention(made_run(f"r{seed}", seed=seed), poolings=("cls",)) for seed in range(2)]
    table = attention_table(study(*runs), TableOptions())
    assert set(table.column("pooling")) == {"cls"}
    for column in ("attention_distance_before_pixels", "attention_distance_after_pixels"):
        assert set(table.column(f"{column}_mean")) == {None} and set(table.column(f"{column}_n")) == {0}
    assert None not in table.column("attention_entropy_after_nats_mean")


def test_groups_are_those_asked_for_and_runs_without_attention_do_not_count() -> None:
    runs = [
        with_attention(made_run("a", method="full")),
        with_attention(made_run("b", method="full", backbone="bundled:image-text", paradigm="image-text")),
        with_attention(made_run("c", method="scratch")),
        made_run("d", method="scratch", seed=1),
        with_attention(made_run("e", method="scratch", seed=2, state=State.STOPPED)),
    ]
    counts = {}
    for by in ("backbone and method", "method", "paradigm"):
        table = attention_table(study(*runs), TableOptions(by=by))
        first = table.rows[:: len(runs[0].layers)]
        counts[by] = [(*row[: table.columns.index("layer")], row[table.columns.index("n_runs")]) for row in first]
    assert counts == {
        "backbone and method": [
            ("bundled:supervised", "full", 1), ("bundled:image-text", "full", 1), ("bundled:supervised", "scratch", 1),
        ],
        "method": [("full", 2), ("scratch", 1)],
        "paradigm": [("supervised", 2), ("image-text", 1)],
    }  # fmt: skip
    assert "left out: 1 of 5 runs, which have not come to their last epoch" in table.notes


def test_backbones_with_other_layers_are_not_put_together() -> None:
    small = with_attention(made_run("a"))
    large = with_attention(replace(made_run("b", backbone="timm:large"), layers=("block 1", "block 2", "block 3")))
    table = attention_table(study(small, large), TableOptions(by="method"))
    assert table.column("layer") == ("block 1", "block 2", "block 1", "block 2", "block 3")
    assert set(table.column("n_runs")) == {1}


def test_a_value_that_is_undefined_in_one_run_is_left_out_of_its_mean() -> None:
    runs = [with_attention(made_run(f"r{seed}", seed=seed), seed) for seed in range(3)]
    rows = runs[0].layer_quality["attention_correlation_target_feat"].copy()
    rows[-1, 0] = math.nan
    runs[0] = replace(runs[0], layer_quality={**runs[0].layer_quality, "attention_correlation_target_feat": rows})
    table = attention_table(study(*runs), TableOptions())
    assert table.column("attention_correlation_n") == (2, 3)
    assert table.column("attention_correlation_mean")[0] == pytest.approx(305 + 1.5)
    assert table.column("n_runs") == (3, 3)


def test_notes_say_what_before_is_and_how_many_images_there_were() -> None:
    def notes(attention_n: int, n_test: int, n_origin: int) -> tuple[str, ...]:
        run = with_attention(made_run("a", provenance=Provenance(n_test=n_test, n_origin=n_origin)))
        spec = replace(run.record.spec, attention_n=attention_n)
        return attention_table(study(replace(run, record=replace(run.record, spec=spec))), TableOptions()).notes

    assert any("for scratch the random network" in note for note in notes(6, 100, 500))
    assert any("Bylinskii" in note for note in notes(6, 100, 500)) and any("Dosovitskiy" in n for n in notes(6, 9, 9))
    assert "images: 6 of the target domain, 6 of the origin domain" in notes(6, 100, 500)
    assert "images: 4 of the target domain, 6 of the origin domain" in notes(6, 4, 500)
    assert "images: 6 of the target domain" in notes(6, 100, 0)
    assert not any(note.startswith("images:") for note in notes(6, 0, 0))  # not known


def test_without_attention_the_table_is_empty_and_says_why() -> None:
    run = made_run("a")
    kept = replace(run.record.spec, attention_n=0)
    without = attention_table(study(replace(run, record=replace(run.record, spec=kept))), TableOptions())
    assert without.rows == () and without.notes == (NO_MAPS,)
    (note,) = attention_table(study(run), TableOptions()).notes
    assert note.startswith("no run that is done has attention: ")
    stopped = attention_table(study(with_attention(made_run("a", state=State.STOPPED))), TableOptions())
    assert stopped.rows == ()
    assert stopped.notes == ("left out: 1 of 1 runs, which have not come to their last epoch",)


def test_the_quality_of_layers_explains_attention_too() -> None:
    run = with_attention(made_run("a"))
    results = Results(run.layers, {}, run.quality, run.layer_quality)
    table = quality_table(results, "feat")
    assert table.columns[2:] == tuple(f"attention_{name}_target_feat" for name in STATISTICS)
    assert [note.split(":")[0] for note in table.notes] == [f"attention_{name}" for name in STATISTICS]
    assert table.rows[0][2] == 101 and table.rows[2][2] is None  # at epoch 0; between
