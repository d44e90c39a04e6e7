"""Names that would take the terminal over, on every view: shown as they are spelt, and nothing raw gets out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from textual.pilot import Pilot

from engine.files import atomic_write
from engine.runs.record import Provenance, State, write_record
from engine.runs.results import Results, SimilarityKey, write_results
from engine.study import freeze_study, run_specs
from tests.simtui.driving import opened, press, written
from tests.simtui.studies import made_record, made_results, study_of

NASTY = "[/] [@click=app.quit]x \x1b[31m\x1b]0;owned\x07\u202e\n\t"


def _hostile_study(path: Path) -> Path:
    """Every string that comes from outside is nasty."""
    study = study_of((f"timm:{NASTY}", f"bundled:{NASTY}2"), seeds=2, epochs=1, name=NASTY, dataset="x")
    atomic_write(path / "study.toml", freeze_study(study))
    for spec in run_specs(study):
        spec = replace(spec, dataset=NASTY)
        made = made_results(spec, 3, 2)
        layers = tuple(f"{NASTY}{i}" for i in range(3))
        odd = NASTY.replace("/", "")  # HDF5 would take it for a path
        results = Results(
            layers, {**made.similarity, SimilarityKey(odd, odd, odd): np.full((2, 3, 3), 0.5)}, made.quality
        )
        run_path = path / "runs" / spec.run_id
        write_results(run_path, results)
        record = made_record(spec, results, 1, 3)
        record = record.with_(provenance=Provenance(paradigm=NASTY, layers=layers, n_probe=5, n_features=9))
        if spec.method == "scratch" and spec.seed:
            record = record.with_(state=State.FAILED, reason=NASTY)
        write_record(run_path, record)
    bad_path = path / "runs" / "zz\x1b[31m[bold]"
    bad_path.mkdir()
    (bad_path / "run.json").write_text("{")
    return path


def _assert_clean(pilot: Pilot[None]) -> None:
    """What every line of every widget would send is printable, and nobody has clicked anything."""
    for line in written(pilot).split("\n"):
        assert line.isprintable(), repr(line)
    for strip in pilot.app.screen._compositor.render_strips():
        assert strip.text.isprintable(), repr(strip.text)


@pytest.mark.parametrize("size", [(60, 20), (120, 40)])
async def test_no_view_lets_a_name_do_anything(tmp_path: Path, size: tuple[int, int]) -> None:
    async with opened(_hostile_study(tmp_path / "s"), size=size) as pilot:
        for keys in (
            ("1", "G", "g"),
            ("2", "l", "p", "m", "n"),
            ("3", "j", "v", "v"),
            ("3", "d"),
            ("4", "l"),
            ("5", "t", "t"),
            ("6", "l"),
            ("7", "j"),
            ("8",),
            ("e",),
        ):
            await press(pilot, *keys)
            _assert_clean(pilot)
        await press(pilot, "question_mark")
        _assert_clean(pilot)


async def test_a_hostile_name_is_shown_as_it_is_spelt(tmp_path: Path) -> None:
    async with opened(_hostile_study(tmp_path / "s"), size=(120, 40)) as pilot:
        text = written(pilot)
        assert "[/] [@click=app.quit]x" in text
        assert "\\x1b[31m" in text and "\\u202e\\n\\t" in text
        await press(pilot, "G", "enter")
        assert "zz\\x1b[31m[bold]" in written(pilot)


async def test_a_folder_with_a_hostile_name_that_is_no_study(tmp_path: Path) -> None:
    path = tmp_path / "no[bold]\x1b[31m\nstudy"
    path.mkdir()
    async with opened(path) as pilot:
        _assert_clean(pilot)
        assert "no[bold]\\x1b[31m\\nstudy" in written(pilot)
