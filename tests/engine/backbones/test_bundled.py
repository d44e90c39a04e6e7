"""The bundled trio: networks of one size, weights that fit, and a path to them from a checkout and from a wheel."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from engine.backbones import bundled_places
from engine.backbones.bundled import BUNDLED, build, bundled_weights_path
from engine.errors import StudyError, WeightsError

NAMES = tuple(BUNDLED)


def n_parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_trio_has_one_backbone_of_each_paradigm() -> None:
    assert {spec.paradigm for spec in BUNDLED.values()} == {"supervised", "image-text", "self-supervised"}
    assert all(spec.name == name and spec.weights_file == f"{name}.safetensors" for name, spec in BUNDLED.items())


def test_image_towers_are_of_one_size() -> None:
    towers = [getattr(build(name), "visual", None) or build(name) for name in NAMES]
    sizes = [n_parameters(tower) for tower in towers]
    assert all(1.2e6 < size < 1.25e6 for size in sizes)
    assert max(sizes) - min(sizes) <= 128 * 128 + 256  # CLIP's projection and its norm before the blocks


@pytest.mark.parametrize("name", NAMES)
def test_networks_read_64_pixels_into_128_features(name: str) -> None:
    model = build(name).eval()
    images = torch.zeros(2, 3, 64, 64)
    assert (model.visual if hasattr(model, "visual") else model)(images).shape == (2, 128)


@pytest.mark.parametrize("name", NAMES)
def test_shipped_weights_fit_strictly_and_are_finite(name: str) -> None:
    path = bundled_weights_path(name)
    state = load_file(path)
    build(name).load_state_dict(state, strict=True)
    assert all(tensor.isfinite().all() for tensor in state.values())
    with safe_open(path, "pt") as file:
        facts = file.metadata()
    assert facts["paradigm"] == name and facts["synthetic"] == "true" and set(facts) >= {"recipe", "seed"}


def test_shipped_weights_are_small() -> None:
    assert sum(bundled_weights_path(name).stat().st_size for name in NAMES) < 12e6


@pytest.mark.parametrize("folder", ["sample_runs", "simtui/sample_runs"], ids=["checkout", "wheel"])
def test_weights_are_found_in_a_checkout_and_beside_the_installed_app(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    monkeypatch.setattr(bundled_places, "__file__", str(tmp_path / "engine" / "backbones" / "bundled_places.py"))
    path = tmp_path / folder / "weights" / "supervised.safetensors"
    path.parent.mkdir(parents=True)
    shutil.copy(bundled_weights_path_of_checkout("supervised"), path)
    assert bundled_weights_path("supervised") == path


def bundled_weights_path_of_checkout(name: str) -> Path:
    return Path(__file__).parents[3] / "sample_runs" / "weights" / f"{name}.safetensors"


def test_missing_weights_say_where_they_were_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled_places, "__file__", str(tmp_path / "engine" / "backbones" / "bundled_places.py"))
    with pytest.raises(WeightsError, match="weights are missing") as caught:
        bundled_weights_path("image-text")
    assert str(tmp_path / "sample_runs" / "weights" / "image-text.safetensors") in caught.value.problem
    assert "pretrain.py image-text" in caught.value.fix


@pytest.mark.parametrize("function", [build, bundled_weights_path])
def test_an_unknown_name_is_refused(function) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(StudyError, match="no such bundled backbone"):
        function("dino")


def test_the_names_are_known_without_torch() -> None:
    code = "import sys; from engine.backbones.bundled import BUNDLED; print('torch' in sys.modules, len(BUNDLED))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == ["False", "3"]
