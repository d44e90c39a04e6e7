"""Intervals and null levels of a real run's heatmap against plain numpy, kept once, and every way to have none."""

from __future__ import annotations

import contextlib
import io
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.activations.store import Activations, ActivationStore, activation_key
from engine.analysis.options import TableOptions
from engine.analysis.tables import table_of
from engine.cleaning import free
from engine.errors import DamagedError, MachineError, SimtuiError
from engine.files import sha256_file
from engine.jobs import child, uncertainty_child
from engine.jobs.launch import make_study_folder, start_study
from engine.jobs.uncertainty import cell_uncertainty, known_uncertainty, role_of
from engine.jobs.uncertainty_child import uncertainty_of
from engine.measures import MEASURES
from engine.measures.resampling import draw_weights
from engine.runs.record import RunRecord, State
from engine.runs.results import SimilarityKey
from engine.runs.study_folder import StudyFolder
from engine.runs.uncertainty import read_uncertainty
from engine.study import load_study
from tests.studies import make_images, write_study

LINEAR = SimilarityKey("target", "cls", "linear_cka")
ASKED = ["linear_cka", "debiased_cka", "mean_cca", "rsa"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    """A study that keeps the ends, with as many origin images as probe images; some have the same names."""
    path = tmp_path_factory.mktemp("uncertainty")
    file = write_study(path, methods=["full", "linear"], epochs=2)
    make_images(path / "more", 20, seed=3)
    text = file.read_text().replace('"all"', '"ends"').replace('path = "images"', 'path = "more"')
    text = text.replace("n = 6", "n = 9\norigin_n = 9") + f"[measure]\nsimilarity = {ASKED}\n"
    file.write_text(text)
    folder = make_study_folder(load_study(file), path / "a study")
    assert start_study(folder).wait() == 0, folder.log_path.read_text()
    return folder


@pytest.fixture
def folder(finished: StudyFolder, tmp_path: Path) -> StudyFolder:
    """A copy to spoil."""
    return StudyFolder(Path(shutil.copytree(finished.path, tmp_path / "copy")))


@pytest.fixture(autouse=True)
def _empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Does what the child does in this process, which has torch loaded; gives what was asked."""
    asked: list[list[str]] = []

    def run(command: list[str], *_: object) -> tuple[int, bytes, bytes]:
        asked.append(command)
        assert command[1:3] == ["-m", "engine.jobs.uncertainty_child"]
        with contextlib.redirect_stdout(io.StringIO()) as said:
            code = uncertainty_child.main(command[3:])
        return code, said.getvalue().encode(), b""

    monkeypatch.setattr(child, "run_child", run)
    return asked


def run_of(folder: StudyFolder, method: str = "full") -> RunRecord:
    return next(record for record in folder.listing().records if record.spec.method == method)


def file_of(folder: StudyFolder, record: RunRecord, epoch: int = 2) -> str:
    """The key of the run's activations of the probe images, from what decides it."""
    weights = folder.run_path(record.run_id) / f"checkpoints/epoch-{epoch:03d}.safetensors"
    return activation_key(sha256_file(weights), record.provenance.probe_digest, (record.spec.backbone.name,))


def activations(folder: StudyFolder, key: str) -> Activations:
    store = ActivationStore(folder.activations_path)
    found = store.load(key, store.images_of_layers(key))
    assert found is not None
    return found


def both_sides(folder: StudyFolder, record: RunRecord) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The CLS layers of θ* and of the run's last epoch, float64."""
    own = activations(folder, file_of(folder, record))
    store = ActivationStore(folder.activations_path)
    reference = [key for key, role in record.activations.items() if role == "reference"]
    (key,) = [each for each in reference if store.images_of_layers(each) == own.ids]
    sides = [[x.astype(np.float64) for x in each.pooled["cls"]] for each in (activations(folder, key), own)]
    return sides[0], sides[1]


def plain_cka(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x - x.mean(0), y - y.mean(0)
    norms = [np.linalg.norm(a.T @ b) for a, b in ((x, y), (x, x), (y, y))]
    return float(norms[0] ** 2 / (norms[1] * norms[2]))


def plain_debiased_cka(x: np.ndarray, y: np.ndarray) -> float:
    """Song et al. 2012, eq. 5, of whatever rows there are."""

    def hsic(k: np.ndarray, m: np.ndarray) -> float:
        n = len(k)
        trace, sums = np.trace(k @ m), k.sum() * m.sum() / ((n - 1) * (n - 2))
        return float(trace + sums - 2 / (n - 2) * (k.sum(0) @ m.sum(0)))

    k, m = x @ x.T, y @ y.T
    np.fill_diagonal(k, 0)
    np.fill_diagonal(m, 0)
    return hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m))


