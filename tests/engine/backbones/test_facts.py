"""What is written down of backbones is what the libraries say; any other name is asked of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.backbones.facts import RECOMMENDED, BackboneFacts, weights_place
from engine.errors import StudyError, WeightsError
from engine.jobs import describe, estimate
from engine.jobs.describe import facts_of


@pytest.mark.parametrize("known", RECOMMENDED, ids=lambda each: each.name)
def test_what_is_written_down_is_what_the_libraries_say(known: BackboneFacts) -> None:
    assert facts_of(known.name) == known


def test_another_name_is_described_and_a_misspelt_one_gets_the_nearest() -> None:
    found = facts_of("timm:vit_base_patch16_siglip_224.webli")
    assert (found.n_poolings, found.paradigm, found.n_blocks) == (1, "image-text", 12)  # it has no CLS token
    with pytest.raises(StudyError) as caught:
        facts_of("timm:vit_bas_patch16_224.augreg_in21k")
    assert "timm:vit_base_patch16_224.augreg_in21k" in caught.value.fix


def test_a_file_that_is_no_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such file"):
        facts_of("bundled:supervised", tmp_path / "none.safetensors")


def test_the_processes_print_an_answer_or_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert describe.main(["bundled:supervised"]) == 0
    assert BackboneFacts.of(json.loads(capsys.readouterr().out)) == RECOMMENDED[0]
    assert describe.main(["bundled:nothing"]) == 2
    assert json.loads(capsys.readouterr().out)["problem"]


def test_a_measurement_for_a_study_needs_no_weights(capsys: pytest.CaptureFixture[str]) -> None:
    assert estimate.main(["bundled:supervised", "--probe", "16"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert min(found["train_images_per_s"], found["head_images_per_s"], found["compare_s"]) > 0
    assert found["n_workers"] >= 1
    assert estimate.main(["bundled:nothing", "--probe", "16"]) == 2


def test_weights_lie_in_the_package_a_file_the_cache_or_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundled, vit = RECOMMENDED[0], RECOMMENDED[3]
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert weights_place(bundled) == "bundled"
    assert weights_place(bundled, tmp_path / "none.safetensors") == "absent"
    (tmp_path / "w.safetensors").touch()
    assert weights_place(vit, tmp_path / "w.safetensors") == "file"
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda repository, file: None)
    assert weights_place(vit) == "absent"
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda repository, file: f"/{repository}/{file}")
    assert weights_place(vit) == "cached"
