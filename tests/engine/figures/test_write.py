"""Files of figures: what is written, what is skipped and why, and that nothing is half written."""

from __future__ import annotations

import builtins
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.analysis.options import TableOptions
from engine.analysis.study_data import StudyData, read_study
from engine.errors import MachineError, StudyError
from engine.figures.drawing import Source
from engine.figures.names import FIGURE_NAMES
from engine.figures.style import in_two_lines, labels_of, legible, require_matplotlib, styled
from engine.figures.table import FIGURES
from engine.figures.tables import accuracy_table, similarity_table
from engine.figures.write import draw, to_image, write_figures
from engine.runs.study_folder import StudyFolder
from simtui.figures import report_figures
from tests.engine.analysis.made_runs import made_run
from tests.engine.figures.made_studies import HOSTILE, drawn, in_memory, source_of, with_attention
from tests.simtui.studies import study_of, write_study

SMALL = study_of(("bundled:supervised",), seeds=3, epochs=2)


def _skipped(folder: StudyFolder, to: Path, **options: Any) -> dict[str, str]:
    found = write_figures(folder, to, TableOptions(**options), formats=("png",), dpi=40)
    return {each.name: str(each.reason) for each in found if each.reason is not None}


def test_all_that_a_study_has_is_written_and_the_rest_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = StudyFolder(write_study(tmp_path / "study", SMALL))
    to = tmp_path / "new" / "figures"
    assert report_figures(folder, to, TableOptions(), dpi=50) == 0
    said = capsys.readouterr()
    assert {path.name for path in to.iterdir()} == {
        *(f"{FIGURES[number].file_stem}{suffix}" for number in "1245" for suffix in (".pdf", ".png", ".txt")),
        *(f"table_{name}{suffix}" for name in ("accuracy", "similarity") for suffix in (".tex", ".md")),
    }
    assert f"wrote {to / 'figure1_forgetting.pdf'}, .png, .txt" in said.out
    (line,) = said.err.splitlines()
    assert line.startswith("skipped figure3_attention: ") and "; fix: " in line


def test_nothing_drawn_is_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = StudyFolder(write_study(tmp_path, SMALL))
    assert report_figures(folder, tmp_path / "out", TableOptions(), only=("3",)) == 2
    assert report_figures(folder, tmp_path / "out", TableOptions(layer="$none$")) == 2
    assert "no run has this layer" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_only_and_formats(tmp_path: Path) -> None:
    folder = StudyFolder(write_study(tmp_path / "study", SMALL))
    found = list(write_figures(folder, tmp_path, TableOptions(), only=("5", "tables"), formats=("pdf",)))
    assert [each.name for each in found] == ["figure5_correlation", "table_accuracy", "table_similarity"]
    assert [path.suffix for path in found[0].paths] == [".pdf", ".txt"]


