"""Two checkpoints compared: figures against plain ones, the cache, and everything that can be wrong with a request."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from engine.activations.extract import centre_crop, normalised
from engine.analysis.heatmap import heatmap_table
from engine.analysis.options import TableOptions
from engine.analysis.study_data import read_study
from engine.analysis.tables import table_of
from engine.backbones import load_backbone
from engine.backbones.backbone import Backbone
from engine.data.images import decode_square, open_regular
from engine.data.intensity import Decoding
from engine.data.options import DataOptions
from engine.data.pixels import probe_items, side_of
from engine.data.read import read_images
from engine.errors import DamagedError, DataError, SimtuiError, StudyError, WeightsError
from engine.finetune.checkpoints import Checkpoints
from engine.integrity import verify
from engine.jobs import compare as compare_module
from engine.jobs import compare_child
from engine.jobs.compare import ComparisonRequest, known_comparison, parse_checkpoint, refuse_request
from engine.jobs.launch import start_study
from engine.jobs.uncertainty import cell_uncertainty
from engine.runs.record import RunRecord, State, read_record, write_record
from engine.runs.results import SimilarityKey
from engine.runs.study_folder import StudyFolder
from engine.study import BackboneSection, FinetuneSection, MeasureSection, RunSpec, run_specs
from tests.studies import make_images, save_random_weights, save_timm_weights

RESNET = "timm:test_resnet.r160_in1k"
LINEAR, DEBIASED = "linear_cka", "debiased_cka"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images in three classes, and weights of a ViT and of a ResNet."""
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("files")
    make_images(path / "images", 8)
    save_random_weights(path / "vit.safetensors")
    save_timm_weights(path / "resnet.safetensors", RESNET.partition(":")[2])
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(compare_module, "user_cache_path", lambda name: tmp_path / "cache")
    return tmp_path / "cache" / "compare"


def asked(files: Path, first: str, second: str, **settings: object) -> ComparisonRequest:
    found = {"vit": f"bundled:supervised={files}/vit.safetensors", "resnet": f"{RESNET}={files}/resnet.safetensors"}
    models = [parse_checkpoint(found.get(each, each)) for each in (first, second)]
    return replace(ComparisonRequest(*models, files / "images", 20), **settings)  # type: ignore[arg-type]


def done(request: ComparisonRequest) -> StudyFolder:
    return StudyFolder(compare_child.compare(request))


def maps_of(folder: StudyFolder) -> tuple[RunRecord, dict[SimilarityKey, np.ndarray]]:
    (record,) = folder.listing().records
    results = folder.results(record.run_id)
    assert results.n_epochs == 1
    return record, {key: values[0] for key, values in results.similarity.items()}


def notes_of(folder: StudyFolder) -> tuple[str, ...]:
    """What is printed below the figures and beside an exported table."""
    (record,) = folder.listing().records
    results = folder.results(record.run_id)
    return heatmap_table(record, results, next(iter(results.similarity)), 0).notes


