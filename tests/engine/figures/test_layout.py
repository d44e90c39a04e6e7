"""No text of any figure lies over another or runs out of the page, whatever the study is like and is called."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.figures.table import FIGURES
from engine.runs.study_folder import StudyFolder
from tests.engine.figures.made_studies import (
    HOSTILE,
    Source,
    crowding,
    drawn,
    read_study,
    source_of,
    texts,
    with_attention,
)
from tests.simtui.studies import study_of

SAMPLE = Path(__file__).parents[3] / "sample_runs" / "sample_study"
STUDIES = {
    "three backbones": study_of(seeds=4, epochs=4),
    "one backbone, one seed": study_of(("bundled:supervised",), seeds=1, epochs=2),
    "two backbones": study_of(("bundled:supervised", "bundled:image-text"), seeds=2, epochs=1),
    "hostile names": study_of(HOSTILE, seeds=3, epochs=2),
    "long names": study_of(
        ("timm:vit_base_patch16_224.augreg_in21k", "open_clip:ViT-B-16/laion2b_s34b_b88k",
         "timm:vit_base_patch14_dinov2.lvd142m"), seeds=20, epochs=2,
    ),
    "one long name": study_of((f"open_clip:ViT-B-16/{'laion2b_s34b_' * 4}",), seeds=2, epochs=1),
    **{
        f"{n} backbones": study_of(
            tuple(f"timm:vit_base_patch16_224.augreg_in21k_v{i}" for i in range(n)), seeds=2, epochs=2
        )
        for n in (4, 7, 10)
    },
}  # fmt: skip


@pytest.mark.parametrize("name", STUDIES)
def test_texts_keep_apart(tmp_path: Path, name: str) -> None:
    source = source_of(tmp_path, STUDIES[name])
    for number in FIGURES:
        if number != "3":
            assert crowding(drawn(number, source)) == [], number


def test_texts_keep_apart_over_attention_maps(tmp_path: Path) -> None:
    source = with_attention(tmp_path, tuple(f"{name}/{i} $x_{{2}}$.png" for i, name in enumerate(HOSTILE * 2)))
    assert crowding(drawn("3", source)) == []


def test_the_sample_study_can_be_drawn() -> None:
    folder = StudyFolder(SAMPLE)
    source = Source(folder, read_study(folder))
    for number in ("1", "2", "4", "5"):
        assert crowding(drawn(number, source)) == [], number


@pytest.mark.parametrize("number", FIGURES)
def test_every_text_is_a_font_size_that_can_be_read(tmp_path: Path, number: str) -> None:
    drawing = drawn(number, with_attention(tmp_path))
    assert min(text.get_fontsize() for text in texts(drawing)) >= 5.5
    assert drawing.figure.get_figwidth() in (3.3, 6.9)