class TestSkipped:
    def test_without_an_origin_set(self, tmp_path: Path) -> None:
        study = study_of(("bundled:supervised",), seeds=2, epochs=1, has_origin=False)
        reasons = _skipped(StudyFolder(write_study(tmp_path / "s", study)), tmp_path)
        assert reasons["figure1_forgetting"] == (
            "origin k-NN: this study has no origin set\n  fix: add [origin] to the study file to measure forgetting"
        )
        assert set(reasons) == {"figure1_forgetting", "figure3_attention"}

    def test_nothing_is_done(self, tmp_path: Path) -> None:
        folder = StudyFolder(write_study(tmp_path / "a study", SMALL, epochs_done=1))
        reasons = _skipped(folder, tmp_path)
        assert set(reasons) == {
            "figure1_forgetting", "figure2_space", "figure3_attention", "figure5_correlation", "table_accuracy",
            "table_similarity",
        }  # fmt: skip
        assert all("a study'" in each for each in reasons.values()), reasons

    def test_a_study_without_results(self, tmp_path: Path) -> None:
        folder = StudyFolder(write_study(tmp_path / "s", SMALL, epochs_done=-1))
        assert len(_skipped(folder, tmp_path)) == 7

    def test_an_unknown_metric_or_run(self, tmp_path: Path) -> None:
        folder = StudyFolder(write_study(tmp_path / "s", SMALL))
        assert "did you mean" in _skipped(folder, tmp_path, metric="test_ec")["figure5_correlation"]
        assert "no run has this in its name" in _skipped(folder, tmp_path, run="nobody")["figure3_attention"]

    def test_maps_without_feat_or_without_pixels(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import engine.figures.attention as module

        source = with_attention(tmp_path)
        record, before, after = module._maps(source, None)
        for changed, words in (
            (replace(before, maps={"cls": before.maps["cls"]}), "no attention maps of feat"),
            (replace(before, pixels=None), "hold no images"),
        ):
            monkeypatch.setattr(module, "_maps", lambda *_, changed=changed: (record, changed, after))
            with pytest.raises(StudyError, match=words):
                draw("3", source, TableOptions())


class TestAwkward:
    def test_one_seed_has_dots_but_no_interval(self, tmp_path: Path) -> None:
        source = source_of(tmp_path, study_of(("bundled:supervised",), seeds=1, epochs=2))
        drawing = drawn("4", source)
        assert not any(line.get_gid() == "interval" for axes in drawing.figure.axes for line in axes.lines)
        assert any(line.startswith("one seed only, so without a band: ") for line in drawing.caption)
        assert accuracy_table(source, TableOptions()).rows[0][2].endswith("± – (1)")  # type: ignore[union-attr]

    def test_nan_metrics_leave_points_out_and_say_so(self, tmp_path: Path) -> None:
        source = source_of(tmp_path, SMALL)
        runs = tuple(
            replace(run, quality={**run.quality, "test_ece": np.full(3, np.nan, np.float32),
                                  "origin_knn": np.full(3, np.nan, np.float32)})
            for run in source.data.runs[:1]
        ) + source.data.runs[1:]  # fmt: skip
        broken = in_memory(source, StudyData(runs))
        assert any("left out: 1 points" in line for line in drawn("5", broken).caption)
        assert any("left out: 1 runs without an origin" in line for line in drawn("1", broken).caption)
        all_nan = tuple(replace(run, quality={**run.quality, "test_ece": np.full(3, np.nan)}) for run in runs)
        with pytest.raises(StudyError, match="0 points have both"):
            drawn("5", in_memory(source, StudyData(all_nan)))

    def test_one_method_and_no_spread(self, tmp_path: Path) -> None:
        source = source_of(tmp_path, SMALL)
        runs = tuple(made_run(f"run{i}", 0.9, 0.8, seed=i, quality={"test_ece": [0.1] * 3}) for i in range(4))
        same = in_memory(source, StudyData(runs))
        for number in ("2", "4", "5"):
            assert to_image(drawn(number, same), "png", 40)[1:4] == b"PNG"

    def test_a_thousand_runs_have_room(self, tmp_path: Path) -> None:
        source = source_of(tmp_path, SMALL)
        draws = np.random.default_rng(0).uniform(0.2, 0.9, (1002, 3))
        runs = tuple(
            made_run(f"run{i}", float(x), float(y), seed=i, method=("full", "linear", "scratch")[i % 3],
                     quality={"test_ece": [0.1, 0.1, float(z)], "origin_knn": [0.6, 0.5, float(z)]})
            for i, (x, y, z) in enumerate(draws)
        )  # fmt: skip
        many = in_memory(source, StudyData(runs))
        from tests.engine.figures.made_studies import crowding

        for number in ("1", "2", "4", "5"):
            assert crowding(drawn(number, many)) == []


class TestFiles:
    def test_a_pdf_embeds_its_fonts_and_is_the_same_every_time(self, tmp_path: Path) -> None:
        source = source_of(tmp_path, SMALL)
        first, second = (to_image(draw("2", source, TableOptions()), "pdf") for _ in range(2))
        assert first.startswith(b"%PDF") and first == second
        assert b"/FontFile2" in first and b"/Type3" not in first and b"CreationDate" not in first

    def test_a_png_has_the_dots_that_are_asked_for(self, tmp_path: Path) -> None:
        content = to_image(draw("5", source_of(tmp_path, SMALL), TableOptions()), "png", 100)
        assert content.startswith(b"\x89PNG") and int.from_bytes(content[16:20], "big") == 330

    def test_hostile_names_are_escaped_in_tables(self, tmp_path: Path) -> None:
        folder = StudyFolder(write_study(tmp_path / "s", study_of(HOSTILE, seeds=2, epochs=1)))
        list(write_figures(folder, tmp_path, TableOptions(), only=("tables",)))
        latex = (tmp_path / "table_accuracy.tex").read_text()
        assert r"\$x\textasciicircum{}2\_\{a\}\$ 100\%" in latex and r"\toprule" in latex
        assert "±" in (tmp_path / "table_similarity.md").read_text()

    def test_no_name_splits_a_line_or_is_obeyed(self, tmp_path: Path) -> None:
        study = study_of(HOSTILE, seeds=2, epochs=1, dataset="skin\x1b[31m\n\u202emoles\u2028")
        folder = StudyFolder(write_study(tmp_path / "s", study))
        list(write_figures(folder, tmp_path, TableOptions(), formats=("png",), dpi=40))
        drawing = draw("2", Source(folder, read_study(folder)), TableOptions())
        assert len((tmp_path / "figure2_space.txt").read_text().split("\n")) == len(drawing.caption) + 1
        for path in (each for suffix in ("txt", "tex", "md") for each in tmp_path.glob(f"*.{suffix}")):
            assert all(char.isprintable() or char == "\n" for char in path.read_text()), path

    def test_the_users_own_style_changes_nothing(self, tmp_path: Path) -> None:
        import matplotlib

        source = source_of(tmp_path, SMALL)
        plain = to_image(draw("5", source, TableOptions()), "png", 50)
        with matplotlib.rc_context({"font.size": 30, "text.parse_math": True, "axes.facecolor": "red"}):
            assert to_image(draw("5", source, TableOptions()), "png", 50) == plain
            assert matplotlib.rcParams["font.size"] == 30

    def test_without_matplotlib(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refused(name: str, *rest: Any, **more: Any) -> Any:
            if name.startswith("matplotlib"):
                raise ImportError(name)
            return real(name, *rest, **more)

        real = builtins.__import__
        monkeypatch.setattr(builtins, "__import__", refused)
        with pytest.raises(MachineError, match=r'needs matplotlib\n  fix: pip install "simtui\[figures\]"'):
            require_matplotlib()

    def test_importing_loads_neither_matplotlib_nor_torch(self) -> None:
        code = "import sys, simtui.figures; print(sorted({'torch', 'matplotlib'} & set(sys.modules)))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"


class TestTables:
    def test_cells_are_mean_sd_and_count(self, tmp_path: Path) -> None:
        source = source_of(tmp_path, SMALL)
        for table, values in (
            (accuracy_table(source, TableOptions()), [run.metric("test_accuracy")[-1] for run in source.data.runs]),
            (similarity_table(source, TableOptions()),
             [run.similarity(TableOptions().key(source.data.records))[-1] for run in source.data.runs]),
        ):  # fmt: skip
            assert table.columns == ("backbone", "dataset", "full", "linear", "scratch")
            full = values[:3]
            expected = f"{np.mean(full):.3f} ± {np.std(full, ddof=1):.3f} (3)"
            assert table.rows[0][:3] == ("bundled:supervised", "dermoscopy", expected)

    def test_a_method_that_a_backbone_lacks_is_a_dash(self, tmp_path: Path) -> None:
        source = source_of(tmp_path, SMALL)
        runs = made_run("a"), made_run("b", backbone="other", method="linear")
        assert accuracy_table(in_memory(source, StudyData(runs)), TableOptions()).rows == (
            ("bundled:supervised", "dermoscopy", "0.800 ± – (1)", "–"),
            ("other", "dermoscopy", "–", "0.800 ± – (1)"),
        )


class TestNames:
    def test_every_figure_has_a_line_of_help(self) -> None:
        assert set(FIGURE_NAMES) == {*FIGURES, "tables"}

    def test_legible(self) -> None:
        assert legible("a\nb\x1b[0m\u202ec") == "a b [0m c"
        assert legible("眼x\udcff") == "\ufffdx\ufffd"
        assert legible("\n") == "(no name)"
        assert legible("abcdefghij", 6) == "abc…ij" and len(legible("x" * 99)) == 28

    def test_labels_stay_apart(self) -> None:
        assert labels_of(["timm:a", "open_clip:a", "a (2)", ":"]) == {
            "timm:a": "a", "open_clip:a": "a (2)", "a (2)": "a (2) (2)", ":": ":",
        }  # fmt: skip

    def test_two_lines(self) -> None:
        assert in_two_lines("short", 9) == "short"
        assert in_two_lines("vit_base_patch16", 10) == "vit_base_\npatch16"
        assert in_two_lines("vit_base_patch16", 8) == "vit_base\n_patch16"
        assert in_two_lines("x" * 12, 8) == f"{'x' * 8}\n{'x' * 4}"


def test_a_style_leaves_no_trace() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    with styled():
        assert matplotlib.rcParams["pdf.fonttype"] == 42
    assert dict(matplotlib.rcParams) == before


def test_fixes_name_a_folder_as_a_shell_takes_it(tmp_path: Path) -> None:
    source = source_of(tmp_path / "it's", SMALL, epochs_done=1)
    with pytest.raises(StudyError) as caught:
        draw("2", Source(source.folder, source.data), TableOptions())
    assert re.search(r"simtui run '.*it'\"'\"'s'", caught.value.fix)
