"""The app on a study of every method: all can be told apart, and a mixture's epochs that are not there tear nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from engine.finetune.methods import METHODS
from engine.runs.record import State
from engine.runs.results import write_results
from engine.runs.study_folder import StudyFolder
from engine.study import run_specs
from simtui.screens.new_study import NewStudyScreen
from simtui.selection import Selection
from simtui.views.layer_map import layer_map, readout
from simtui.views.scatter import legend_lines, marks
from simtui.widgets.choices import Choices
from simtui.widgets.lines import Lines
from tests.simtui.driving import app_of, opened, press, text_of, until, written
from tests.simtui.studies import made_record, made_results, study_of, write_attention_maps, write_study

ALL = (*METHODS, "wise_ft:0.25", "wise_ft:0.75")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two backbones, two seeds, three epochs; of mixtures the first and the last alone."""
    path = tmp_path_factory.mktemp("methods") / "study"
    study = study_of(("bundled:supervised", "bundled:image-text"), seeds=2, epochs=3, methods=ALL)
    write_study(path, study)
    for spec in run_specs(study):
        if spec.method.startswith("wise_ft"):
            whole = made_results(spec, 6, 4)
            kept = whole.first_epochs(1).without_epoch().without_epoch()
            last = {key: maps[3] for key, maps in whole.similarity.items()}
            results = kept.with_epoch(last, {name: float(values[3]) for name, values in whole.quality.items()})
            write_results(path / "runs" / spec.run_id, results)
            assert made_record(spec, whole, 3).state is State.DONE
    write_attention_maps(path)
    return path


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_every_view_stands(folder: Path, size: tuple[int, int]) -> None:
    async with opened(folder, size=size) as pilot:
        for key in "123456789":
            await press(pilot, key)
            text = written(pilot)
            assert "nan" not in text.lower().split() and "Traceback" not in text
            for more in ("right", "down", "up", "left"):
                await press(pilot, more)
        assert app_of(pilot).is_running


def test_an_epoch_of_a_mixture_that_is_not_there_is_called_that(folder: Path) -> None:
    study = StudyFolder(folder)
    records = {record.spec.method: record for record in study.listing().records}
    for method, epoch, is_there in (("wise_ft", 1, False), ("wise_ft", 3, True), ("full", 1, True)):
        results = study.results(records[method].run_id)
        shown = layer_map(records[method], results, replace(Selection(), epoch=epoch))
        assert shown is not None and shown.is_absent is not is_there
        assert ("not there, as the weights" in shown.summary) is not is_there
        said = "".join(span.text for span in readout(shown, 200))
        assert ("not there: no weights of this epoch" in said) is not is_there and "undefined" not in said
    summary = layer_map(records["lora"], study.results(records["lora"].run_id), Selection())
    assert summary is not None and summary.summary.startswith("Fine-tuning (lora) of bundled:")


def test_runs_of_every_method_have_a_mark_of_their_own() -> None:
    for is_colorless in (False, True):
        found = marks(("a", "b", "c", "d"), is_colorless)
        shown = [(found.glyph(method, name), found.color(name)) for method in ALL for name in found.backbones]
        assert len(set(shown)) == len(shown)
        lines = legend_lines(found.legend(ALL), 80)
        text = " ".join(span.text for each in lines for span in each)
        assert all(name in text for name in ALL) and len(lines) <= 4
        for each in lines:
            assert sum(len(span.text) for span in each) <= 82
            assert each[-1].text.strip()  # a mark is never the last of its line


async def test_the_methods_of_a_new_study_go_past_the_edge_with_the_cursor(tmp_path: Path) -> None:
    async with opened(tmp_path, size=(80, 24)) as pilot:
        app_of(pilot).push_screen(NewStudyScreen())
        await until(pilot, lambda: isinstance(app_of(pilot).screen, NewStudyScreen))
        row = app_of(pilot).screen.query_one("#methods", Choices)
        row.focus()
        await pilot.pause()
        seen = []
        for name in METHODS:
            assert row.key == name
            text = row.render_line(0).text
            assert len(text) == row.size.width and f"] {name}" in text
            seen.append(text)
            await pilot.press("right")
        assert seen[0].rstrip().endswith("…") and seen[-1].startswith("… ") and not seen[-1].rstrip().endswith("…")
        await pilot.press("space")
        assert "covariance_alignment" in app_of(pilot).screen.form.methods  # type: ignore[attr-defined]
        # A click takes what is under it, wherever the row begins.
        place = row.render_line(0).text.index("cka_penalty")
        await pilot.click(row, offset=(place + 2, 0))
        assert "cka_penalty" in app_of(pilot).screen.form.methods  # type: ignore[attr-defined]


@pytest.mark.parametrize(("size", "is_whole"), [((80, 24), False), ((120, 60), True)])
async def test_curves_that_have_no_room_in_the_legend_are_counted(
    folder: Path, size: tuple[int, int], is_whole: bool
) -> None:
    async with opened(folder, size=size) as pilot:
        await press(pilot, "3")
        said = text_of(pilot, "legend")
        assert ("covariance_alignment" in said) is is_whole
        assert ("6 curves more: in a higher terminal" in said) is not is_whole
        marks_ = [line.split()[0] for line in app_of(pilot).screen.query_one("#legend", Lines).text.splitlines()[1:]]
        assert marks_[:8] == ["━━"] * 8
        if is_whole:
            assert marks_[:9] == ["━━"] * 9 and marks_[9:14] == ["j", "k", "l", "m", "n"]


async def test_the_table_of_differences_says_which_groups_are_pairs(tmp_path: Path) -> None:
    path = write_study(tmp_path / "s", study_of(("bundled:supervised",), 6, 2, methods=("full", "linear", "wise_ft")))
    async with opened(path, size=(120, 40), view="5") as pilot:
        await press(pilot, "t")
        rows = [text for text in written(pilot).splitlines() if "−" in text]
        assert all(("6 pairs" in text) == ("full − wise_ft" in text) for text in rows) and len(rows) == 6
        assert not any("[–" in text for text in rows)