def related(seed: int = 0, n: int = 24, d: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d))
    return x, x @ rng.standard_normal((d, d)) / 2 + rng.standard_normal((n, d))


# The figures


def test_every_cell_has_the_interval_and_the_null_of_plain_numpy(finished: StudyFolder, here: list[list[str]]) -> None:
    record = run_of(finished)
    found = cell_uncertainty(finished, record, LINEAR, 2)
    xs, ys = both_sides(finished, record)
    n = len(xs[0])
    stored = finished.results(record.run_id).similarity[LINEAR][2]
    np.testing.assert_allclose(found.value, stored, atol=1e-6)
    assert (found.level, found.n_resamples, found.n_images, found.n_orders) == (0.95, 1000, n, 199)
    weights = draw_weights(n, 1000, seed=0).long().numpy()
    generator = torch.Generator().manual_seed(0)
    orders = [torch.randperm(n, generator=generator).numpy() for _ in range(199)]
    for i, j in ((0, 0), (1, 4), (5, 2)):
        rows = [np.repeat(np.arange(n), w) for w in weights.T]
        values = [plain_cka(xs[i][each], ys[j][each]) for each in rows]
        low, high = np.quantile(values, [0.025, 0.975]) - np.mean(values) + plain_cka(xs[i], ys[j])
        assert (found.low[i, j], found.high[i, j]) == pytest.approx((max(low, 0), min(high, 1)), abs=1e-6)
        null = sorted(plain_cka(xs[i], ys[j][order]) for order in orders)
        assert found.null_high[i, j] == pytest.approx(null[189], abs=1e-6)
        assert found.null_mean[i, j] == pytest.approx(np.mean(null), abs=4 * np.std(null) / 199**0.5)


def test_other_draws_give_nearly_the_same() -> None:
    x, y = related()
    rng = np.random.default_rng(7)
    found = uncertainty_of([torch.from_numpy(x)], [torch.from_numpy(y)], "linear_cka")
    values = [plain_cka(x[rows], y[rows]) for rows in rng.integers(24, size=(4000, 24))]
    low, high = np.quantile(values, [0.025, 0.975]) - np.mean(values) + plain_cka(x, y)
    width = high - low
    assert (found.low.item(), found.high.item()) == pytest.approx((low, high), abs=0.12 * width)
    null = np.array([plain_cka(x, y[rng.permutation(24)]) for _ in range(4000)])
    assert found.null_mean.item() == pytest.approx(null.mean(), abs=4 * null.std() / 4000**0.5)
    assert 0.91 <= (null < found.null_high.item()).mean() <= 0.985


def test_copies_of_images_inflate_neither_interval() -> None:
    """Plain resampling pairs an image with its copy, which debiased CKA takes for perfect agreement."""
    x, y = related()
    rng = np.random.default_rng(7)
    draws = rng.integers(24, size=(1000, 24))
    for name, plain in (("debiased_cka", plain_debiased_cka), ("linear_cka", plain_cka)):
        found = uncertainty_of([torch.from_numpy(x)], [torch.from_numpy(y)], name)
        value = plain(x, y)
        naive = [plain(x[rows], y[rows]) for rows in draws]
        assert found.value.item() == pytest.approx(value)
        assert np.mean(naive) > value + 0.03
        assert abs((found.low.item() + found.high.item()) / 2 - value) < 0.25 * (found.high.item() - found.low.item())
    assert (
        "never paired with its own copy" in uncertainty_of([torch.from_numpy(x)], [torch.from_numpy(y)], "rsa").method
    )


