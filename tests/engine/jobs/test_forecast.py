"""What a study is said to take: against a real one, and against counts done by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from engine.backbones.facts import RECOMMENDED
from engine.data.pixels import cache_bytes
from engine.data.synthetic import dermoscopy, scenes
from engine.jobs.forecast import Forecast, Images, Speed, forecast, free_bytes
from engine.jobs.launch import make_study_folder, start_study
from engine.study import Study
from engine.study_draft import Draft, DraftBackbone, draft_study, place_of

FACTS = {each.name: each for each in RECOMMENDED}
VIT = "timm:vit_base_patch16_224.augreg_in21k"
SPEED = Speed("cpu", "float32", 100.0, 300.0, 50_000.0, 0.5, 1, 2)
IMAGES = Images(7000, 1500, 1500, 7, n_origin=5000, decode_per_s=200.0)


def study_of(tmp_path: Path, *names: str, origin: str = "", **settings: object) -> Study:
    draft = Draft("s", "/data/x", origin, tuple(map(DraftBackbone, names)), **settings)  # type: ignore[arg-type]
    return draft_study(draft, place_of(tmp_path, "s"))


def part(found: Forecast, name: str) -> float:
    return next(each.amount for each in (*found.disk, *found.time) if each.name == name)


def test_the_disk_of_a_real_study_is_within_a_factor_of_two(tmp_path: Path) -> None:
    dermoscopy.generate(tmp_path / "derm", 100)
    scenes.generate(tmp_path / "scenes", 40)
    draft = Draft(
        "real", str(tmp_path / "derm"), str(tmp_path / "scenes"), (DraftBackbone("bundled:supervised"),),
        ("linear", "scratch"), 1, 1, 32,
    )  # fmt: skip
    place = place_of(tmp_path, "real")
    study = draft_study(draft, place)
    folder = make_study_folder(study, place.study_path)
    assert start_study(folder).wait() == 0, folder.log_path.read_text()
    record = folder.listing().records[0].provenance
    images = Images(record.n_train, record.n_val, record.n_test, record.n_classes, record.n_origin)
    found = forecast(study, images, FACTS, {})
    assert found.n_runs == len(folder.listing().records) == 2

    def taken(*patterns: str) -> int:
        return sum(path.stat().st_size for p in patterns for path in folder.path.glob(p) if path.is_file())

    pairs = {
        "decoded images": taken("probes/**/*"),
        "checkpoints": taken("runs/*/checkpoints/*"),
        "activations": taken("activations/*"),
    }
    for name, real in pairs.items():
        assert real / 2 < part(found, name) < real * 2, (name, real)
    everything = taken("runs/**/*", "probes/**/*", "activations/*")
    assert everything / 1.5 < found.kept_bytes < everything * 1.5


def test_checkpoints_are_those_that_the_study_keeps(tmp_path: Path) -> None:
    """The last epoch of full; the first and the last of scratch; of linear the head alone."""
    model, head = 4 * FACTS[VIT].n_parameters, 4 * 769 * 7
    for methods, n_models, n_heads in ((("full",), 1, 1), (("scratch",), 2, 2), (("linear",), 0, 1)):
        found = forecast(study_of(tmp_path, VIT, methods=methods, seeds=3), IMAGES, FACTS, {})
        assert part(found, "checkpoints") == 3 * (n_models * model + n_heads * head)
    assert found.passing.amount == 0  # linear: nothing large to resume from


def test_the_states_to_resume_from_are_those_of_the_method(tmp_path: Path) -> None:
    """Three of a worker, each the weights and two moments; of ema its average too, of lora little but the weights."""
    model = 4 * FACTS[VIT].n_parameters
    for methods, n_sizes in ((("full",), 3), (("ema",), 4), (("full", "ema"), 4), (("lora", "linear"), 1.1)):
        found = forecast(study_of(tmp_path, VIT, methods=methods), IMAGES, FACTS, {VIT: SPEED})
        assert found.passing.amount == pytest.approx(3 * n_sizes * model * SPEED.n_workers)


def test_activations_are_those_of_the_probe_images(tmp_path: Path) -> None:
    study = study_of(tmp_path, VIT, methods=("full",), seeds=2)
    found = forecast(study, replace(IMAGES, n_test=4000), FACTS, {})
    one = 2048 * 12 * 2 * 768 * 2
    assert one * 3 < part(found, "activations") < one * 3 * 1.3  # θ* and two runs, and the embeddings


def test_decoded_images_are_bounded_by_the_cache_at_each_size(tmp_path: Path) -> None:
    study = study_of(tmp_path, VIT, "bundled:supervised")
    found = forecast(study, IMAGES, FACTS, {})
    both = cache_bytes(10_000, 224) + cache_bytes(10_000, 64)
    assert both <= part(found, "decoded images") < both * 1.01
    small = replace(study, machine=replace(study.machine, cache_gb=0.1))
    assert part(forecast(small, IMAGES, FACTS, {}), "decoded images") < 0.21e9


def test_the_time_is_that_of_the_images_seen(tmp_path: Path) -> None:
    study = study_of(tmp_path, VIT, methods=("full", "linear"), seeds=2, epochs=10)
    found = forecast(study, IMAGES, FACTS, {VIT: SPEED})
    full = 2 * (10 * 7000 / 100 + (11 * 3000 + 7000) / 300 + 11 * 0.5)
    assert part(found, "full") == pytest.approx(full)
    assert part(found, "linear") == pytest.approx(2 * (10 * 7000 / 50_000 + 11 * 0.5))
    assert part(found, "pre-trained models") == pytest.approx(11_500 / 300)
    assert part(found, "decoding") == pytest.approx(10_000 / 200)
    assert found.time_s == pytest.approx(sum(each.amount for each in found.time))
    shared = forecast(study, IMAGES, FACTS, {VIT: replace(SPEED, device="cuda", n_devices=4)})
    assert part(shared, "full") == pytest.approx(full / 4)


def test_devices_that_share_a_run_share_what_trains_a_backbone(tmp_path: Path) -> None:
    plain = study_of(tmp_path, VIT, methods=("full", "linear"), seeds=2, epochs=10)
    study = replace(plain, machine=replace(plain.machine, devices_per_run=2))
    speed = replace(SPEED, device="cuda", n_devices=4, n_workers=4)
    found, alone = (forecast(each, IMAGES, FACTS, {VIT: speed}) for each in (study, plain))
    compared = 2 * 11 * 0.5  # by the process that leads
    assert part(found, "full") == pytest.approx(((part(alone, "full") * 4 - compared) / 2 + compared) / 2)
    assert part(found, "linear") == pytest.approx(2 * part(alone, "linear"))  # the second device of each run waits
    hows = {each.name: each.how for each in found.time}
    assert hows["full"].endswith(", were 2 devices 2 times as fast") and "times as fast" not in hows["linear"]
    assert found.passing.amount == alone.passing.amount / 2
    on_cpu = forecast(study, IMAGES, FACTS, {VIT: SPEED})
    assert part(on_cpu, "full") == part(forecast(plain, IMAGES, FACTS, {VIT: SPEED}), "full")


def test_methods_cost_what_their_training_costs_and_a_mixture_none(tmp_path: Path) -> None:
    methods = ("full", "feature_distillation", "wise_ft")
    found = forecast(study_of(tmp_path, VIT, methods=methods, seeds=2, epochs=10), IMAGES, FACTS, {VIT: SPEED})
    training, rest = 2 * 10 * 7000 / 100, 2 * ((11 * 3000 + 7000) / 300 + 11 * 0.5)
    assert part(found, "full") == pytest.approx(training + rest)
    assert part(found, "feature_distillation") == pytest.approx(1.35 * training + rest)
    assert part(found, "wise_ft") == pytest.approx(rest)
    assert next(each.how for each in found.time if each.name == "wise_ft") == "made from the runs of full"


def test_an_origin_set_costs_two_looks_a_run_and_its_probe_every_epoch(tmp_path: Path) -> None:
    without = forecast(study_of(tmp_path, VIT, methods=("full",), seeds=1), IMAGES, FACTS, {VIT: SPEED})
    with_origin = study_of(tmp_path, VIT, origin="/data/o", methods=("full",), seeds=1)
    found = forecast(with_origin, IMAGES, FACTS, {VIT: SPEED})
    assert part(found, "full") - part(without, "full") == pytest.approx((21 * 512 + 2 * 5000) / 300 + 21 * 0.5)


def test_a_backbone_that_was_not_measured_is_named_and_there_is_no_time(tmp_path: Path) -> None:
    found = forecast(study_of(tmp_path, VIT, "bundled:supervised"), IMAGES, FACTS, {VIT: SPEED})
    assert found.not_measured == ("bundled:supervised",) and found.time_s is None and found.kept_bytes > 0


def test_free_space_is_that_of_the_nearest_folder_that_is_there(tmp_path: Path) -> None:
    assert free_bytes(tmp_path / "not" / "yet") == pytest.approx(free_bytes(tmp_path), rel=0.1)
