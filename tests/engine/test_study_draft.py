"""A draft becomes a study file that the loader reads back to the very choices; what it refuses is refused here."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from engine.errors import StudyError
from engine.finetune.methods import METHODS
from engine.study import load_study
from engine.study_draft import (
    Draft,
    DraftBackbone,
    draft_study,
    draft_text,
    place_of,
    problem_of,
    write_draft,
)

DRAFT = Draft("isic", "/data/ISIC2018", backbones=(DraftBackbone("bundled:supervised"),))


def test_what_was_chosen_is_read_back(tmp_path: Path) -> None:
    backbones = (DraftBackbone("bundled:supervised"), DraftBackbone("timm:a.b", "/w/a.safetensors"))
    draft = Draft("isic", "/data/x", "/data/origin", backbones, ("linear", "full"), 3, 7, 16)
    place = place_of(tmp_path, "isic")
    write_draft(draft, place)
    study = load_study(place.file_path)
    assert study == draft_study(draft, place)
    assert (study.study.name, study.data.path) == ("isic", "/data/x")
    assert study.origin is not None and study.origin.path == "/data/origin"
    assert [(each.name, each.weights) for each in study.backbone] == [
        ("bundled:supervised", None), ("timm:a.b", "/w/a.safetensors"),
    ]  # fmt: skip
    settings = study.finetune
    assert (settings.methods, settings.seeds, settings.epochs, settings.batch_size) == (("linear", "full"), 3, 7, 16)
    assert draft.n_runs == 2 * 2 * 3


def test_the_defaults_in_the_comments_are_those_of_the_loader(tmp_path: Path) -> None:
    """Every `# name = value` and `# [section]` without its mark gives the same study, with its rates spelt out."""
    draft = replace(DRAFT, origin="/data/origin")
    for methods in (draft.methods, tuple(METHODS)):
        draft = replace(draft, methods=methods)
        text = re.sub(r"^# (?=\[[\w.]+\]|\w+ = )", "", draft_text(draft), flags=re.M)
        assert text.count("\n# ") < 3
        (tmp_path / "all.toml").write_text(text)
        study = load_study(tmp_path / "all.toml")
        given = draft_study(draft, place_of(tmp_path, "isic"))
        rates = {name: METHODS[name].learning_rate for name in methods if name != "wise_ft"}
        assert study.finetune.learning_rate == rates
        assert replace(study, finetune=replace(study.finetune, learning_rate={})) == given
        assert "\n[executor]\n" in text and study.executor == given.executor
        assert all(f"[method.{name}]" in text for name in methods if METHODS[name].settings)
    assert rates["full"] == 1e-4 and rates["linear"] == 1e-2 and rates["scratch"] == 5e-4


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", "[/]", "\x1b]0;x\x07", "\u202eabc", "é", "#", "'''"])
def test_paths_of_any_characters_come_back_and_no_control_character_is_written(name: str, tmp_path: Path) -> None:
    draft = replace(DRAFT, data=f"/data/{name}", origin=f"/{name}/o")
    text = draft_text(draft)
    assert all(char.isprintable() or char == "\n" for char in text)
    study = draft_study(draft, place_of(tmp_path, "isic"))
    assert study.data.path == f"/data/{name}" and study.origin is not None and study.origin.path == f"/{name}/o"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": ""}, "images: no folder yet"),
        ({"backbones": ()}, "backbones: none chosen yet"),
        ({"methods": ()}, "methods: none chosen"),
        ({"seeds": "many"}, 'seeds = "many": need an integer'),
        ({"seeds": 0}, "seeds = 0"),
        ({"epochs": ""}, "epochs"),
        ({"backbones": (DraftBackbone("bundled:supervised"),) * 2}, "is named twice"),
        ({"data": os.fsdecode(b"/data/\xff")}, "is not UTF-8"),
    ],
)
def test_what_the_loader_refuses_is_refused(changes: dict[str, object], words: str, tmp_path: Path) -> None:
    place = place_of(tmp_path, "isic")
    with pytest.raises(StudyError, match=re.escape(words)):
        draft_study(replace(DRAFT, **changes), place)  # type: ignore[arg-type]
    assert problem_of(replace(DRAFT, **changes), place) is not None  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a\\b", "-x", ".x", "a\x1bb"])
def test_a_name_is_one_that_a_folder_can_have(name: str, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="cannot be the name of a folder"):
        place_of(tmp_path, name)


def test_another_file_is_never_written_over(tmp_path: Path) -> None:
    place = place_of(tmp_path, "isic")
    write_draft(DRAFT, place)
    write_draft(DRAFT, place)  # the same again is no collision
    assert problem_of(DRAFT, place) is None
    before = place.file_path.read_bytes()
    with pytest.raises(StudyError, match="is there already and says something else"):
        write_draft(replace(DRAFT, seeds=9), place)
    assert place.file_path.read_bytes() == before
    place.file_path.unlink()
    place.file_path.mkdir()
    with pytest.raises(StudyError, match="is there already"):
        write_draft(DRAFT, place)
