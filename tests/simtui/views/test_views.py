"""What the views say, without a terminal: the studies of these tests hold figures in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.analysis.forgetting import forgetting_table
from engine.analysis.options import MEAN_OF_LAYERS, TableOptions
from engine.analysis.study_data import RunData, StudyData
from engine.analysis.table import Table
from engine.errors import DamagedError
from engine.jobs.progress import StudyProgress
from engine.jobs.stage import Failure, RunProgress
from engine.runs.catalog import DamagedRun
from engine.runs.record import RunRecord, State
from engine.runs.results import Results, SimilarityKey
from engine.study import MeasureSection, run_specs
from simtui.analyses import Found
from simtui.reader import Snapshot
from simtui.selection import Selection, after
from simtui.views import curves, forgetting, layer_map, map_panel, runs
from simtui.views.parts import Line
from simtui.views.progress import duration, progress_line
from tests.engine.analysis.made_runs import study_of_records
from tests.simtui.studies import accuracy, made_record, made_results, similarity, study_of

STUDY = study_of(("bundled:supervised", "bundled:image-text"), seeds=3, epochs=4)
KEY = SimilarityKey("target", "cls", "linear_cka")


def _record(spec_index: int = 0, **changes: object) -> RunRecord:
    spec = run_specs(STUDY)[spec_index]
    return replace(made_record(spec, made_results(spec, 6, 5), 4), **changes)  # type: ignore[arg-type]


def _snapshot(*records: RunRecord, damaged: tuple[DamagedRun, ...] = (), has_origin: bool = True) -> Snapshot:
    return Snapshot(Path("s"), "s", records, damaged, ("linear_cka",), has_origin)


def _all() -> Snapshot:
    return _snapshot(*(_record(i) for i in range(len(run_specs(STUDY)))))


def _text(lines: tuple[Line, ...]) -> str:
    return "\n".join("".join(span.text for span in line) for line in lines)


class TestRuns:
    def test_a_row_says_all_that_was_asked_for(self) -> None:
        sheet = runs.sheet(_snapshot(_record()))
        row = dict(
            zip([column.title for column in sheet.columns], [cell.text for cell in sheet.rows[0].cells], strict=True)
        )
        spec = run_specs(STUDY)[0]
        cka = np.mean([similarity("full", 0, 4, i, i) for i in range(6)])
        assert row == {
            "backbone": "supervised", "paradigm": "supervised", "dataset": "dermoscopy (synthetic)",
            "method": spec.method, "seed": "0", "epoch": "4/4", "accuracy": f"{accuracy('full', 0, 4):.3f}",
            "CKA": f"{cka:.3f}", "ECE": f"{0.1 - accuracy('full', 0, 4) / 12:.3f}",
            "origin k-NN": "0.640→0.440", "state": "✓ done",
        }  # fmt: skip

    def test_the_summary_counts_and_names_the_best(self) -> None:
        best = _record(last={"test_accuracy": 0.999})
        broken = DamagedRun("x", DamagedError("x", "y", "z"))
        snapshot = replace(_all(), records=(*_all().records[1:], best), damaged=(broken,))
        text = runs.summary(snapshot)
        assert text.startswith(
            "18 runs (2 backbones × 3 methods × 3 seeds) on dermoscopy (synthetic): 18 done, 1 damaged."
        )
        assert text.endswith("Best test accuracy 0.999: full, bundled:supervised, seed 0.")
        assert runs.summary(_snapshot()) == "No runs yet."

    def test_a_queued_run_has_dashes_and_no_zeros(self) -> None:
        spec = run_specs(STUDY)[0]
        cells = [cell.text for cell in runs.sheet(_snapshot(made_record(spec, None, -1))).rows[0].cells]
        assert cells[5:] == ["0/4", "–", "–", "–", "–", "· queued"]

    @pytest.mark.parametrize("state", State)
    def test_every_state_is_said_in_words(self, state: State) -> None:
        assert runs.sheet(_snapshot(_record(state=state))).rows[0].cells[-1].text.endswith(state)

    def test_the_reason_of_a_failure_stands_below(self) -> None:
        record = _record(state=State.FAILED, reason="loss is not finite\n  fix: lower the learning rate")
        text = _text(runs.detail(_snapshot(record), record.run_id, 78))
        assert "failed: loss is not finite\\n" in text and "lower the learning rate" in text

    def test_the_details_name_the_estimator_and_no_figure_is_cut(self) -> None:
        last = {"pwcca_cls": 0.5, "pwcca_feat": 0.25, "linear_cka_cls": 0.9}
        asked = replace(run_specs(STUDY)[0], measure=MeasureSection(similarity=("pwcca", "linear_cka")))
        record = _record(spec=asked, last={**_record().last, **last})
        wide, narrow = (_text(runs.detail(_snapshot(record), record.run_id, width)) for width in (118, 78))
        end = " CLS 0.500 · Feat 0.250 inflated · origin k-NN 0.640→0.440"
        assert wide.endswith(f"PWCCA (pre-trained side){end}")
        assert narrow.endswith(f"\nPWCCA{end}")
        assert runs.columns([record])[7].title == "PWCCA"

    def test_a_damaged_run_says_what_mends_it(self) -> None:
        broken = DamagedRun("run-1", DamagedError("runs/run-1/run.json", "not readable", "remove the folder"))
        snapshot = _snapshot(_record(), damaged=(broken,))
        assert runs.sheet(snapshot).rows[-1].key == "run-1"
        assert _text(runs.detail(snapshot, "run-1", 78)) == ("run.json: not readable\nfix: remove the folder")
        assert runs.detail(snapshot, "nobody", 78) == ()


class TestLayerMap:
    def _map(self, selection: Selection = Selection(), spec_index: int = 0) -> layer_map.LayerMap:  # noqa: B008
        record = _record(spec_index)
        shown = layer_map.layer_map(record, made_results(record.spec, 6, 5), selection)
        assert shown is not None
        return shown

    def test_rows_are_the_pre_trained_model(self) -> None:
        shown = self._map(Selection(row=1, column=4, epoch=3))
        assert shown.value == pytest.approx(similarity("full", 0, 3, 1, 4), abs=1e-6)
        text = _text((layer_map.readout(shown, 80),))
        assert f"{similarity('full', 0, 3, 1, 4):.3f}" in text
        assert text.index("pre-trained block 2") < text.index("this run block 5")
        assert "linear CKA (biased), CLS" in text

    def test_the_last_epoch_is_followed_and_others_are_kept(self) -> None:
        assert self._map().epoch == 4
        assert self._map(Selection(epoch=2)).epoch == 2
        assert self._map(Selection(epoch=99)).epoch == 4

    def test_the_summary_is_computed(self) -> None:
        first, last = similarity("full", 0, 4, 0, 0), similarity("full", 0, 4, 5, 5)
        assert self._map().summary == (
            "Full fine-tuning of bundled:supervised, seed 0, epoch 4: CLS similarity to the pre-trained model falls "
            f"from {first:.2f} (block 1) to {last:.2f} (block 6)."
        )
        assert self._map(spec_index=2).summary.endswith("is 1.00 in every block.")

    def test_it_rises_where_it_rises(self) -> None:
        record = _record()
        rising = np.diag(np.linspace(0.2, 0.7, 6)).astype(np.float32)[None]
        shown = layer_map.layer_map(record, Results(tuple("abcdef"), {KEY: rising}), Selection())
        assert shown is not None and shown.summary.endswith("rises from 0.20 (a) to 0.70 (f).")

    def test_a_constant_block_is_a_dash_with_its_reason(self) -> None:
        matrix = np.full((1, 2, 2), np.nan, np.float32)
        shown = layer_map.layer_map(_record(), Results(("a", "b"), {KEY: matrix}), Selection())
        assert shown is not None
        text = _text((layer_map.readout(shown, 80),))
        assert text.startswith(" – ") and "a block is constant" in text
        assert shown.summary.endswith("is undefined for every block.")

    def test_the_readout_has_as_many_words_as_fit(self) -> None:
        record = _record()
        layers = tuple(f"blocks.{i}" for i in range(12))
        for measure, full, short in (
            ("linear_regression", "linear regression R², CLS", "regression R², CLS"),
            ("pwcca", "PWCCA (pre-trained side), CLS", "PWCCA, CLS"),
        ):
            results = Results(layers, {replace(KEY, measure=measure): np.full((1, 12, 12), -0.25, np.float32)})
            shown = layer_map.layer_map(record, results, Selection(row=11, column=11))
            assert shown is not None
            cell = " -0.250 ██  pre-trained blocks.11 × this run blocks.11"
            found = [_text((layer_map.readout(shown, width),)) for width in (120, 80, 60)]
            assert found == [f"{cell}   {full}", f"{cell}   {short}", cell]
        undefined = replace(shown, matrix=np.full((12, 12), np.nan))
        assert len(_text((layer_map.readout(undefined, 80),))) <= 80
        assert "n too small" in _text((layer_map.readout(undefined, 80),))

    def test_the_first_measure_of_the_study_is_shown_first(self) -> None:
        asked = MeasureSection(similarity=("rsa", "debiased_cka", "linear_cka"))
        record = _record(spec=replace(run_specs(STUDY)[0], measure=asked))
        names = ("debiased_cka", "linear_cka", "old", "rsa")  # as they are found in a file
        matrices = {replace(KEY, measure=name): np.zeros((1, 1, 1), np.float32) for name in names}
        shown = layer_map.layer_map(record, Results(("a",), matrices), Selection())
        assert shown is not None and shown.key.measure == "rsa"
        assert [key.measure for key in shown.keys] == ["rsa", "debiased_cka", "linear_cka", "old"]

    def test_what_is_not_there_is_not_drawn(self) -> None:
        assert layer_map.layer_map(_record(), Results(()), Selection()) is None
        assert layer_map.layer_map(_record(), Results(("a",), {}, {"test_accuracy": np.ones(1)}), Selection()) is None

    @pytest.mark.parametrize(
        ("measure", "n", "d", "is_warned"),
        [("linear_cka", 512, 128, True), ("linear_cka", 1280, 128, False), ("linear_cka", 0, 128, False),
         ("debiased_cka", 512, 128, False), ("unknown", 512, 128, False)],
    )  # fmt: skip
    def test_inflated_cka_is_warned_of(self, measure: str, n: int, d: int, is_warned: bool) -> None:
        record = _record()
        record = record.with_(provenance=replace(record.provenance, n_probe=n, n_features=d))
        key = replace(KEY, measure=measure)
        both = (KEY, replace(KEY, measure="debiased_cka"))
        warning = layer_map.inflation_warning(record, key, both)
        assert bool(warning) == is_warned
        if is_warned:
            assert warning == "linear CKA (biased) is inflated: n = 512 is not >> d = 128; m: debiased CKA"
            assert "add debiased_cka" in layer_map.inflation_warning(record, key, (KEY,))

    def test_the_side_panel_compares_each_block_with_itself(self) -> None:
        record = _record()
        results = made_results(record.spec, 6, 5)
        text = _text(map_panel.side_panel(self._map(), results, 30, 30))
        for i in range(6):
            assert f"block {i + 1} " in text and f"{similarity('full', 0, 4, i, i):.3f}" in text
        assert f"accuracy       {accuracy('full', 0, 4):.3f}" in text
        brier = replace(results, quality={**results.quality, "test_brier": np.full(5, 0.3)})
        assert "Brier score    0.300" in _text(map_panel.side_panel(self._map(), brier, 30, 30))
        assert "of this run" not in text
        assert "… 3 more" in _text(map_panel.side_panel(self._map(), results, 30, 12))

    def test_the_side_panel_has_the_quality_of_the_layer_under_the_cursor(self) -> None:
        ranks = np.arange(30, dtype=np.float32).reshape(5, 6)
        results = replace(made_results(_record().spec, 6, 5), layer_quality={
            "effective_rank_cls": ranks, "effective_rank_feat": ranks + 50, "uniformity_cls": -ranks,
            "unknown_cls": ranks,
        })  # fmt: skip
        shown = replace(self._map(), column=2)
        text = _text(map_panel.side_panel(shown, results, 30, 30))
        assert f"{shown.layers[2]} of this run, CLS" in text
        assert "effective rank (RankMe) 26.000" in text.replace(")", ") ").replace("  ", " ")
        assert "76.000" not in text and "unknown" not in text
        assert "effective rank" not in _text(map_panel.side_panel(shown, results, 30, 16))  # bars come first

    def test_long_trainings_fit_into_the_epoch_line(self) -> None:
        text = "".join(span.text for span in layer_map.epoch_line(500, 1001))
        assert "500 of 1000" in text and len(text) < 60


class TestCurves:
    def _curves(self, layer: str = MEAN_OF_LAYERS, n_seeds: int = 3) -> Found:
        from engine.analysis.trajectory import trajectories

        records = [record for record in _all().records if record.spec.seed < n_seeds]
        data = StudyData(tuple(RunData.of(record, made_results(record.spec, 6, 5)) for record in records))
        return Found(trajectories(data, TableOptions(layer=layer)), data)

    def _view(self, selection: Selection = Selection(), n_seeds: int = 3) -> curves.CurvesView:  # noqa: B008
        view = curves.curves_view(self._curves(selection.layer, n_seeds), KEY, selection)
        assert view is not None
        return view

    def test_the_methods_of_one_backbone_are_overlaid(self) -> None:
        view = self._view(Selection(backbone="bundled:image-text"))
        assert view.names == ("full", "linear", "scratch")
        assert {each.backbone for each in view.shown} == {"bundled:image-text"}

    def test_the_backbones_of_one_method_or_all(self) -> None:
        view = self._view(Selection(overlay="backbones", method="scratch"))
        assert view.names == ("supervised", "image-text")
        assert {each.method for each in view.shown} == {"scratch"}
        assert len(self._view(Selection(overlay="all")).shown) == 6
        assert curves.groups(self._curves().value, Selection(overlay="all")) == ()

    def test_the_band_is_the_mean_and_one_sd_to_each_side(self) -> None:
        series = self._view(Selection(layer="block 6")).similarity.series[0]
        values = [similarity("full", seed, 4, 5, 5) for seed in range(3)]
        mean, sd = np.mean(values), np.std(values, ddof=1)
        assert (series.low[4], series.mean[4], series.high[4]) == pytest.approx((mean - sd, mean, mean + sd), abs=1e-6)

    def test_one_seed_has_no_band(self) -> None:
        view = self._view(n_seeds=1)
        assert view.similarity.series[0].low == view.similarity.series[0].high
        assert "± –" in _text(curves.legend(view, 80)) and "n = 1" in _text(curves.legend(view, 80))
        assert "over 1 seed:" in view.summary

    def test_the_legend_reads_out_the_epoch(self) -> None:
        text = _text(curves.legend(self._view(Selection(epoch=2, layer="block 6")), 80))
        values = [similarity("full", seed, 2, 5, 5) for seed in range(3)]
        assert "at epoch 2" in text
        assert f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}" in text

    def test_the_axes_hold_every_curve(self) -> None:
        for layer in (MEAN_OF_LAYERS, "block 1", "block 6"):
            view = self._view(Selection(layer=layer, overlay="all"))
            for panel in (view.similarity, view.accuracy):
                low, high = panel.frame.y_limits
                assert all(low - 1e-9 <= value <= high + 1e-9 for s in panel.series for value in (*s.low, *s.high))
                assert all(low <= tick <= high for tick in panel.frame.y_ticks)
                assert len(panel.frame.y_ticks) >= 2
                assert panel.frame.x_limits == (0.0, 4.0)

    def test_the_axis_of_a_running_study_ends_where_training_will(self) -> None:
        """It stays while epochs come: an axis as long as the curves moves every cell of the plot each time."""
        from engine.analysis.trajectory import trajectories

        found = self._curves(MEAN_OF_LAYERS, 3)
        data = StudyData(
            tuple(
                replace(run, record=replace(run.record, spec=replace(run.record.spec, epochs=10)))
                for run in found.data.runs
            )
        )
        view = curves.curves_view(Found(trajectories(data, TableOptions()), data), KEY, Selection())
        assert view is not None and view.n_epochs == 5
        assert view.similarity.frame.x_limits == view.accuracy.frame.x_limits == (0.0, 10.0)

    def test_the_summary_names_both_ends(self) -> None:
        text = self._view(Selection(layer="block 6")).summary
        assert text.startswith("CLS similarity of block 6 at epoch 4, over 3 seeds: highest for linear 1.000 ± 0.000")
        assert "lowest for scratch" in text

    def test_epochs_that_a_run_has_not_reached_are_left_out(self) -> None:
        one = self._curves().value[0]
        short = replace(one, similarity=replace(one.similarity, epochs=(0, 1), spreads=one.similarity.spreads[:2]))
        assert curves.at_epoch(short.similarity, 4).n == 0

    def test_nothing_is_not_a_plot(self) -> None:
        assert curves.curves_view(Found((), StudyData(())), KEY, Selection()) is None


def _table(records: Sequence[RunRecord]) -> Table:
    return forgetting_table(study_of_records(records), TableOptions())


class TestForgetting:
    def test_the_drop_of_each_backbone_and_method(self) -> None:
        sheet = forgetting.sheet(_table(_all().records))
        titles = [column.title for column in sheet.columns]
        row = dict(zip(titles, [cell.text for cell in sheet.rows[0].cells], strict=True))
        assert (row["backbone"], row["method"], row["n"]) == ("supervised", "full", "3")
        assert (row["k-NN before"], row["k-NN after"], row["drop"]) == (
            "0.640 ± 0.000",
            "0.430 ± 0.010",
            "0.210 ± 0.010",
        )
        assert row["drop in %"] == "32.8 ± 1.6"
        assert len(sheet.rows) == 6

    def test_the_summary_leaves_scratch_out(self) -> None:
        snapshot = _all()
        text = forgetting.summary(_table(snapshot.records), snapshot)
        assert text.startswith("Origin k-NN drops most for full, bundled:") and "scratch" not in text
        assert "least for linear" in text

    def test_one_seed_has_no_sd(self) -> None:
        sheet = forgetting.sheet(_table([_record()]))
        assert sheet.rows[0].cells[4].text == "0.640 ± –"
        text = forgetting.summary(_table([_record()]), _snapshot(_record()))
        assert text == "Origin k-NN of full, bundled:supervised (0.640 → 0.440, drop 0.200 ± –, n = 1)."

    def test_a_study_without_an_origin_set_says_so(self) -> None:
        study = study_of(("bundled:supervised",), seeds=1, epochs=2, has_origin=False)
        spec = run_specs(study)[0]
        snapshot = _snapshot(made_record(spec, made_results(spec, 6, 3), 2), has_origin=False)
        found = _table(snapshot.records)
        assert forgetting.summary(found, snapshot) == "This study has no origin set."
        assert "add [origin] to the study file" in _text(forgetting.notes(found, snapshot, 78))
        assert forgetting.summary(found, replace(snapshot, has_origin=True)) == "Origin k-NN has not been measured."

    def test_nothing_done_yet(self) -> None:
        record = _record(state=State.RUNNING)
        assert "No run is done yet" in forgetting.summary(_table([record]), _snapshot(record))

    def test_synthetic_images_are_called_so(self) -> None:
        assert "synthetic" in _text(forgetting.notes(_table(_all().records), _all(), 78))

    def test_the_details_of_a_row(self) -> None:
        found = _table(_all().records)
        key = forgetting.sheet(found).rows[0].key
        text = _text(forgetting.detail(found, key, 78))
        assert "bundled:supervised · supervised · full · n = 3" in text
        assert "drop 0.210 ± 0.010 [0.200, 0.220] (32.8 ± 1.6 %)" in text
        assert text.splitlines()[-1].startswith("CKA CLS 0.8") and " Feat 0.7" in text
        assert forgetting.detail(found, "nobody", 78) == ()


class TestProgress:
    def _progress(self, **changes: object) -> StudyProgress:
        base = StudyProgress(
            "training", 0, 0, 12, 5, 0, 60, 120, 750.0, True, {"a": RunProgress(3, 10, 1, 9, 200.4, 0.5)}, (), None
        )
        return replace(base, **changes)  # type: ignore[arg-type]

    def _said(self, progress: StudyProgress | None, width: int = 80) -> str:
        return "".join(span.text for span in progress_line(progress, width))

    def test_a_running_study(self) -> None:
        assert self._said(self._progress()) == " ▶ ━━━━──── training  5 of 12 runs · epoch 60/120 · 12 min left"
        assert "200 images/s" in self._said(self._progress(), 120)
        assert "3 failed" in self._said(self._progress(n_failed=3))
        assert "time left not known yet" in self._said(self._progress(time_left_s=None))
        assert "reading images 3/9" in self._said(self._progress(stage="reading images", stage_done=3, stage_total=9))

    def test_a_study_that_does_not_run_says_nothing_but_its_failure(self) -> None:
        assert self._said(None) == self._said(self._progress(is_running=False)) == ""
        failure = Failure("study.toml", "no such folder", "give another", 2)
        assert "study.toml: no such folder" in self._said(self._progress(is_running=False, failure=failure))

    @pytest.mark.parametrize(
        ("seconds", "said"),
        [(-3.0, "0 s"), (41.6, "42 s"), (3600, "1 h 00 min"), (11_100, "3 h 05 min")],
    )
    def test_durations(self, seconds: float, said: str) -> None:
        assert duration(seconds) == said


class TestSelection:
    KEYS = tuple(SimilarityKey("target", pooling, measure) for pooling in ("cls", "feat") for measure in ("a", "b"))

    def test_the_nearest_similarity_that_is_there(self) -> None:
        assert Selection(pooling="feat", measure="b").key_among(self.KEYS) == SimilarityKey("target", "feat", "b")
        assert Selection(pooling="feat", measure="gone").key_among(self.KEYS) == SimilarityKey("target", "feat", "a")
        assert Selection(pooling="gone", measure="b").key_among(self.KEYS) == SimilarityKey("target", "cls", "b")
        assert Selection(pooling="feat").key_among(self.KEYS) == SimilarityKey("target", "feat", "a")
        assert Selection().key_among(()) == SimilarityKey("target", "cls", "linear_cka")

    def test_epochs(self) -> None:
        assert [Selection(epoch=e).epoch_among(5) for e in (None, 0, 3, 9)] == [4, 0, 3, 4]
        assert Selection().epoch_among(0) == 0

    def test_stepping_goes_around(self) -> None:
        assert [after("abc", "a"), after("abc", "c"), after("abc", "a", -1), after("abc", "x")] == ["b", "a", "c", "a"]