def plain_cka(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x - x.mean(0), y - y.mean(0)
    norms = [np.linalg.norm(a.T @ b) for a, b in ((x, y), (x, x), (y, y))]
    return float(norms[0] ** 2 / (norms[1] * norms[2]))


def layers_by_hooks(backbone: Backbone, images: Path, n: int, axes: Callable[[Tensor], Tensor]) -> list[np.ndarray]:
    """Every layer's pooled output in float64, by hooks of this test's own on images that it reads itself."""
    manifest = read_images(images)
    side, size = side_of(backbone.info.input_size), backbone.info.input_size
    pixels = []
    for item in probe_items(manifest.items, n, len(manifest.classes)):
        with open_regular(manifest.root / item.path) as file:
            pixels.append(decode_square(file, manifest.root / item.path, side, Decoding()).pixels)
    x = normalised(centre_crop(torch.from_numpy(np.stack(pixels)), size), backbone.info).double()
    found: list[np.ndarray] = []
    model = backbone.model.double().eval()
    for block in backbone.blocks:
        block.register_forward_hook(lambda module, args, output: found.append(axes(output).numpy()))
    with torch.no_grad():
        model(x)
    return found


def test_a_model_against_itself_has_ones_on_the_diagonal(files: Path) -> None:
    record, maps = maps_of(done(asked(files, "vit", "vit")))
    assert {key.pooling for key in maps} == {"cls", "feat"}
    for values in maps.values():
        np.testing.assert_allclose(np.diagonal(values), 1, atol=1e-6)
        np.testing.assert_allclose(values, values.T, atol=1e-6)
    assert record.is_comparison and record.state is State.DONE and record.spec.method == "compared"


def test_other_architectures_by_an_independent_formula(files: Path) -> None:
    request = asked(files, "vit", "resnet")
    folder = done(request)
    record, maps = maps_of(folder)
    vit = load_backbone("bundled:supervised", weights=files / "vit.safetensors")
    resnet = load_backbone(RESNET, weights=files / "resnet.safetensors")
    assert (vit.info.input_size, resnet.info.input_size) == (64, 160)  # each sees the images in its own way
    xs = layers_by_hooks(vit, files / "images", 20, lambda tokens: tokens[:, 1:].mean(1))
    ys = layers_by_hooks(resnet, files / "images", 20, lambda values: values.mean((2, 3)))
    assert set(maps) == {SimilarityKey("target", "feat", name) for name in (LINEAR, DEBIASED)}  # CLS has no other
    found = maps[SimilarityKey("target", "feat", LINEAR)]
    np.testing.assert_allclose(found, [[plain_cka(x, y) for y in ys] for x in xs], atol=1e-4)
    results = folder.results(record.run_id)
    assert (len(results.rows), len(results.layers)) == found.shape == (6, 5)
    assert (results.rows, results.layers) == (vit.info.layers, resnet.info.layers)
    assert record.reference is not None
    assert (record.reference.weights_sha256, record.provenance.weights_sha256) == (
        vit.info.weights_sha256, resnet.info.weights_sha256,
    )  # fmt: skip
    assert (record.reference.layer_kind, record.provenance.layer_kind) == ("blocks", "stages")
    turned = maps_of(done(asked(files, "resnet", "vit")))[1][SimilarityKey("target", "feat", LINEAR)]
    np.testing.assert_allclose(turned, found.T, atol=1e-6)


def test_a_folder_of_a_comparison_says_what_it_is(files: Path) -> None:
    folder = done(asked(files, "vit", "resnet"))
    (record,) = folder.listing().records
    assert folder.study.study.kind == "comparison" and run_specs(folder.study) == ()
    table = table_of(folder, "heatmap", TableOptions(run=record.run_id, pooling="feat"))
    assert len(table.rows) == 30
    assert table.rows[1][1:3] == ("blocks.0", "layer1")
    assert table.notes[0].startswith("layer_ref: of bundled:supervised=") and "64 pixels" in table.notes[0]
    with pytest.raises(StudyError, match="holds a comparison of two checkpoints, in which nothing was trained"):
        table_of(folder, "trajectory", TableOptions())
    with pytest.raises(StudyError, match="there is nothing to run"):
        start_study(folder)
    with pytest.raises(StudyError, match="keeps no activations, and an interval needs them"):
        cell_uncertainty(folder, record, SimilarityKey("target", "feat", LINEAR), 0)
    (run,) = read_study(folder).runs
    assert all(np.isnan(values).all() for values in run.diagonal.values())  # no layer stands against itself
    assert not verify(folder).findings


class TestCache:
    def test_the_same_question_needs_no_torch_until_a_file_changes(self, files: Path, tmp_path: Path) -> None:
        shutil.copytree(files, own := tmp_path / "own")
        request = asked(own, "vit", "resnet")
        assert known_comparison(request) is None
        folder = done(request)
        known = known_comparison(request)
        assert known is not None and known.path == folder.path
        assert known_comparison(replace(request, n=19)) is None
        assert known_comparison(replace(request, measures=(LINEAR,))) is None
        image = next((own / "images").rglob("*.png"))
        content = image.read_bytes()
        Image.new("RGB", (32, 32)).save(image)
        assert known_comparison(request) is None
        other = done(request)
        assert other.path != folder.path
        image.write_bytes(content)
        assert done(request).path == folder.path  # by content, not by when it was written
        save_random_weights(own / "vit.safetensors", "self-supervised")
        assert known_comparison(request) is None

    @pytest.mark.parametrize("name", ["results.h5", "run.json", "study.toml"])
    def test_what_is_damaged_is_made_anew(self, files: Path, name: str) -> None:
        request = asked(files, "vit", "resnet")
        folder = done(request)
        before = maps_of(folder)[1]
        (path,) = folder.path.rglob(name)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(bytes(content))
        assert known_comparison(request) is None
        again = done(request)
        assert again.path == folder.path
        assert known_comparison(request) is not None
        for key, values in maps_of(again)[1].items():
            np.testing.assert_array_equal(values, before[key])

    def test_a_damaged_note_of_a_request_is_asked_again(self, files: Path, cache: Path) -> None:
        request = asked(files, "vit", "vit")
        done(request)
        (hint,) = (cache / "requests").iterdir()
        hint.write_text("{}")
        assert known_comparison(request) is None


def moved(files: Path, epoch: int) -> dict[str, Tensor]:
    """The weights of the ViT as a training may have left them."""
    generator = torch.Generator().manual_seed(epoch)
    weights = load_file(files / "vit.safetensors")
    return {key: values + 0.05 * torch.randn(values.shape, generator=generator) for key, values in weights.items()}


class TestRuns:
    """Checkpoints of runs, as `simtui run` leaves them."""

    @pytest.fixture
    def run_path(self, files: Path, tmp_path: Path) -> Path:
        section = BackboneSection("bundled:supervised", weights=str(files / "vit.safetensors"))
        spec = RunSpec("s", "images", section, "full", 0, 2, 6, None, FinetuneSection(), MeasureSection(), "all")
        path = tmp_path / "study" / "runs" / spec.run_id
        write_record(path, RunRecord(spec.run_id, spec, State.DONE, epochs_done=2))
        for epoch in (1, 2):
            weights = {f"backbone.model.{key}": values for key, values in moved(files, epoch).items()}
            Checkpoints(path).save_weights(epoch, {**weights, "head.weight": torch.ones(3, 128)}, {"run": spec.run_id})
        return path

    def test_the_last_of_a_run_or_any_of_its_checkpoints(self, files: Path, run_path: Path) -> None:
        by_folder, by_file = (
            parse_checkpoint(str(each)) for each in (run_path, run_path / "checkpoints/epoch-001.safetensors")
        )
        assert by_folder.trained == (run_path / "checkpoints/epoch-002.safetensors").resolve()
        assert by_file.trained == (run_path / "checkpoints/epoch-001.safetensors").resolve()
        assert by_folder.name == by_file.name == "bundled:supervised"
        request = replace(asked(files, "vit", "vit"), second=by_folder)
        record, maps = maps_of(done(request))
        assert np.diagonal(maps[SimilarityKey("target", "cls", LINEAR)]).min() < 0.999
        assert record.provenance.weights_source == f"file:{by_folder.trained}"
        xs = layers_by_hooks(
            load_backbone("bundled:supervised", weights=files / "vit.safetensors"), files / "images", 20,
            lambda tokens: tokens[:, 0],
        )  # fmt: skip
        trained = load_backbone("bundled:supervised", weights=files / "vit.safetensors")
        trained.model.load_state_dict(moved(files, 2))
        ys = layers_by_hooks(trained, files / "images", 20, lambda tokens: tokens[:, 0])
        found = maps[SimilarityKey("target", "cls", LINEAR)]
        np.testing.assert_allclose(found, [[plain_cka(x, y) for y in ys] for x in xs], atol=1e-4)

    def test_a_mixture_is_a_checkpoint_like_any_other(self, run_path: Path) -> None:
        record = read_record(run_path)
        write_record(run_path, record.with_(spec=replace(record.spec, method="wise_ft:0.25")))
        last = (run_path / "checkpoints/epoch-002.safetensors").resolve()
        assert parse_checkpoint(str(run_path)).trained == parse_checkpoint(str(last)).trained == last

    def test_a_frozen_backbone_is_the_pre_trained_one(self, files: Path, run_path: Path) -> None:
        section = BackboneSection("bundled:supervised", weights=str(files / "vit.safetensors"))
        spec = RunSpec("s", "images", section, "linear", 0, 2, 6, None, FinetuneSection(), MeasureSection(), "all")
        path = run_path.with_name(spec.run_id)
        write_record(path, RunRecord(spec.run_id, spec, State.DONE, epochs_done=2))
        found = parse_checkpoint(str(path))
        assert (found.trained, found.weights) == (None, (files / "vit.safetensors").resolve())

    def test_what_is_no_checkpoint(self, files: Path, run_path: Path, tmp_path: Path) -> None:
        shutil.rmtree(run_path / "checkpoints")
        with pytest.raises(StudyError, match=r"this run \(done\) has kept no weights"):
            parse_checkpoint(str(run_path))
        comparison = done(asked(files, "vit", "vit"))
        (record,) = comparison.listing().records
        with pytest.raises(StudyError, match="is a comparison, not a checkpoint"):
            parse_checkpoint(str(comparison.run_path(record.run_id)))
        (run_path / "run.json").write_text("{}")
        with pytest.raises(DamagedError):
            parse_checkpoint(str(run_path))


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("vit_base", StudyError, r'checkpoint "vit_base": no family.*\n  fix: .*NAME=FILE'),
        ("timm:resnet50", StudyError, r"malformed .*need <model>\.<tag>"),
        ("bundled:supervised=no.safetensors", WeightsError, r"no\.safetensors: no such file"),
        ("no/such.safetensors", WeightsError, "no such file"),
        ("./nowhere", WeightsError, "no such file"),
        ("{files}", StudyError, "no run of simtui says which backbone it holds"),
        ("{files}/vit.safetensors", StudyError, r"says which backbone it holds\n  fix: write NAME="),
        ("bundled:supervised={files}", WeightsError, "is a folder"),
        ("other:x={files}/vit.safetensors", StudyError, 'unknown family "other"'),
    ],
)
def test_checkpoints_that_cannot_be_told(files: Path, text: str, error: type[SimtuiError], said: str) -> None:
    with pytest.raises(error, match=said):
        parse_checkpoint(text.replace("{files}", str(files)))


