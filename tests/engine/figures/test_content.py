"""What each figure shows: the numbers of the analysis, on axes that say what they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.analysis.correlation import correlation
from engine.analysis.distribution import distributions
from engine.analysis.forgetting import forgetting_table
from engine.analysis.options import TableOptions
from engine.analysis.space import space
from engine.analysis.trajectory import trajectories
from engine.figures.drawing import Source
from engine.figures.style import legend_above, mark_of, method_handles, new_figure
from engine.finetune.methods import METHODS
from tests.engine.figures.made_studies import HOSTILE, drawn, lines, source_of, texts, with_attention
from tests.simtui.studies import study_of

OPTIONS = TableOptions()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return source_of(tmp_path_factory.mktemp("study"))


class TestForgetting:
    def test_means_are_those_of_the_table_of_forgetting(self, source: Source) -> None:
        table = forgetting_table(source.data, replace(OPTIONS, by="backbone"))
        left = drawn("1", source).figure.axes[0]
        shown = [float(each.get_ydata()[0]) for each in lines(left, "mean")]
        expected = zip(table.column("origin_knn_before_mean"), table.column("origin_knn_after_mean"), strict=True)
        assert shown == pytest.approx([value for pair in expected for value in pair])

    def test_every_run_is_a_line_from_before_to_after(self, source: Source) -> None:
        runs = lines(drawn("1", source).figure.axes[0], "run")
        full = [run for run in source.data.done if run.record.spec.method == "full"]
        assert [each.get_ydata().tolist() for each in runs] == [
            [run.metric("origin_knn")[0], run.metric("origin_knn")[-1]] for run in full
        ]

    def test_the_right_panel_is_the_distribution_by_method(self, source: Source) -> None:
        right = drawn("1", source).figure.axes[1]
        found = distributions(source.data, replace(OPTIONS, by="method"))
        shown = {each.get_marker(): each.get_xdata().tolist() for each in lines(right, "runs")}
        assert shown == {mark_of(each.names[0]).marker: list(each.similarity.values) for each in found}
        means = sorted(float(each.get_xdata()[0]) for each in lines(right, "mean"))
        assert means == pytest.approx(sorted(each.similarity.spread.mean or 0 for each in found))

    def test_axes_say_estimator_and_unit(self, source: Source) -> None:
        left, right = drawn("1", source, measure="debiased_cka", pooling="feat").figure.axes
        assert left.get_ylabel() == "Origin k-NN accuracy (%)"
        assert "(linear CKA (debiased), Feat, mean of layers)" in right.get_xlabel()
        assert any("supervised" in label.get_text() for label in left.get_xticklabels())


class TestSpace:
    def test_every_run_is_a_mark_where_the_analysis_puts_it(self, source: Source) -> None:
        found = space(source.data, OPTIONS)
        figure = drawn("2", source).figure
        shown = [point for axes in figure.axes for marks in axes.collections for point in marks.get_offsets().tolist()]
        expected = np.column_stack([found.similarity, found.divergence]).tolist()
        np.testing.assert_allclose(sorted(shown), sorted(expected))

    def test_thresholds_region_and_front(self, source: Source) -> None:
        found = space(source.data, replace(OPTIONS, eta=0.7, epsilon=0.05))
        axes = drawn("2", source, eta=0.7, epsilon=0.05).figure.axes[0]
        assert lines(axes, "eta")[0].get_xdata() == [0.7, 0.7] and lines(axes, "epsilon")[0].get_ydata() == [0.05, 0.05]
        (region,) = axes.patches
        assert (region.get_x(), region.get_y() + region.get_height()) == pytest.approx((0.7, 0.05))
        assert region.get_x() + region.get_width() == pytest.approx(axes.get_xlim()[1])
        rows = [i for i, run in enumerate(found.runs) if run.record.spec.backbone.name == found.references[0].backbone]
        front = sorted(float(found.similarity[i]) for i in rows if found.is_on_front[i])
        assert lines(axes, "front")[0].get_xdata().tolist() == front

    def test_counts_stand_above_each_panel(self, source: Source) -> None:
        found = space(source.data, replace(OPTIONS, epsilon=0.2))
        drawing = drawn("2", source, epsilon=0.2)
        n_full = sum(
            inside for run, inside in zip(found.runs, found.is_inside, strict=True)
            if run.record.spec.method == "full" and run.record.spec.backbone.name == found.references[0].backbone
        )  # fmt: skip
        assert any(f"full {n_full}/4" in text.get_text() for text in drawing.figure.axes[0].texts)

    def test_the_caption_names_thresholds_and_references(self, source: Source) -> None:
        found, caption = space(source.data, OPTIONS), "\n".join(drawn("2", source).caption)
        assert "η = 0.8" in caption and "ε = 0.02" in caption
        for each in found.references:
            assert f"reference of {each.backbone} on {each.dataset}: {each.value:.6g} ({each.run_id})" in caption
        asked = "\n".join(drawn("2", source, reference="0.85").caption)
        assert "0.85, as asked, for every run" in asked


class TestAttention:
    def test_maps_are_in_units_of_the_even_share(self, tmp_path: Path) -> None:
        source = with_attention(tmp_path)
        figure = drawn("3", source).figure
        images = [each for axes in figure.axes for each in axes.images]
        assert len(images) == 4 * 5
        from tests.attention import made_maps

        before, after = made_maps(0), made_maps(1)
        first_row = [np.asarray(each.get_array()) for each in images[:5]]
        rows = [(before, "cls"), (after, "cls"), (before, "feat"), (after, "feat")]
        for shown, (maps, pooling) in zip(first_row[1:], rows, strict=True):
            # Row 2 is the first image of the origin domain; layer 1 the last.
            expected = maps.maps[pooling][2, 1].astype(np.float64).mean(0).reshape(4, 4) * 16
            np.testing.assert_allclose(shown, expected)

    def test_before_and_after_have_one_scale(self, tmp_path: Path) -> None:
        images = [each for axes in drawn("3", with_attention(tmp_path)).figure.axes for each in axes.images]
        limits = {column: {images[5 * row + column].get_clim() for row in range(4)} for column in range(1, 5)}
        assert all(len(each) == 1 for each in limits.values())
        assert limits[1] == limits[2] and limits[3] == limits[4] and limits[1] != limits[3]
        assert next(iter(limits[1]))[0] == 0

    def test_origin_images_come_first_and_the_rest_is_counted(self, tmp_path: Path) -> None:
        drawing = drawn("3", with_attention(tmp_path, tuple(f"x/{i}.png" for i in range(12))), layer="blocks.0")
        labels = [axes.get_ylabel() for axes in drawing.figure.axes if axes.get_ylabel()]
        assert [label.partition("\n")[2] for label in labels] == ["(origin)"] * 4
        assert any("8 more of the attention set are not shown" in line for line in drawing.caption)
        assert drawing.caption[0].startswith("attention of blocks.0, mean over 3 heads; one run: ")


class TestTrajectories:
    def test_means_and_bands_are_those_of_the_analysis(self, source: Source) -> None:
        found = trajectories(source.data, OPTIONS)
        axes = np.array(drawn("4", source).figure.axes).reshape(3, 3)
        backbones = list(dict.fromkeys(each.backbone for each in found))
        for column, backbone in enumerate(backbones):
            mine = [each for each in found if each.backbone == backbone]
            for row, quantity in enumerate(("similarity", "accuracy")):
                for line, each in zip(lines(axes[row, column], "mean"), mine, strict=True):
                    spreads = getattr(each, quantity).spreads
                    assert line.get_ydata().tolist() == [spread.mean for spread in spreads]
                    assert line.get_color() == mark_of(each.method).color
                band = axes[row, column].collections[0].get_paths()[0].vertices[:, 1]
                spreads = getattr(mine[0], quantity).spreads
                assert band.min() == pytest.approx(min(each.low for each in spreads if each.low is not None))
                assert band.max() == pytest.approx(max(each.high for each in spreads if each.high is not None))

    def test_backbones_share_their_scales(self, source: Source) -> None:
        axes = np.array(drawn("4", source).figure.axes).reshape(3, 3)
        for row, name in ((0, "ylim"), (1, "ylim"), (2, "xlim")):
            assert len({getattr(each, f"get_{name}")() for each in axes[row]}) == 1

    def test_every_final_run_is_a_dot(self, source: Source) -> None:
        axes = np.array(drawn("4", source).figure.axes).reshape(3, 3)
        shown = sorted(x for each in axes[2] for line in lines(each, "runs") for x in line.get_xdata().tolist())
        found = distributions(source.data, replace(OPTIONS, by="backbone and method"))
        assert shown == sorted(value for each in found for value in each.similarity.values)


class TestCorrelation:
    def test_points_means_and_lines(self, source: Source) -> None:
        found = correlation(source.data, OPTIONS)
        (axes,) = drawn("5", source).figure.axes
        points = [pair for method in ("full", "linear", "scratch") for line in lines(axes, method)
                  for pair in line.get_xydata().tolist()]  # fmt: skip
        assert sorted(points) == sorted(np.column_stack([found.points.x, found.points.y]).tolist())
        counted = [each for each in found.intervals if each.y.mean is not None]
        assert [line.get_ydata()[0] for line in lines(axes, "mean")] == [each.y.mean for each in counted]
        assert [tuple(line.get_ydata()) for line in lines(axes, "interval")] == [
            (each.y.low, each.y.high) for each in counted
        ]
        for gid, line in (("interval_line", found.interval_line), ("all_line", found.all.line)):
            assert line is not None
            (shown,) = lines(axes, gid)
            assert shown.get_ydata() == pytest.approx([line.at(x) for x in shown.get_xdata()])

    def test_the_legend_tells_what_both_lines_explain(self, source: Source) -> None:
        found = correlation(source.data, OPTIONS)
        told = "\n".join(text.get_text() for text in texts(drawn("5", source)))
        assert found.interval_line is not None and found.all.line is not None
        assert f"R² = {found.interval_line.r_squared:.2f}" in told and f"R² = {found.all.line.r_squared:.2f}" in told
        assert f"{found.points.n} points: r = " in told

    def test_warnings_stand_in_the_caption(self, source: Source) -> None:
        found = correlation(source.data, OPTIONS)
        assert set(found.warnings) <= set(drawn("5", source).caption)


@pytest.mark.parametrize("number", ["1", "2", "4", "5"])
def test_captions_name_runs_estimator_and_that_images_are_generated(source: Source, number: str) -> None:
    caption = "\n".join(drawn(number, source).caption)
    assert "n = 36 runs" in caption or "n = 12 runs" in caption
    assert "linear CKA (biased)" in caption and "Kornblith" in caption and "n = 512 target images" in caption
    assert "the images of this study are generated" in caption


@pytest.mark.parametrize("number", ["1", "2", "4", "5"])
def test_no_name_from_outside_is_obeyed(tmp_path: Path, number: str) -> None:
    drawing = drawn(number, source_of(tmp_path, study_of(HOSTILE, seeds=3, epochs=2)))
    shown = [text for text in texts(drawing) if "x^2_" in text.get_text()]
    assert number == "5" or any("$x^2_{a}$ 100%" in text.get_text() for text in shown)
    assert not any(text.get_parse_math() for text in shown)
    assert all(char.isprintable() or char == "\n" for text in texts(drawing) for char in text.get_text())


def test_every_method_and_either_half_of_the_mixtures_looks_like_no_other() -> None:
    found = [mark_of(method) for method in (*METHODS, "wise_ft:0.25", "wise_ft:0.75", "unknown")]
    assert len({(each.color, each.marker) for each in found}) == len(found)
    assert len({(each.marker, str(each.line)) for each in found}) == len(found)  # without colour too
    assert len({each.marker for each in found[:-1]}) == len(found) - 1


def test_a_legend_of_many_methods_takes_lines_and_not_the_axes() -> None:
    figure = new_figure(6.9, 2.7)
    axes = figure.subplots(1, 3)
    legend_above(figure, method_handles([*METHODS, "wise_ft:0.25", "wise_ft:0.75"]))
    figure.draw_without_rendering()
    assert figure.get_figheight() > 3
    for each in axes:
        box = each.get_window_extent()
        assert box.width > 0.2 * figure.bbox.width and box.height > 1.5 * figure.dpi
    few = new_figure(6.9, 2.7)
    assert legend_above(few, method_handles(["full", "linear", "scratch"]))._ncols == 3  # type: ignore[attr-defined]
    assert few.get_figheight() == 2.7
