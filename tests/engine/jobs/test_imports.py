"""Checkpoints of the user's own training as a study: figures, gaps, heads, later checkpoints, broken ones, kills."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.activations.extract import extract
from engine.analysis.options import TableOptions
from engine.analysis.tables import table_of
from engine.backbones import load_backbone
from engine.data.pixels import CacheOptions, pixel_cache
from engine.data.read import read_images
from engine.errors import StudyError, WeightsError
from engine.finetune import imported as imported_module
from engine.foreign.find import FoundCheckpoint, FoundTraining
from engine.integrity import verify
from engine.jobs.imports import ImportRequest, import_study, is_up_to_date, refuse_changed
from engine.jobs.launch import make_study_folder, start_study
from engine.jobs.prepare import Preparation
from engine.jobs.progress import study_progress
from engine.jobs.scheduler import queue_runs
from engine.jobs.worker import Worker
from engine.runs.record import RunRecord, State
from engine.runs.results import SimilarityKey
from engine.runs.study_folder import StudyFolder
from engine.study import DataSection, OriginSection, freeze_study, load_study, run_specs
from tests.studies import CLASSES, make_images, save_random_weights

NAME = "bundled:supervised"
KEY = SimilarityKey("target", "feat", "linear_cka")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labelled images, images of the origin, the weights of θ*."""
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("site")
    make_images(path / "images", 8)
    make_images(path / "origin", 8, seed=1)
    save_random_weights(path / "start.safetensors")
    return path


