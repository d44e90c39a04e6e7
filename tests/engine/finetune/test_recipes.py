"""Whole runs by every method: what each starts from, keeps and changes, and that a resumed run is the same run."""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.activations.extract import extract
from engine.errors import DamagedError, StudyError
from engine.finetune.checkpoints import Checkpoints, load_checked
from engine.finetune.learner import restore_backbone
from engine.finetune.methods import METHODS, method_of
from engine.finetune.reference import load_reference_backbone
from engine.jobs.launch import make_study_folder
from engine.jobs.scheduler import queue_runs
from engine.measures import debiased_cka
from engine.runs.record import State, read_record, write_record
from engine.runs.results import Results, SimilarityKey, read_results
from engine.study import RunSpec, load_study, needs_run
from tests.engine.finetune.site import Site, Watcher
from tests.studies import write_study
from tests.sweeps import IS_FULL

HAS_PEFT = importlib.util.find_spec("peft") is not None
LORA = pytest.param("lora", marks=pytest.mark.skipif(not HAS_PEFT, reason="peft is not installed"))
TRAINED: list[Any] = [
    LORA, "layer_decay", "lp_ft", "l2_sp", "ema", "feature_distillation", "cka_penalty", "covariance_alignment",
]  # fmt: skip
MIXED = ["wise_ft", "wise_ft:0.25"]
CLS = SimilarityKey("target", "cls", "debiased_cka")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("study")
    names = [each.values[0] if hasattr(each, "values") else each for each in TRAINED]
    methods = ["full", *(name for name in names if name != "lora" or HAS_PEFT), *MIXED]
    rates = "{ full = 1e-3, " + ", ".join(f"{name} = 1e-3" for name in names) + " }"
    file = write_study(path, methods=methods, epochs=2)
    file.write_text(file.read_text() + f"learning_rate = {rates}\n[measure]\nsimilarity = ['debiased_cka']\n")
    folder = make_study_folder(load_study(file), path / "out")
    queue_runs(folder)
    return Site(folder)