@pytest.mark.parametrize("name", ["linear_cka", "debiased_cka", "rsa"])
def test_a_bound_from_the_moments_holds_for_the_share_that_it_names(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(uncertainty_child, "_MOST_DRAWN", 0)
    x, y = related()
    found = uncertainty_of([torch.from_numpy(x)], [torch.from_numpy(y)], name)
    assert found.n_orders == 0 and "Cantelli" in found.null_method
    rng = np.random.default_rng(1)
    null = np.array([MEASURES[name].function(x, y[rng.permutation(24)]).item() for _ in range(500)])
    assert found.null_high.item() == pytest.approx(null.mean() + 19**0.5 * null.std(), abs=0.05)
    assert (null < found.null_high.item()).mean() >= 0.95


def test_the_same_figures_come_out_again() -> None:
    x, y = (torch.from_numpy(each) for each in related())
    for name in ("linear_cka", "mutual_knn"):
        first, second = (uncertainty_of([x], [y], name) for _ in range(2))
        for field in ("low", "high", "null_mean", "null_high"):
            np.testing.assert_array_equal(getattr(first, field), getattr(second, field))


def test_a_measure_without_an_interval_has_a_null_and_says_why(finished: StudyFolder, here: list[list[str]]) -> None:
    found = cell_uncertainty(finished, run_of(finished), replace(LINEAR, measure="rsa"), 2)
    assert not np.isnan(found.low).any() and found.no_interval == ""
    x, y = related()
    none = uncertainty_of([torch.from_numpy(x)], [torch.from_numpy(y)], "mean_cca")
    assert np.isnan(none.low).all() and np.isnan(none.high).all() and none.n_resamples == 0
    assert none.no_interval == "mean CCA has no interval: every resample would need decompositions"
    assert none.null_mean.item() < none.null_high.item() < 1
    assert none.notes[0] == f"low, high: {none.no_interval}"


# Which activations


def test_each_domain_has_its_own_images(finished: StudyFolder, here: list[list[str]]) -> None:
    """As many images, and some of the same names: the values tell them apart."""
    record = run_of(finished)
    assert record.provenance.n_probe == record.provenance.n_origin_probe
    for key in (LINEAR, replace(LINEAR, probe="origin"), replace(LINEAR, pooling="feat", measure="debiased_cka")):
        for method, epoch in (("full", 2), ("full", 0), ("linear", 1)):
            run = run_of(finished, method)
            found = cell_uncertainty(finished, run, key, epoch)
            np.testing.assert_allclose(found.value, finished.results(run.run_id).similarity[key][epoch], atol=1e-5)
    same = cell_uncertainty(finished, run_of(finished, "linear"), LINEAR, 1)
    np.testing.assert_allclose(np.diagonal(same.low), 1, atol=1e-9)


@pytest.mark.parametrize(
    ("method", "epoch", "role"),
    [("full", 0, "reference"), ("full", 3, "epoch 3"), ("linear", 3, "reference"), ("scratch", 0, "epoch 0")],
)
def test_what_stands_for_the_model_of_an_epoch(finished: StudyFolder, method: str, epoch: int, role: str) -> None:
    record = run_of(finished)
    assert role_of(record.with_(spec=replace(record.spec, method=method)), epoch) == role


# The cache


def test_a_process_of_its_own_answers_once(
    finished: StudyFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    record = run_of(finished)
    assert known_uncertainty(finished, record, LINEAR, 2) is None
    first = cell_uncertainty(finished, record, LINEAR, 2)
    monkeypatch.setattr(child, "run_child", lambda *_: pytest.fail("asked again"))
    for again in (cell_uncertainty(finished, record, LINEAR, 2), known_uncertainty(finished, record, LINEAR, 2)):
        assert again is not None
        np.testing.assert_array_equal(again.low, first.low)
        assert (again.notes, again.n_images, again.level) == (first.notes, first.n_images, first.level)
    assert known_uncertainty(finished, record, LINEAR, 0) is None
    assert known_uncertainty(finished, record, replace(LINEAR, measure="debiased_cka"), 2) is None


def test_a_damaged_answer_is_made_again(finished: StudyFolder, here: list[list[str]], tmp_path: Path) -> None:
    first = cell_uncertainty(finished, run_of(finished), LINEAR, 2)
    (answer,) = (tmp_path / "cache").rglob("uncertainty.h5")
    answer.write_bytes(answer.read_bytes()[:-50])
    with pytest.raises(DamagedError):
        known_uncertainty(finished, run_of(finished), LINEAR, 2)
    np.testing.assert_array_equal(cell_uncertainty(finished, run_of(finished), LINEAR, 2).low, first.low)
    assert len(here) == 2
    with pytest.raises(DamagedError, match=r"cannot be read .*\n  fix: again"):
        read_uncertainty(answer.with_name("absent.h5"), "again")


def test_a_cache_that_cannot_be_written_costs_only_the_time(
    finished: StudyFolder, here: list[list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    for n in (1, 2):
        assert cell_uncertainty(finished, run_of(finished), LINEAR, 2).n_images == 9 and len(here) == n


def test_nobody_waits_for_a_child_that_is_to_stop(
    finished: StudyFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "python").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(child.sys, "executable", str(tmp_path / "python"))
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    with pytest.raises(MachineError, match="its interval was not waited for"):
        cell_uncertainty(finished, run_of(finished), LINEAR, 2, timeout_s=50, stop=stop)


# What is not there


def refused(folder: StudyFolder, record: RunRecord, epoch: int = 2, key: SimilarityKey = LINEAR) -> SimtuiError:
    with pytest.raises(SimtuiError) as caught:
        cell_uncertainty(folder, record, key, epoch)
    return caught.value


def test_an_epoch_that_was_not_kept_names_those_that_were(finished: StudyFolder) -> None:
    record = run_of(finished)
    error = refused(finished, record, 1)
    assert error.where == record.run_id
    assert error.problem == 'the activations of epoch 1 were not kept (study.keep = "ends")'
    assert error.fix == 'set study.keep = "all" before the run, or look at epoch 0 or 2'
    none = record.with_(
        spec=replace(record.spec, keep="none"),
        activations={key: role for key, role in record.activations.items() if role == "reference"},
    )
    error = refused(finished, none, 2)
    assert error.problem == 'the activations of epoch 2 were not kept (study.keep = "none")'
    assert error.fix.endswith("or look at epoch 0")
    running = record.with_(state=State.RUNNING, epochs_done=0)
    assert refused(finished, running, 1).problem == "has not come to epoch 1"


def test_what_was_freed_is_told_from_what_was_never_kept(folder: StudyFolder) -> None:
    free(folder, ["activations"])
    error = refused(folder, run_of(folder))
    assert error.problem == "the activations of epoch 2 were freed" and "trains it again" in error.fix
    for path in list(folder.activations_path.glob("*.h5")):
        if path.stem in run_of(folder).activations:
            path.unlink()
    (folder.activations_path / "other.h5").touch()
    error = refused(folder, run_of(folder))
    assert error.problem == "the activations of the pre-trained model were freed" and "makes them again" in error.fix
    shutil.rmtree(folder.activations_path)
    assert refused(folder, run_of(folder)).problem == "the activations of the pre-trained model were freed"


def test_a_copy_without_its_images_is_not_told_to_compute_anything(folder: StudyFolder) -> None:
    record, maps = run_of(folder), "f" * 64
    elsewhere = replace(record.provenance, dataset_path="images/skin", attention_reference=maps)
    shutil.rmtree(folder.activations_path)
    folder.activations_path.mkdir()
    (folder.activations_path / f"{maps}.h5").touch()  # no activations, though θ*'s as their role says
    error = refused(folder, record.with_(provenance=elsewhere, activations={maps: "reference"}))
    assert "holds no activations, as the sample study" in error.problem and "rm " not in error.fix


def test_a_damaged_activation_file_is_named(folder: StudyFolder, here: list[list[str]]) -> None:
    record = run_of(folder)
    path = ActivationStore(folder.activations_path).path(file_of(folder, record))
    path.write_bytes(path.read_bytes()[:-100])
    error = refused(folder, record)
    assert (error.where, error.exit_code) == (str(path), DamagedError.exit_code)
    assert error.fix.startswith("rm -r ") and record.run_id in error.fix


def saved(folder: StudyFolder, record: RunRecord, found: Activations) -> None:
    ActivationStore(folder.activations_path).save(file_of(folder, record), found)


def test_images_in_another_order_are_refused(folder: StudyFolder, here: list[list[str]]) -> None:
    record = run_of(folder)
    found = activations(folder, file_of(folder, record))
    saved(folder, record, replace(found, ids=(found.ids[1], found.ids[0], *found.ids[2:])))
    for key, role in record.activations.items():
        if role == "epoch 2" and key != file_of(folder, record):
            (folder.activations_path / f"{key}.h5").unlink()
    error = refused(folder, record)
    assert (
        error.where == record.run_id
        and "of other images than those of the pre-trained model, or in another order" in (error.problem)
    )


def test_activations_that_do_not_give_the_results_are_refused(folder: StudyFolder, here: list[list[str]]) -> None:
    record = run_of(folder)
    found = activations(folder, file_of(folder, record))
    turned = {pooling: tuple(each[::-1] for each in layers) for pooling, layers in found.pooled.items()}
    saved(folder, record, replace(found, pooled=turned))
    error = refused(folder, record)
    assert "give another similarity than its results hold (they differ by 0." in error.problem
    assert error.exit_code == DamagedError.exit_code


def test_a_similarity_that_the_run_lacks_is_said(finished: StudyFolder, here: list[list[str]]) -> None:
    error = refused(finished, run_of(finished), key=replace(LINEAR, measure="pwcca"))
    assert error.problem == "has no similarity target/cls/pwcca at epoch 2"
    fewer = run_of(finished)
    provenance = replace(fewer.provenance, n_probe=7)
    with pytest.raises(DamagedError, match=r"has no activations of 7 images \(reference\)"):
        uncertainty_child.activation_pairs(finished, fewer.with_(provenance=provenance), "target", 2)


# The table


def test_the_table_has_four_more_columns_and_says_how_they_came_about(
    finished: StudyFolder, here: list[list[str]]
) -> None:
    record = run_of(finished)
    plain = table_of(finished, "heatmap", TableOptions(run=record.run_id))
    table = table_of(finished, "heatmap", TableOptions(run=record.run_id, interval=True))
    assert table.columns == (*plain.columns, "low", "high", "unrelated", "unrelated_high")
    assert [row[:4] for row in table.rows] == list(plain.rows)
    found = cell_uncertainty(finished, record, LINEAR, 2)
    assert len(here) == 1
    assert table.rows[7][4:] == (found.low[1, 1], found.high[1, 1], found.null_mean[1, 1], found.null_high[1, 1])
    assert set(found.notes) <= set(table.notes) and "1,000 bootstrap resamples" in table.notes[2]
    none = table_of(finished, "heatmap", TableOptions(run=record.run_id, interval=True, measure="debiased_cka"))
    assert "Arcones" in " ".join(none.notes)