def test_weights_that_are_another_models_or_a_pickle(files: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="not the weights of bundled:supervised"):
        done(asked(files, f"bundled:supervised={files}/resnet.safetensors", "vit"))
    torch.save({}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="pickle files can run code"):
        done(asked(files, f"bundled:supervised={tmp_path}/w.pth", "vit"))


def test_images_that_cannot_be_used(files: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        done(asked(files, "vit", "vit", images=tmp_path / "none"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no images under it"):
        done(asked(files, "vit", "vit", images=tmp_path / "empty"))
    (tmp_path / "few").mkdir()
    for i in range(3):
        Image.new("RGB", (8, 8), (i * 40, 0, 0)).save(tmp_path / "few" / f"{i}.png")
    with pytest.raises(DataError, match=r"3 images can be used: linear CKA \(biased\) needs 4 at least"):
        done(asked(files, "vit", "vit", images=tmp_path / "few"))


def test_what_may_be_left_out_is_part_of_the_question(files: Path, tmp_path: Path) -> None:
    shutil.copytree(files / "images", tmp_path / "some")
    for i in range(4):
        next(iter((tmp_path / "some").iterdir())).joinpath(f"bad{i}.png").write_bytes(b"no picture")
    strict = asked(files, "vit", "vit", images=tmp_path / "some", n=28)
    with pytest.raises(DataError, match=r"4 of 28 images cannot be used \(limit 5%\)"):
        done(strict)
    folder = done(replace(strict, reading=DataOptions(max_skipped=0.5)))
    (record,) = folder.listing().records
    assert record.provenance.n_probe == 24 and known_comparison(strict) is None
    (note,) = record.provenance.notes
    assert re.fullmatch(r"left out: 4 of 28 images, which cannot be used; first .*bad\d\.png: .*", note)
    assert note in notes_of(folder)


def test_images_that_cannot_be_read_and_those_that_cannot_be_decoded_are_counted_together(
    files: Path, tmp_path: Path
) -> None:
    shutil.copytree(files / "images", tmp_path / "some")
    folder = next(iter((tmp_path / "some").iterdir()))
    for i in range(2):
        (folder / f"bad{i}.png").write_bytes(b"no picture")
        (folder / f"gone{i}.png").symlink_to(folder / "nowhere.png")
    request = asked(files, "vit", "vit", images=tmp_path / "some", n=28)
    with pytest.raises(DataError, match=r"4 of 28 images cannot be used \(limit 10%\)"):
        done(replace(request, reading=DataOptions(max_skipped=0.1)))
    (record,) = done(replace(request, reading=DataOptions(max_skipped=0.15))).listing().records
    assert record.provenance.notes[0].startswith("left out: 4 of 28 images")


def test_images_need_no_labels(files: Path, tmp_path: Path) -> None:
    """The same pictures in one heap: the same probe but for its share of each class."""
    for path in (files / "images").rglob("*.png"):
        (tmp_path / "heap").mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / "heap")
    manifest = read_images(tmp_path / "heap")
    assert (manifest.layout, len(manifest.items), manifest.classes) == ("images", 24, ("image",))
    assert manifest.warnings[0].startswith("taken as they lie, without labels: ")
    labelled = maps_of(done(asked(files, "vit", "resnet", n=24)))[1]
    folder = done(asked(files, "vit", "resnet", n=24, images=tmp_path / "heap"))
    record, heap = maps_of(folder)
    assert record.provenance.notes == manifest.warnings
    assert manifest.warnings[0] in notes_of(folder)
    for key, values in labelled.items():
        np.testing.assert_allclose(heap[key], values, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"measures": ("cka",)}, 'measure "cka": no such measure'),
        ({"measures": (LINEAR, LINEAR)}, "is named twice"),
        ({"measures": ("mutual_knn",), "n": 8}, r"--n 8: k-NN overlap \(k = 10\) needs 12 images"),
    ],
)
def test_requests_that_need_no_loading_to_be_refused(files: Path, settings: dict[str, object], said: str) -> None:
    with pytest.raises(StudyError, match=said):
        refuse_request(asked(files, "vit", "vit", **settings))


def test_a_measure_that_matches_features(files: Path) -> None:
    with pytest.raises(StudyError, match="matches features one by one, and the layers have"):
        done(asked(files, "vit", "resnet", measures=("row_cosine",)))
    assert done(asked(files, "vit", "vit", measures=("row_cosine",)))


def test_generated_images_by_default(files: Path, cache: Path) -> None:
    record, _ = maps_of(done(asked(files, "vit", "vit", images=None, n=20)))
    assert record.is_synthetic and record.provenance.n_probe == 20
    assert (cache / "images" / "dermoscopy-100").is_dir()


def test_the_process_says_where_it_is_and_answers_or_fails_in_words(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = [f"bundled:supervised={files}/vit.safetensors"] * 2
    assert compare_child.main([*models, "--images", f"{files}/images", "--n", "20", "--measure", LINEAR]) == 0
    *stages, last = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    assert Path(last["path"]).is_dir()
    assert {"reading the images", "comparing"} <= {each["stage"] for each in stages}
    assert compare_child.main([*models, "--images", f"{files}/none", "--n", "20", "--measure", LINEAR]) == 2
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["problem"] == "no such folder"
