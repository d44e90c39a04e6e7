"""Runs of networks whose layers are stages: batch statistics, depths, resuming, and what is said of attention."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from engine.activations.extract import extract
from engine.activations.store import ActivationStore, activation_key
from engine.backbones import load_backbone
from engine.backbones.torchvision_guard import guard
from engine.errors import StudyError
from engine.files import sha256_file
from engine.finetune.evaluate import check_computable
from engine.finetune.learner import Classifier, _depths, restore_backbone
from engine.finetune.optimiser import Depths, parameter_groups
from engine.finetune.reference import load_reference_backbone
from engine.finetune.run import execute_run
from engine.finetune.trainer import _ends
from engine.jobs.launch import make_study_folder
from engine.jobs.plan import PLAN_FILE, read_plan
from engine.jobs.scheduler import queue_runs
from engine.runs.record import RunRecord, State, write_record
from engine.runs.results import Results, SimilarityKey, read_results
from engine.study import MeasureSection, load_study
from tests.engine.finetune.test_run import Site, Watcher
from tests.studies import save_timm_weights, write_timm_study

guard()

RESNET = "test_resnet.r160_in1k"
FEAT = SimilarityKey("target", "feat", "linear_cka")
Finished = tuple[RunRecord, Path, Results]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("study")
    folder = make_study_folder(load_study(write_timm_study(path, [RESNET])), path / "out")
    queue_runs(folder)
    return Site(folder)


@pytest.fixture(scope="module")
def finished(site: Site, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Finished]:
    found = {}
    for method, spec in site.specs.items():
        path = tmp_path_factory.mktemp("runs") / method
        record = site.run(path, spec)
        assert record.state is State.DONE
        found[method] = (record, path, read_results(path))
    return found


def test_the_plan_says_that_there_is_no_attention(site: Site) -> None:
    (note,) = [each for each in read_plan(site.folder.path / PLAN_FILE).notes if "attention" in each]
    assert "its layers are stages of maps, which have no CLS token" in note
    assert site.bench.reference.attention is None


def test_epoch_0_is_the_pre_trained_model_and_layers_of_all_widths_are_compared(finished: dict[str, Finished]) -> None:
    for method, (_, _, found) in finished.items():
        assert {key.pooling for key in found.similarity} == {"feat"}
        assert found.layers == ("act1", "layer1", "layer2", "layer3", "layer4")
        for key, maps in found.similarity.items():
            assert maps.shape == (3, 5, 5)
            same = np.diagonal(maps, axis1=1, axis2=2)
            if method != "scratch":
                np.testing.assert_allclose(same[0], 1, atol=1e-6)
            if method == "linear":
                np.testing.assert_array_equal(maps[0], maps[2])
            if method == "full" and key.measure == "linear_cka":
                assert (same[2] < 0.9999).any()
        assert not any(name.startswith("attention") for name in found.layer_quality)
        assert found.quality["origin_knn"].shape == (3,)


def test_similarity_is_that_of_the_stored_activations_by_an_independent_formula(
    site: Site, finished: dict[str, Finished]
) -> None:
    _, path, found = finished["full"]
    bench = site.bench
    weights = path / "checkpoints/epoch-002.safetensors"
    key = activation_key(sha256_file(weights), bench.inputs.probe_digest, (f"timm:{RESNET}",))
    own = ActivationStore(site.folder.activations_path).load(key, bench.inputs.probe_ids)
    assert own is not None
    theirs = bench.reference.probe
    assert len({each.shape[1] for each in own.pooled["feat"]}) > 1
    n = len(own.ids)
    centre = np.eye(n) - 1 / n
    for i in range(5):
        for j in range(5):
            x = centre @ theirs.pooled["feat"][i].astype(np.float64)
            y = centre @ own.pooled["feat"][j].astype(np.float64)
            expected = np.sum((y.T @ x) ** 2) / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))
            assert found.similarity[FEAT][2, i, j] == pytest.approx(expected, abs=1e-5)


def test_full_moves_the_running_statistics_and_its_checkpoint_gives_them_back(
    site: Site, finished: dict[str, Finished]
) -> None:
    _, path, _ = finished["full"]
    backbone = load_reference_backbone(site.specs["full"].backbone, torch.device("cpu"))
    before = {name: values.clone() for name, values in backbone.named_buffers()}
    assert any(name.endswith("running_var") for name in before)
    restore_backbone(backbone, path / "checkpoints/epoch-002.safetensors")
    after = dict(backbone.named_buffers())
    moved = [name for name in before if not torch.equal(before[name], after[name])]
    assert moved == list(before)
    assert {int(after[name]) for name in before if name.endswith("num_batches_tracked")} == {6}  # 2 epochs of 3 batches
    inputs = site.bench.inputs
    seen = inputs.probe_activations(extract(backbone.eval(), inputs.splits["test"], layer_rows=inputs.probe_rows))
    key = activation_key(
        sha256_file(path / "checkpoints/epoch-002.safetensors"), inputs.probe_digest, (f"timm:{RESNET}",)
    )
    kept = ActivationStore(site.folder.activations_path).load(key, inputs.probe_ids)
    assert kept is not None
    for one, other in zip(seen.pooled["feat"], kept.pooled["feat"], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("method", ["full", "scratch"])
def test_a_run_that_was_cut_off_ends_bit_by_bit_as_if_it_had_not_been(
    site: Site, finished: dict[str, Finished], tmp_path: Path, method: str
) -> None:
    path = tmp_path / method
    with pytest.raises(KeyboardInterrupt):
        site.run(path, site.specs[method], Watcher(break_at=(2, 2)))
    assert site.run(path, site.specs[method]).state is State.DONE
    _, whole, _ = finished[method]
    for name in ("results.h5", "history.csv", "checkpoints/epoch-002.safetensors"):
        assert sha256_file(path / name) == sha256_file(whole / name), name


def test_the_last_image_of_an_epoch_is_not_normalised_alone(site: Site, tmp_path: Path) -> None:
    n = len(site.bench.inputs.splits["train"].items)
    spec = site.specs["full"]
    spec = replace(spec, epochs=1, finetune=replace(spec.finetune, batch_size=n - 1, warmup_epochs=0))
    path = tmp_path / "full"
    assert site.run(path, spec).state is State.DONE
    alone = replace(spec, finetune=replace(spec.finetune, batch_size=1))
    write_record(tmp_path / "alone", record := RunRecord("alone", alone))
    with pytest.raises(StudyError, match=r"batch_size = 1, \d+ training images: the backbone normalises each batch"):
        execute_run(tmp_path / "alone", record, site.bench, Watcher())


def test_batches_are_what_they_were_where_nothing_is_normalised() -> None:
    for n, size in ((65, 64), (64, 64), (3, 64), (1, 1), (130, 64)):
        assert _ends(n, size, False) == [min((i + 1) * size, n) for i in range(-(-n // size))]
    assert _ends(65, 64, True) == [65]
    assert _ends(129, 64, True) == [64, 129]
    assert _ends(66, 64, True) == [64, 66]


def groups_of(model: nn.Module, depths: Depths) -> dict[str, tuple[int, bool]]:
    """Of every parameter its depth and whether its weights decay."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {}
    for group in parameter_groups(model, 0.1, 0.5, depths):
        depth = depths.n_layers + 1 + round(np.log2(float(group["lr_scale"])))  # type: ignore[arg-type]
        for parameter in group["params"]:  # type: ignore[attr-defined]
            found[names[id(parameter)]] = (depth, group["weight_decay"] == 0.1)
    assert len(found) == len(names)
    return found


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "test_resnet.r160_in1k",
            {"conv1.0.weight": (0, True), "bn1.weight": (0, False), "layer1.0.conv1.weight": (2, True),
             "layer4.0.bn1.bias": (5, False)},
        ),
        (
            "test_convnext.r160_in1k",
            {"stem.0.weight": (0, True), "stages.0.blocks.0.conv_dw.weight": (1, True),
             "stages.3.downsample.1.weight": (4, True), "stages.3.blocks.0.gamma": (4, False),
             "head.norm.weight": (5, False)},
        ),
        (
            "densenet121.ra_in1k",  # a transition stands between two of the stages: it belongs to the later
            {"features.conv0.weight": (0, True), "features.norm0.weight": (1, False),
             "features.denseblock1.denselayer1.conv1.weight": (2, True),
             "features.transition1.conv.weight": (3, True), "features.norm5.weight": (5, False)},
        ),
        (
            "swin_tiny_patch4_window7_224.ms_in1k",
            {"patch_embed.proj.weight": (0, True), "layers.0.blocks.0.attn.qkv.weight": (1, True),
             "layers.1.downsample.reduction.weight": (2, True), "norm.weight": (5, False),
             "layers.3.blocks.1.attn.relative_position_bias_table": (4, False)},
        ),
    ],
)  # fmt: skip
def test_depth_follows_the_stages(tmp_path: Path, name: str, expected: dict[str, tuple[int, bool]]) -> None:
    weights = save_timm_weights(tmp_path / "w.safetensors", name)
    backbone = load_backbone(f"timm:{name}", weights=weights)
    found = groups_of(Classifier(backbone, nn.Linear(backbone.info.n_features, 3)), _depths(backbone))
    assert {key: found[f"backbone.model.{key}"] for key in expected} == expected
    last = backbone.info.n_blocks + 1
    assert (found["head.weight"], found["head.bias"]) == ((last, True), (last, False))


def test_a_measure_that_matches_features_cannot_compare_stages() -> None:
    rng = np.random.default_rng(0)
    pooled = {"feat": tuple(rng.standard_normal((30, d)).astype(np.float16) for d in (4, 4, 8))}
    problem = 'measure.similarity "row_cosine": matches features one by one; the layers have 4, 8'
    with pytest.raises(StudyError, match=problem):
        check_computable(pooled, MeasureSection(similarity=("row_cosine",)))
    check_computable({"feat": pooled["feat"][:2]}, MeasureSection(similarity=("row_cosine",)))
    check_computable(pooled, MeasureSection(similarity=("linear_cka", "debiased_cka", "procrustes", "svcca", "rsa")))
