"""Whole runs on real image files: what epoch 0 is, what each method changes, and that a resumed run is the same run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.activations.extract import extract, normalised
from engine.backbones.attention import attention_of
from engine.errors import NonFiniteError, TrainingError
from engine.finetune import learner as learner_module
from engine.finetune.checkpoints import Checkpoints
from engine.finetune.reference import load_reference_backbone
from engine.jobs.launch import make_study_folder
from engine.jobs.scheduler import queue_runs
from engine.runs.attention_maps import read_attention
from engine.runs.record import State, read_record
from engine.runs.results import Results, SimilarityKey, read_results
from engine.study import load_study
from tests.engine.finetune.site import Site, Watcher, load_trained
from tests.studies import write_study

CLS = SimilarityKey("target", "cls", "linear_cka")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("study")
    folder = make_study_folder(load_study(write_study(path)), path / "out")
    queue_runs(folder)
    return Site(folder)


@pytest.fixture(scope="module")
def results(site: Site, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Results]]:
    found = {}
    for method, spec in site.specs.items():
        path = tmp_path_factory.mktemp("runs") / method
        record = site.run(path, spec)
        assert record.state is State.DONE
        found[method] = (path, read_results(path))
    return found


def test_every_epoch_has_every_figure_and_epoch_0_is_the_model_before_training(
    results: dict[str, tuple[Path, Results]],
) -> None:
    for _, found in results.values():
        assert found.n_epochs == 3
        assert set(found.quality) == {
            "train_loss", "val_loss", "val_accuracy", "val_balanced_accuracy", "val_auroc", "val_ece",
            "test_loss", "test_accuracy", "test_balanced_accuracy", "test_auroc", "test_ece", "origin_knn",
        }  # fmt: skip
        assert {(key.probe, key.pooling, key.measure) for key in found.similarity} == {
            (probe, pooling, measure)
            for probe in ("target", "origin")
            for pooling in ("cls", "feat")
            for measure in ("linear_cka", "debiased_cka")
        }
        for name, values in found.quality.items():
            assert np.isfinite(values).tolist() == ([True, False, True] if name == "origin_knn" else [True] * 3)


def test_full_starts_as_the_pre_trained_model_and_moves_away(results: dict[str, tuple[Path, Results]]) -> None:
    _, full = results["full"]
    for key, matrices in full.similarity.items():
        if key.measure == "linear_cka":
            np.testing.assert_allclose(np.diagonal(matrices[0]), 1.0, atol=1e-6)
        assert (np.diagonal(matrices[2]) < 1.0).all()
    assert full.quality["train_loss"][2] < full.quality["train_loss"][0]


def test_linear_never_changes_the_representation_but_learns(results: dict[str, tuple[Path, Results]]) -> None:
    _, linear = results["linear"]
    for matrices in linear.similarity.values():
        np.testing.assert_array_equal(matrices[0], matrices[1])
        np.testing.assert_array_equal(matrices[0], matrices[2])
    assert linear.quality["origin_knn"][0] == linear.quality["origin_knn"][2]
    assert linear.quality["train_loss"][2] < linear.quality["train_loss"][0]


def test_scratch_starts_elsewhere(results: dict[str, tuple[Path, Results]]) -> None:
    _, scratch = results["scratch"]
    assert (np.diagonal(scratch.similarity[CLS][0]) < 0.999).all()


def test_similarity_is_that_of_the_stored_activations_by_an_independent_formula(
    site: Site, results: dict[str, tuple[Path, Results]]
) -> None:
    path, full = results["full"]
    backbone = load_reference_backbone(site.specs["full"].backbone, torch.device("cpu"))
    load_trained(backbone, Checkpoints(path).weights_path(2))
    cache = site.bench.inputs.splits["test"]
    theirs = site.bench.reference.probe
    ours = extract(backbone, cache, layer_rows=site.bench.inputs.probe_rows)
    n = len(theirs.ids)
    centre = np.eye(n) - 1 / n
    for i in (0, 5):
        for j in (0, 5):
            x = centre @ theirs.pooled["cls"][i].astype(np.float64)
            y = centre @ ours.pooled["cls"][j].astype(np.float64)
            expected = np.linalg.norm(x.T @ y) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))
            assert full.similarity[CLS][2, i, j] == pytest.approx(expected, abs=1e-5)


def test_the_origin_images_are_compared_from_epoch_0_on(site: Site, results: dict[str, tuple[Path, Results]]) -> None:
    path, full = results["full"]
    key = replace(CLS, probe="origin")
    diagonals = {method: np.diagonal(found.similarity[key], axis1=1, axis2=2) for method, (_, found) in results.items()}
    np.testing.assert_allclose(diagonals["full"][0], 1, atol=1e-6)
    np.testing.assert_allclose(diagonals["linear"], 1, atol=1e-6)
    assert (diagonals["full"][2] < 1).all() and (diagonals["scratch"][0] < 0.999).all()
    assert not np.array_equal(full.similarity[key][2], full.similarity[CLS][2])  # other images
    assert read_record(path).last["linear_cka_cls_origin"] == pytest.approx(
        float(diagonals["full"][2].mean()), abs=1e-6
    )
    inputs = site.bench.inputs
    assert inputs.origin_probe is not None and len(inputs.origin_probe.items) == 24
    keys = [key for key, role in read_record(path).activations.items() if role == "epoch 2"]
    ids = [inputs.probe_ids, tuple(item.id for item in inputs.origin_probe.items)]
    assert all(site.bench.store.load(key, of) is not None for key, of in zip(keys, ids, strict=True))


def test_attention_is_looked_at_before_and_after_training(results: dict[str, tuple[Path, Results]]) -> None:
    names = {
        f"attention_{name}_{domain}_{pooling}"
        for name in ("entropy", "correlation", "overlap", "distance")
        for domain in ("target", "origin")
        for pooling in ("cls", "feat")
        if (name, pooling) != ("distance", "cls")
    }
    for method, (_, found) in results.items():
        assert found.layer_quality.keys() == names
        for name, values in found.layer_quality.items():
            assert np.isfinite(values).all(axis=1).tolist() == [True, False, True], (method, name)
    full, linear, scratch = (results[method][1].layer_quality for method in ("full", "linear", "scratch"))
    for name in names:
        np.testing.assert_allclose(full[name][0], linear[name][0], rtol=1e-5)  # both start as θ*
        np.testing.assert_array_equal(linear[name][0], linear[name][2])
        if "correlation" in name or "overlap" in name:
            np.testing.assert_allclose(full[name][0], 1, atol=1e-3)
            assert (full[name][2] < full[name][0]).all() and (scratch[name][0] < 0.999).all()
        else:
            assert (full[name][2] != full[name][0]).all()


def test_the_maps_of_a_trained_run_are_those_of_its_last_weights(
    site: Site, results: dict[str, tuple[Path, Results]]
) -> None:
    reference = site.bench.reference.attention
    assert reference is not None and reference.pixels is not None
    for method in ("full", "scratch"):
        path, found = results[method]
        kept = read_attention(path / "attention.h5", "")
        assert (kept.images, kept.domains, kept.pixels) == (reference.images, reference.domains, None)
        backbone = load_reference_backbone(site.specs[method].backbone, torch.device("cpu"))
        load_trained(backbone, Checkpoints(path).weights_path(2))
        again = attention_of(backbone, normalised(torch.from_numpy(reference.pixels), backbone.info))
        np.testing.assert_allclose(kept.maps["feat"].astype(float), again.feat.numpy(), atol=1e-4)
        np.testing.assert_allclose(kept.distance, again.distance.numpy(), rtol=1e-4)
        rows = np.array(kept.domains) == "origin"
        entropy = again.feat_entropy.numpy()[rows].mean((0, 2))
        np.testing.assert_allclose(found.layer_quality["attention_entropy_origin_feat"][2], entropy, rtol=1e-5)
    assert not (results["linear"][0] / "attention.h5").exists()
    assert {m: "attention.h5" in read_record(results[m][0]).files for m in results} == {
        "full": True, "linear": False, "scratch": True,
    }  # fmt: skip


def test_without_origin_probe_and_attention_a_run_is_what_it_was(
    site: Site, results: dict[str, tuple[Path, Results]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = site.bench
    inputs = replace(bench.inputs, origin_probe=None, attention={})
    reference = replace(bench.reference, origin_probe=None, attention=None, attention_key="")
    monkeypatch.setattr(site, "bench", replace(bench, inputs=inputs, reference=reference))
    record = site.run(tmp_path / "full", site.specs["full"])
    found, (path, whole) = read_results(tmp_path / "full"), results["full"]
    assert {key.probe for key in found.similarity} == {"target"} and found.layer_quality == {}
    for key, matrices in found.similarity.items():
        np.testing.assert_array_equal(matrices, whole.similarity[key])
    assert "attention.h5" not in record.files and not (tmp_path / "full" / "attention.h5").exists()
    for name in ("history.csv", "checkpoints/epoch-002.safetensors"):
        assert _content(tmp_path / "full" / name) == _content(path / name)


@pytest.mark.parametrize("method", ["full", "linear", "scratch"])
def test_a_run_that_was_cut_off_anywhere_ends_as_if_it_had_not_been(
    site: Site, results: dict[str, tuple[Path, Results]], tmp_path: Path, method: str
) -> None:
    whole_path, _ = results[method]
    path = tmp_path / method
    with pytest.raises(KeyboardInterrupt):
        site.run(path, site.specs[method], Watcher(break_at=(2, 2)))
    assert read_record(path).epochs_done == 1
    assert site.run(path, site.specs[method]).state is State.DONE
    for name in ("results.h5", "history.csv", "attention.h5", "checkpoints/epoch-002.safetensors"):
        if (method, name) != ("linear", "attention.h5"):
            assert _content(path / name) == _content(whole_path / name), name


def test_a_damaged_resume_point_is_passed_over_for_the_one_before(
    site: Site, results: dict[str, tuple[Path, Results]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "full"
    site.run(path, site.specs["full"], Watcher(stop_after=1))
    newest = path / "checkpoints/last/epoch-001.safetensors"
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(bytes(data))
    site.run(path, site.specs["full"])
    assert "epoch-001.safetensors is damaged" in caplog.text
    assert _content(path / "history.csv") == _content(results["full"][0] / "history.csv")


def test_damaged_results_start_the_run_again(
    site: Site, results: dict[str, tuple[Path, Results]], tmp_path: Path
) -> None:
    path = tmp_path / "linear"
    site.run(path, site.specs["linear"], Watcher(stop_after=1))
    (path / "results.h5").write_bytes(b"damaged")
    assert site.run(path, site.specs["linear"]).state is State.DONE
    assert _content(path / "results.h5") == _content(results["linear"][0] / "results.h5")


def test_a_run_that_is_asked_to_stops_after_the_epoch_and_says_so(site: Site, tmp_path: Path) -> None:
    record = site.run(tmp_path / "linear", site.specs["linear"], Watcher(stop_after=1))
    assert (record.state, record.epochs_done) == (State.STOPPED, 1)


def test_a_loss_that_is_not_finite_ends_the_run_and_names_the_last_good_epoch(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = learner_module.augmented

    def poisoned(*arguments: Any) -> torch.Tensor:
        poisoned.calls += 1  # type: ignore[attr-defined]
        return real(*arguments) * (float("nan") if poisoned.calls == 5 else 1.0)  # type: ignore[attr-defined]

    poisoned.calls = 0  # type: ignore[attr-defined]
    monkeypatch.setattr(learner_module, "augmented", poisoned)
    with pytest.raises(TrainingError, match=r"epoch 2, step 2: the loss is nan; the last good epoch is 1") as caught:
        site.run(tmp_path / "full", site.specs["full"])
    assert "finetune.learning_rate.full" in str(caught.value)
    assert read_record(tmp_path / "full").epochs_done == 1


@pytest.mark.parametrize("model", ["the pre-trained model", "this run's model"])
def test_a_layer_that_cannot_be_compared_is_named(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    probe = site.bench.reference.probe
    feat = [layer.copy() for layer in probe.pooled["feat"]]
    feat[3][1, 0] = np.nan
    poisoned = replace(probe, pooled={**probe.pooled, "feat": tuple(feat)})
    if model == "the pre-trained model":
        bench = replace(site.bench, reference=replace(site.bench.reference, probe=poisoned))
        monkeypatch.setattr(site, "bench", bench)
    else:
        real = learner_module.FeatureLearner.observe
        monkeypatch.setattr(
            learner_module.FeatureLearner,
            "observe",
            lambda learner: replace(seen := real(learner), probes={**seen.probes, "target": poisoned}),
        )
    with pytest.raises(NonFiniteError, match=rf"^blocks\.3 \(feat\) of {model}: 1 of .* the first at image 1"):
        site.run(tmp_path / "linear", site.specs["linear"])


def test_too_little_memory_names_a_smaller_batch(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*arguments: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(learner_module, "augmented", exhausted)
    with pytest.raises(TrainingError, match=r"out of memory at batch_size = 8\n  fix: .*batch_size = 4"):
        site.run(tmp_path / "full", site.specs["full"])


def _content(path: Path) -> bytes:
    return path.read_bytes()