class Runs:
    """Runs of a site, each computed when it is first asked for."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._done: dict[str, tuple[Path, Results]] = {}

    def __call__(self, method: str) -> tuple[Path, Results]:
        if method not in self._done:
            spec = self.site.specs[method]
            if needs_run(spec):
                self("full")
            path = self.site.folder.run_path(spec.run_id)
            assert self.site.run(path, spec).state is State.DONE
            self._done[method] = (path, read_results(path))
        return self._done[method]


def beside_full(runs: Runs, folder: Path, spec: RunSpec) -> Path:
    """Where a run that needs that of `full` can be computed anew."""
    full_path, _ = runs("full")
    shutil.copytree(full_path, folder / full_path.name)
    return folder / spec.run_id


@pytest.fixture(scope="module")
def runs(site: Site) -> Runs:
    return Runs(site)


def test_every_method_of_the_table_is_tested_here() -> None:
    names = {each.values[0] if hasattr(each, "values") else each for each in TRAINED}
    assert names | {"wise_ft"} | {"full", "linear", "scratch"} == set(METHODS)


@pytest.mark.parametrize("method", [*TRAINED, *MIXED])
def test_it_begins_as_full_does_and_moves_away(runs: Runs, method: str) -> None:
    (_, full), (_, found) = runs("full"), runs(method)
    assert found.n_epochs == 3 and found.similarity.keys() == full.similarity.keys()
    for key, maps in found.similarity.items():
        np.testing.assert_array_equal(maps[0], full.similarity[key][0])
        assert (np.diagonal(maps[2]) < 1).all() and np.isfinite(maps).all()
    for name, values in full.quality.items():
        assert found.quality[name][0] == pytest.approx(values[0], nan_ok=True, rel=1e-6), name
        if name != "train_loss" or method not in MIXED:
            assert np.isfinite(found.quality[name]).tolist() == np.isfinite(values).tolist(), name
    for name, values in full.layer_quality.items():
        np.testing.assert_array_equal(found.layer_quality[name][0], values[0])
    assert not np.array_equal(found.similarity[CLS][2], full.similarity[CLS][2])


@pytest.mark.parametrize("method", TRAINED if IS_FULL else [LORA, "lp_ft", "ema"])
def test_a_run_that_was_cut_off_anywhere_ends_as_if_it_had_not_been(
    site: Site, runs: Runs, tmp_path: Path, method: str
) -> None:
    whole_path, _ = runs(method)
    path = tmp_path / method
    with pytest.raises(KeyboardInterrupt):
        site.run(path, site.specs[method], Watcher(break_at=(2, 2)))
    assert read_record(path).epochs_done == 1
    write_record(path, read_record(path).with_(run_id=whole_path.name))  # which the weights of a checkpoint name
    assert site.run(path, site.specs[method]).state is State.DONE
    for name in ("results.h5", "history.csv", "attention.h5", "checkpoints/epoch-002.safetensors"):
        assert (path / name).read_bytes() == (whole_path / name).read_bytes(), name


@pytest.mark.parametrize("method", MIXED)
def test_a_mixture_that_was_stopped_ends_as_if_it_had_not_been(
    site: Site, runs: Runs, tmp_path: Path, method: str
) -> None:
    whole_path, _ = runs(method)
    path = beside_full(runs, tmp_path, site.specs[method])
    assert site.run(path, site.specs[method], Watcher(stop_after=1)).epochs_done == 1
    assert site.run(path, site.specs[method]).state is State.DONE
    for name in ("results.h5", "history.csv", "attention.h5", "checkpoints/epoch-002.safetensors"):
        assert (path / name).read_bytes() == (whole_path / name).read_bytes(), name


@pytest.mark.parametrize("method", [*TRAINED, *MIXED])
def test_a_checkpoint_is_that_of_a_plain_model_and_gives_the_results(runs: Runs, method: str) -> None:
    path, found = runs(method)
    weights_path = Checkpoints(path).weights_path(2)
    full_path, _ = runs("full")
    assert load_checked(weights_path)[1].keys() == load_checked(Checkpoints(full_path).weights_path(2))[1].keys()
    site = runs.site
    backbone = load_reference_backbone(site.folder.study.backbone[0], CPU)
    restore_backbone(backbone, weights_path)
    probe = extract(backbone, site.bench.inputs.splits["test"], layer_rows=site.bench.inputs.probe_rows)
    reference = site.bench.reference.probe
    for layer in (0, 5):
        value = debiased_cka(reference.pooled["cls"][layer], probe.pooled["cls"][layer])
        assert found.similarity[CLS][2, layer, layer] == pytest.approx(float(value), abs=1e-5)


@pytest.mark.parametrize("method", ["l2_sp", "feature_distillation", "cka_penalty", "covariance_alignment"])
def test_what_a_method_adds_to_the_loss_stands_beside_it(runs: Runs, method: str) -> None:
    values = runs(method)[1].quality["train_penalty"]
    assert np.isnan(values[0]) and (values[1:] > 0).all()
    assert "train_penalty" not in runs("full")[1].quality


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("l2_sp", {"alpha": 1e4, "beta": 0.0}),
        ("feature_distillation", {"weight": 100.0}),
        ("layer_decay", {"decay": 0.1}),
    ],
)
def test_the_stronger_it_is_the_nearer_a_run_stays_to_the_pre_trained_model(
    site: Site, runs: Runs, tmp_path: Path, method: str, settings: dict[str, Any]
) -> None:
    spec = replace(site.specs[method], settings=settings)
    site.run(tmp_path / method, spec)
    strong = read_results(tmp_path / method)
    near, far = (float(np.diagonal(found.similarity[CLS][2]).mean()) for found in (strong, runs("full")[1]))
    assert near > far


def test_lp_ft_leaves_the_backbone_as_it_is_until_its_phase_ends(site: Site, tmp_path: Path) -> None:
    spec = replace(site.specs["lp_ft"], epochs=4, settings={"probe_learning_rate": 1e-2})
    site.run(tmp_path / "whole", spec)
    found = read_results(tmp_path / "whole")
    for maps in found.similarity.values():
        np.testing.assert_array_equal(maps[1], maps[0])
        np.testing.assert_array_equal(maps[2], maps[0])
        assert (np.diagonal(maps[3]) < 1).all()
    assert found.quality["train_loss"][2] < found.quality["train_loss"][1]
    start = load_reference_backbone(site.folder.study.backbone[0], CPU).state_dict()
    kept = load_checked(Checkpoints(tmp_path / "whole").weights_path(2))[1]
    assert all(torch.equal(kept[f"backbone.{name}"], value) for name, value in start.items())
    # Cut off within the first phase, at its end, and within the second.
    for epoch in (2, 3, 4):
        path = tmp_path / f"cut{epoch}"
        with pytest.raises(KeyboardInterrupt):
            site.run(path, spec, Watcher(break_at=(epoch, 1)))
        assert read_record(path).epochs_done == epoch - 1
        site.run(path, spec)
        for name in ("results.h5", "history.csv"):
            assert (path / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), (epoch, name)


@pytest.mark.parametrize(("method", "share"), [("wise_ft", 0.5), ("wise_ft:0.25", 0.25)])
def test_a_mixture_is_between_the_pre_trained_and_the_fine_tuned_weights(
    site: Site, runs: Runs, method: str, share: float
) -> None:
    full_path, full = runs("full")
    path, mixed = runs(method)
    start = load_reference_backbone(site.folder.study.backbone[0], CPU).state_dict()
    for epoch in (1, 2):
        ours = load_checked(Checkpoints(path).weights_path(epoch))[1]
        theirs = load_checked(Checkpoints(full_path).weights_path(epoch))[1]
        for name, value in start.items():
            expected = value.double() + share * (theirs[f"backbone.{name}"].double() - value.double())
            torch.testing.assert_close(ours[f"backbone.{name}"].double(), expected, atol=1e-7, rtol=1e-6)
        assert torch.equal(ours["head.weight"], theirs["head.weight"])
    assert np.diagonal(mixed.similarity[CLS][2]).mean() > np.diagonal(full.similarity[CLS][2]).mean()
    assert np.isnan(mixed.quality["train_loss"][1:]).all()


def test_epochs_whose_weights_are_not_kept_are_not_there(site: Site, runs: Runs, tmp_path: Path) -> None:
    spec = site.specs["wise_ft"]
    path = beside_full(runs, tmp_path, spec)
    Checkpoints(tmp_path / runs("full")[0].name).weights_path(1).unlink()
    record = site.run(path, spec)
    found = read_results(path)
    assert record.state is State.DONE and record.epochs_done == 2 and found.n_epochs == 3
    for maps in found.similarity.values():
        assert np.isfinite(maps).all(axis=(1, 2)).tolist() == [True, False, True]
    assert np.isfinite(found.quality["test_accuracy"]).tolist() == [True, False, True]
    assert all(np.isnan(values[1]).all() for values in found.layer_quality.values())
    assert not Checkpoints(path).weights_path(1).exists() and Checkpoints(path).weights_path(2).exists()


def test_a_mixture_of_what_is_not_there_says_what_is_missing(site: Site, runs: Runs, tmp_path: Path) -> None:
    full_path, _ = runs("full")
    spec = site.specs["wise_ft"]
    path = tmp_path / "runs" / spec.run_id
    needed = tmp_path / "runs" / full_path.name
    with pytest.raises(DamagedError):
        site.run(path, spec)
    record = read_record(full_path)
    write_record(needed, record.with_(state=State.STOPPED))
    with pytest.raises(StudyError, match=r"is made from .*_full_.*, which is stopped"):
        site.run(path, spec)
    write_record(needed, record)
    with pytest.raises(StudyError, match=r"last weights of .*_full_.*, which were freed\n  fix: rm -r "):
        site.run(path, spec)
    other = replace(record.provenance, weights_sha256="0" * 64)
    write_record(needed, record.with_(provenance=other))
    with pytest.raises(StudyError, match="which began from other weights of the backbone"):
        site.run(path, spec)
    write_record(needed, record)
    theirs = Checkpoints(runs("ema")[0]).weights_path(2)
    mine = Checkpoints(needed).weights_path(2)
    mine.parent.mkdir()
    mine.write_bytes(theirs.read_bytes())
    with pytest.raises(DamagedError, match=r"holds the weights of .*_ema_"):
        site.run(path, spec)
    Checkpoints(needed).save_weights(2, {"head.weight": torch.zeros(3, 128)}, {"run": needed.name})
    with pytest.raises(DamagedError, match="does not hold the weights of bundled:supervised"):
        site.run(path, spec)


def test_a_run_needs_the_run_of_full_with_its_own_settings(site: Site) -> None:
    full = site.specs["full"]
    for method in MIXED:
        spec = site.specs[method]
        assert needs_run(spec) == full.run_id
        assert ":" not in spec.run_id
        faster = replace(spec, finetune=replace(spec.finetune, learning_rate={"full": 2e-3}))
        assert faster.run_id != spec.run_id and needs_run(faster) != full.run_id
    assert all(needs_run(spec) is None for name, spec in site.specs.items() if not method_of(name).needs)
