"""The README names all that a user can ask for: tables grow, and it must not fall behind."""

from __future__ import annotations

import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from engine.analysis.tables import TABLES
from engine.backbones.bundled import BUNDLED
from engine.data.layouts import LAYOUTS
from engine.data.options import DataOptions
from engine.finetune.methods import METHODS
from engine.measures import MEASURES
from engine.quality import QUALITY
from engine.study import load_study
from simtui.cli import commands

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")


@pytest.mark.parametrize("name", [*MEASURES, *TABLES, *LAYOUTS, *(f"bundled:{name}" for name in BUNDLED)])
def test_every_name_is_there(name: str) -> None:
    assert f"`{name}`" in README


def test_every_setting_of_a_dataset_is_there() -> None:
    assert all(f"`{each.name}`" in README for each in fields(DataOptions))


def test_every_method_and_setting_of_one_is_there() -> None:
    for method in METHODS.values():
        row = next(line for line in README.splitlines() if line.startswith(f"| `{method.name}` | "))
        assert all(f"`{each.name}`" in row for each in fields(method.settings or type(method)) if method.settings)


def test_every_quality_metric_and_command_is_there() -> None:
    assert all(f'"{name}"' in README for name in QUALITY)
    visible = [name for name, command in commands.commands.items() if not command.hidden]
    assert all(f"simtui {name}" in README for name in visible)


def test_the_study_file_of_the_readme_is_one(tmp_path: Path) -> None:
    text = README.split("```toml\n")[1].split("```")[0]
    (tmp_path / "study.toml").write_text(text)
    study = load_study(tmp_path / "study.toml")
    assert study.study.name == tomllib.loads(text)["study"]["name"] == "isic2018"
    assert len(study.backbone) == 3