@pytest.fixture(scope="module")
def good_head(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Tensor:
    """`(3, d)`: a head by least squares that is right on these images under θ*; rows in the order of CLASSES."""
    manifest = read_images(site / "images")
    backbone = load_backbone(NAME, weights=site / "start.safetensors")
    folder = tmp_path_factory.mktemp("pixels")
    cache = pixel_cache(
        manifest.root, manifest.items, backbone.info.input_size, folder, options=CacheOptions(manifest.decoding)
    )
    x = torch.from_numpy(extract(backbone, cache).embedding)
    y = torch.eye(3)[[item.label for item in cache.items]]
    return torch.linalg.lstsq(x.double(), y.double(), driver="gelsd").solution.T.float().contiguous()


def weights_of(site: Path, change: float = 0.0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(7)
    return {
        f"module.{name}": (value + change * torch.randn(value.shape, generator=generator) * value.std()).contiguous()
        if value.is_floating_point() and value.numel() > 1
        else value
        for name, value in load_file(site / "start.safetensors").items()
        if not name.startswith("head.")
    }


def save(path: Path, tensors: Mapping[str, Tensor], head: Tensor | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    more = {} if head is None else {"module.head.weight": head, "module.head.bias": torch.zeros(len(head))}
    save_file({**tensors, **more}, path)
    return path


def training(name: str, files: Mapping[int, Path], **said: object) -> FoundTraining:
    checkpoints = tuple(
        FoundCheckpoint((path,), "safetensors" if path.suffix == ".safetensors" else "pickle", epoch)
        for epoch, path in sorted(files.items())
    )
    return FoundTraining(name, "plain", checkpoints, **said)  # type: ignore[arg-type]


def request(site: Path, folder: Path, **changes: object) -> ImportRequest:
    made = ImportRequest(
        folder, DataSection(path=str(site / "images")), OriginSection(path=str(site / "origin"), n=24), NAME,
        site / "start.safetensors", n=24, device="cpu",
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


def done(folder: StudyFolder) -> dict[str, RunRecord]:
    """Works the study off in this process; its runs by the name of their training."""
    queue_runs(folder)
    Preparation(folder, reports=True).prepare()
    Worker(folder, 0).run()
    return {str(each.spec.settings["training"]): each for each in StudyFolder(folder.path).listing().records}


def test_gaps_stay_empty_and_figures_are_those_of_the_checkpoints(
    site: Path, tmp_path: Path, good_head: Tensor
) -> None:
    files = {
        1: save(tmp_path / "t" / "a.safetensors", weights_of(site), good_head),
        4: save(tmp_path / "t" / "b.safetensors", weights_of(site, 0.5), good_head),
    }
    found = [training("t", files)]
    folder = make_study_folder(import_study(found, request(site, tmp_path / "t"), tmp_path / "out"), tmp_path / "out")
    record = done(folder)["t"]
    assert record.state is State.DONE and record.epochs_done == 4 and record.spec.method == "imported"
    results = folder.results(record.run_id)
    diagonal = np.diagonal(results.similarity[KEY], axis1=1, axis2=2)
    assert diagonal[[0, 1]] == pytest.approx(1, abs=1e-4)  # θ*, and a checkpoint that is no other
    assert diagonal[4, -1] < 0.995
    assert np.isnan(results.similarity[KEY][[2, 3]]).all()
    assert results.quality["test_accuracy"][1] == 1 and np.isnan(results.quality["test_accuracy"][[0, 2, 3]]).all()
    assert np.isfinite(results.quality["origin_knn"][[0, 4]]).all() and np.isfinite(results.quality["test_ece"][1])
    rows = table_of(folder, "epochs", TableOptions(pooling="feat")).rows
    assert [row[5] for row in rows if row[6] is not None] == [0, 1, 4]
    assert not verify(folder).findings and is_up_to_date(folder)
    assert study_progress(folder).epochs_total == study_progress(folder).epochs_done == 2
    assert "train" not in record.first and record.provenance.n_train == 0


def test_the_order_of_outputs_is_that_of_the_names_or_an_assumption(
    site: Path, tmp_path: Path, good_head: Tensor
) -> None:
    turned = tuple(CLASSES[i] for i in (2, 0, 1))
    rows = good_head[[2, 0, 1]].contiguous()
    path = save(tmp_path / "t" / "turned.safetensors", weights_of(site), rows)
    wide = save(tmp_path / "t" / "wide.safetensors", weights_of(site), torch.zeros(5, good_head.shape[1]))
    bare = save(tmp_path / "t" / "bare.safetensors", weights_of(site))
    found = [
        training("named", {1: path}, class_names=turned),
        training("assumed", {1: path}, class_names=("LABEL_0", "LABEL_1", "LABEL_2")),
        training("others", {1: path}, class_names=("a", "b", "c")),
        training("wide", {1: wide}),
        training("bare", {1: bare}),
    ]
    folder = make_study_folder(import_study(found, request(site, tmp_path / "t"), tmp_path / "out"), tmp_path / "out")
    runs = done(folder)
    accuracy = {name: run.last.get("test_accuracy") for name, run in runs.items()}
    said = {name: run.checkpoints["1"].head for name, run in runs.items()}
    assert accuracy["named"] == 1 and accuracy["assumed"] == 0
    assert said["named"].startswith("outputs by the class names") and said["assumed"].startswith("assumed")
    assert [accuracy[name] for name in ("others", "wide", "bare")] == [None] * 3
    assert all(said[name].startswith("not known") for name in ("others", "wide", "bare"))
    assert "5 outputs, the images 3 classes" in said["wide"]
    assert {run.spec.method for run in runs.values()} == {f"imported:{name}" for name in runs}
    notes = table_of(folder, "runs", TableOptions()).notes
    assert any("assumed: outputs in the order of the class names" in note for note in notes)


def test_later_checkpoints_are_added_and_the_old_ones_not_measured_again(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    fit = imported_module.fit_to_backbone

    def counted(*arguments: object, **more: object) -> object:
        seen.append(Path(str(arguments[2])).stem)
        return fit(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(imported_module, "fit_to_backbone", counted)
    files = {epoch: save(tmp_path / "t" / f"{epoch}.safetensors", weights_of(site, 0.1 * epoch)) for epoch in (2, 4)}
    asked, out = request(site, tmp_path / "t"), tmp_path / "out"
    folder = make_study_folder(import_study([training("", files)], asked, out), out)
    first = done(folder)[""]
    before = folder.results(first.run_id)
    files |= {epoch: save(tmp_path / "t" / f"{epoch}.safetensors", weights_of(site, 0.1 * epoch)) for epoch in (1, 6)}
    folder = make_study_folder(import_study([training("", files)], asked, out), out)
    assert not is_up_to_date(folder)
    second = done(folder)[""]
    assert seen == ["2", "4", "1", "6"]
    assert second.run_id == first.run_id and second.epochs_done == 6 and list(second.checkpoints) == list("2416")
    after = folder.results(second.run_id)
    for epoch in (0, 2, 4):
        assert np.array_equal(after.similarity[KEY][epoch], before.similarity[KEY][epoch])
    assert np.isfinite(after.similarity[KEY][[1, 6]]).all() and np.isnan(after.similarity[KEY][5]).all()
    assert not verify(folder).findings and is_up_to_date(folder)


def test_a_broken_checkpoint_fails_its_run_alone_and_what_was_measured_stays(site: Path, tmp_path: Path) -> None:
    good = {epoch: save(tmp_path / "t" / f"g{epoch}.safetensors", weights_of(site, 0.1)) for epoch in (1, 2)}
    cut = tmp_path / "t" / "cut.safetensors"
    cut.write_bytes(good[1].read_bytes()[:900])
    found = [training("seed0", {1: good[1], 2: cut}, seed=0), training("seed1", good, seed=1)]
    folder = make_study_folder(import_study(found, request(site, tmp_path / "t"), tmp_path / "out"), tmp_path / "out")
    runs = done(folder)
    assert (runs["seed0"].state, runs["seed1"].state) == (State.FAILED, State.DONE)
    assert "cut.safetensors" in runs["seed0"].reason and runs["seed0"].epochs_done == 1
    assert {run.spec.method for run in runs.values()} == {"imported"} and runs["seed1"].spec.seed == 1
    save(cut, weights_of(site, 0.2))
    assert done(folder)["seed0"].state is State.DONE


@pytest.mark.parametrize(("change", "dtype", "state"), [
    (0.0, torch.float32, State.DONE), (0.0, torch.bfloat16, State.DONE), (0.02, torch.float32, State.FAILED),
])  # fmt: skip
def test_epoch_0_must_be_the_backbone_that_it_started_from(
    site: Path, tmp_path: Path, change: float, dtype: torch.dtype, state: State
) -> None:
    tensors = {name: each.to(dtype) for name, each in weights_of(site, change).items()}
    files = {0: save(tmp_path / "t" / "epoch_0.safetensors", tensors)}
    folder = make_study_folder(
        import_study([training("", files)], request(site, tmp_path / "t"), tmp_path / "out"), tmp_path / "out"
    )
    record = done(folder)[""]
    assert record.state is state, record.reason
    if state is State.FAILED:
        assert "named as epoch 0, yet it is not bundled:supervised" in record.reason
        assert "--counted-from 0" in record.reason
        again = import_study([training("", {1: files[0]})], request(site, tmp_path / "t"), tmp_path / "out")
        record = done(make_study_folder(again, tmp_path / "out"))[""]
        assert record.state is State.DONE and list(record.checkpoints) == ["1"]
        with pytest.raises(StudyError, match="is epoch 1 and epoch 2"):
            import_study([training("", {2: files[0]})], request(site, tmp_path / "t"), tmp_path / "out")


def test_a_checkpoint_of_another_image_size_needs_that_size_to_be_said(site: Path, tmp_path: Path) -> None:
    tensors = weights_of(site)
    tensors["module.pos_embed"] = tensors["module.pos_embed"][:, :17].contiguous()  # CLS, and 4 × 4 patches of 8 pixels
    found = [training("", {1: save(tmp_path / "t" / "a.safetensors", tensors)})]
    for out, size, state in (("a", None, State.FAILED), ("b", 64, State.DONE)):
        asked = request(site, tmp_path / "t", input_size=size)
        record = done(make_study_folder(import_study(found, asked, tmp_path / out), tmp_path / out))[""]
        assert record.state is state, record.reason
        assert state is State.DONE or "of 32 pixels, resampled to 64" in record.reason
        assert state is State.DONE or "--input-size" in record.reason


def test_another_backbone_or_normalisation_is_refused_and_not_a_second_run(site: Path, tmp_path: Path) -> None:
    files = {1: save(tmp_path / "t" / "a.safetensors", weights_of(site))}
    other = save(tmp_path / "other.safetensors", weights_of(site, 0.3))
    found, asked, out = [training("", files)], request(site, tmp_path / "t"), tmp_path / "out"
    make_study_folder(import_study(found, asked, out), out)
    assert import_study(found, replace(asked, weights=None), out) == load_study(out / "study.toml")
    for changed, words in (
        (replace(asked, mean=(0.5, 0.5, 0.5)), "--mean"),
        (replace(asked, std=(0.5, 0.5, 0.5)), "--std"),
        (replace(asked, weights=other), "weights"),
        (replace(asked, input_size=96), "input size"),
        (replace(asked, backbone="bundled:image-text"), "--backbone"),
    ):
        with pytest.raises(StudyError, match=words):
            import_study(found, changed, out)


def test_a_pickle_that_says_another_epoch_than_its_name(site: Path, tmp_path: Path) -> None:
    path = tmp_path / "t" / "checkpoint-2.pth.tar"
    path.parent.mkdir()
    torch.save({"state_dict": weights_of(site, 0.1), "epoch": 1, "version": 2}, path)
    found = FoundTraining("", "timm", (FoundCheckpoint((path,), "pickle", 3, 3.0),))
    asked = request(site, tmp_path / "t", converts=True)
    record = done(make_study_folder(import_study([found], asked, tmp_path / "out"), tmp_path / "out"))[""]
    assert record.state is State.FAILED and "named as epoch 3, and says itself that 2" in record.reason


def test_a_checkpoint_that_has_become_another_is_refused(site: Path, tmp_path: Path) -> None:
    path = save(tmp_path / "t" / "a.safetensors", weights_of(site))
    folder = make_study_folder(
        import_study([training("", {1: path})], request(site, tmp_path / "t"), tmp_path / "out"), tmp_path / "out"
    )
    done(folder)
    path.touch()
    refuse_changed(folder)  # the same content, written anew
    save(path, weights_of(site, 0.3))
    with pytest.raises(StudyError, match="another file than when it was measured"):
        refuse_changed(folder)
    path.unlink()
    refuse_changed(folder)  # gone: what was measured of it stays


def test_pickles_are_opened_where_that_is_asked_for_alone(site: Path, tmp_path: Path, good_head: Tensor) -> None:
    path = tmp_path / "t" / "model.pth"
    path.parent.mkdir()
    tensors = {name.removeprefix("module."): value for name, value in weights_of(site).items()}
    torch.save({"state_dict": {**tensors, "head.weight": good_head, "head.bias": torch.zeros(3)}, "epoch": 3}, path)
    found, asked = [training("", {3: path})], request(site, tmp_path / "t")
    with pytest.raises(StudyError, match="1 checkpoints are pickles, first model"):
        import_study(found, asked, tmp_path / "out")
    study = import_study(found, replace(asked, converts=True), tmp_path / "out")
    folder = make_study_folder(study, tmp_path / "out")
    record = done(folder)[""]
    assert record.state is State.DONE, record.reason
    assert record.last["test_accuracy"] == 1
    assert not (folder.run_path(record.run_id) / "converted").exists()
    assert sorted(each.name for each in path.parent.iterdir()) == ["model.pth"]


def test_without_labels_nothing_is_said_of_accuracy(site: Path, tmp_path: Path, good_head: Tensor) -> None:
    path = save(tmp_path / "t" / "a.safetensors", weights_of(site), good_head)
    asked = request(site, tmp_path / "t", labels=False)
    folder = make_study_folder(import_study([training("", {1: path})], asked, tmp_path / "out"), tmp_path / "out")
    record = done(folder)[""]
    assert record.state is State.DONE and "test_accuracy" not in record.last
    assert record.last["linear_cka_feat"] == pytest.approx(1, abs=1e-4) and record.provenance.n_classes == 0


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"backbone": None, "weights": None}, StudyError, "no file says which pre-trained backbone"),
        ({"backbone": "no-such:thing", "weights": None}, StudyError, "no-such"),
    ],
)
def test_a_request_that_cannot_be(
    site: Path, tmp_path: Path, change: dict[str, object], error: type[Exception], words: str
) -> None:
    path = save(tmp_path / "t" / "a.safetensors", weights_of(site))
    with pytest.raises(error, match=words):
        import_study([training("", {1: path})], request(site, tmp_path / "t", **change), tmp_path / "out")


def test_an_epoch_beyond_what_a_study_holds(site: Path, tmp_path: Path) -> None:
    path = save(tmp_path / "t" / "a.safetensors", weights_of(site))
    with pytest.raises(WeightsError, match="need at most"):
        import_study([training("", {10**6: path})], request(site, tmp_path / "t"), tmp_path / "out")


def test_two_sizes_of_one_backbone_and_hostile_names(site: Path, tmp_path: Path) -> None:
    path = save(tmp_path / "t" / "a.safetensors", weights_of(site))
    asked = request(site, tmp_path / "t")
    with pytest.raises(StudyError, match="32 and at 64"):
        two = [training("a", {1: path}, input_size=32), training("b", {1: path}, input_size=64)]
        import_study(two, asked, tmp_path / "out")
    names = ["[/]\x1b[2J", "\udcff.bad", "../../up", "seed1/x", "a" * 300]
    study = import_study([training(name, {1: path}) for name in names], asked, tmp_path / "out")
    (tmp_path / "study.toml").write_text(freeze_study(study))
    again = load_study(tmp_path / "study.toml")
    assert again == study and len({spec.run_id for spec in run_specs(again)}) == len(names)
    assert all("/" not in spec.run_id and spec.run_id.isprintable() for spec in run_specs(again))


def test_new_trainings_leave_the_names_of_the_old_ones(site: Path, tmp_path: Path) -> None:
    path = save(tmp_path / "t" / "a.safetensors", weights_of(site))
    asked, out = request(site, tmp_path / "t"), tmp_path / "out"
    first = import_study([training("seed5", {1: path}, seed=5)], asked, out)
    make_study_folder(first, out)
    more = [training("a/seed5", {1: path}, seed=5), training("seed4", {1: path}, seed=4), training("seed5", {1: path})]
    study = import_study(more, asked, out)
    assert study.imported is not None
    placed = {each.name: (each.method, each.seed) for each in study.imported.training}
    assert placed == {"seed5": ("imported", 5), "seed4": ("imported", 4), "a/seed5": ("imported:a", 5)}
    assert run_specs(first)[0].run_id in {spec.run_id for spec in run_specs(study)}


def test_a_worker_that_is_killed_between_checkpoints_is_followed_by_another(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {epoch: save(tmp_path / "t" / f"{epoch}.safetensors", weights_of(site, 0.1 * epoch)) for epoch in (1, 3)}
    asked: Callable[..., ImportRequest] = lambda: request(site, tmp_path / "t")  # noqa: E731
    folder = make_study_folder(import_study([training("", files)], asked(), tmp_path / "out"), tmp_path / "out")
    monkeypatch.setenv("SIMTUI_FAULT", "epoch:observed#2")
    assert start_study(folder).wait(timeout=240) == 0
    (record,) = StudyFolder(folder.path).listing().records
    assert record.state is State.DONE and list(record.checkpoints) == ["1", "3"] and len(record.sessions) == 2
    assert not verify(folder).findings
