"""What a study makes of its images before any training: notes, a bounded cache, pixels shared with other studies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.cleaning import groups_of
from engine.data.pixels import PartlyCached
from engine.errors import DataError, StudyError
from engine.finetune.attention import attention_digest
from engine.finetune.inputs import Inputs
from engine.jobs.launch import make_study_folder
from engine.jobs.plan import notes_of, read_plan
from engine.jobs.prepare import Preparation
from engine.jobs.progress import study_progress
from engine.runs.study_folder import StudyFolder
from engine.study import load_study
from tests.studies import make_images, write_study

SIDE_BYTES = 73 * 73 * 3


def prepared(request: Path, out: Path) -> tuple[StudyFolder, Inputs]:
    folder = make_study_folder(load_study(request), out)
    Preparation(folder, reports=True).prepare()
    plan = read_plan(folder.path / "plan.json")
    return folder, Preparation(folder, reports=False).inputs(plan, 64)


def test_what_was_left_out_and_what_is_thin_is_said_before_training(tmp_path: Path) -> None:
    request = write_study(tmp_path, methods=["linear"])
    (tmp_path / "images" / "red" / "empty.png").touch()
    (tmp_path / "origin" / "red" / "text.jpg").write_text("no image")
    Image.new("CMYK", (30, 30)).save(tmp_path / "origin" / "blue" / "press.jpg")
    folder, _ = prepared(request, tmp_path / "out")
    notes = notes_of(folder.path)
    assert "1 left out: file is empty (red/empty.png)" in notes
    assert 'few images for training (below 10): "blue" 7, "green" 7, "red" 7' in notes
    assert any(note.startswith("no patients or lesions are named") for note in notes)
    assert "origin: 1 left out: not an image (red/text.jpg)" in notes
    assert "origin: 1 images: CMYK, converted to RGB" in notes
    assert study_progress(folder).notes == notes


def test_a_bounded_cache_gives_the_same_pixels(tmp_path: Path) -> None:
    request = write_study(tmp_path, methods=["linear"])
    _, whole = prepared(request, tmp_path / "whole" / "out")
    text = request.read_text()
    request.write_text(text.replace("[machine]", f"[machine]\ncache_gb = {15 * SIDE_BYTES / 1e9}"))
    folder, bounded = prepared(request, tmp_path / "bounded" / "out")
    train = bounded.splits["train"].pixels
    assert isinstance(train, PartlyCached) and not isinstance(whole.splits["train"].pixels, PartlyCached)
    assert all(not isinstance(bounded.splits[split].pixels, PartlyCached) for split in ("test", "val"))
    rows = np.array([20, 0, 7, 20, 19])
    assert np.array_equal(train[rows], whole.splits["train"].pixels[rows])
    assert np.array_equal(train[3:21], whole.splits["train"].pixels[3:21])
    assert bounded.probe_digest == whole.probe_digest
    taken = sum(path.stat().st_size for path in folder.probes_path.rglob("*.npy"))
    assert taken < 2 * 15 * SIDE_BYTES + 6 * 256  # the dataset and the origin set, each within the bound


def test_studies_beside_each_other_share_their_pixels(tmp_path: Path) -> None:
    request = write_study(tmp_path, methods=["linear"])
    first, _ = prepared(request, tmp_path / "studies" / "one")
    second, inputs = prepared(request, tmp_path / "studies" / "two")
    pairs = [(path, second.path / path.relative_to(first.path)) for path in first.probes_path.rglob("*.npy")]
    assert len(pairs) == 4 and all(one.samefile(other) for one, other in pairs)
    assert len(inputs.splits["train"].items) == 21
    of_images = {group.name: group.n_bytes for group in groups_of(first)}["images"]
    assert of_images <= 4 * 4096  # the notes alone: the pixels stay with the other study


def test_the_probe_is_the_same_in_another_study_on_the_same_images(tmp_path: Path) -> None:
    request = write_study(tmp_path, methods=["linear"])
    _, first = prepared(request, tmp_path / "one" / "out")
    (tmp_path / "images").rename(tmp_path / "elsewhere")
    request.write_text(request.read_text().replace('path = "images"', 'path = "elsewhere"'))
    _, second = prepared(request, tmp_path / "two" / "out")
    assert first.probe_ids == second.probe_ids and first.probe_digest == second.probe_digest


def test_origin_images_to_compare_and_images_to_look_at_are_chosen_by_content(tmp_path: Path) -> None:
    request = write_study(tmp_path, methods=["linear"])
    request.write_text(request.read_text().replace("n = 6", "n = 6\norigin_n = 10\n[attention]\nn = 4"))
    _, found = prepared(request, tmp_path / "one" / "out")
    assert found.origin is not None and found.origin_probe is not None
    assert {domain: len(cache.items) for domain, cache in found.attention.items()} == {"target": 4, "origin": 4}
    assert set(found.origin_probe.items) < set(found.origin.items) and len(found.origin_probe.items) == 10
    assert {item.label for item in found.origin_probe.items} == {0, 1, 2}
    assert set(found.attention["target"].items) < set(found.splits["test"].items)
    for part, whole in ((found.origin_probe, found.origin), (found.attention["target"], found.splits["test"])):
        rows = [whole.items.index(item) for item in part.items]
        assert np.array_equal(part.pixels[:], whole.pixels[np.array(rows)])
    _, again = prepared(request, tmp_path / "two" / "out")
    assert again.origin_probe is not None and again.origin_probe.digest == found.origin_probe.digest
    assert attention_digest(again.attention) == attention_digest(found.attention)


def test_neither_is_there_where_none_is_asked_for_or_there_is_no_origin_set(tmp_path: Path) -> None:
    request = write_study(tmp_path, methods=["linear"])
    text = request.read_text()
    request.write_text(text.replace("n = 6", "n = 6\norigin_n = 0\n[attention]\nn = 0"))
    folder, found = prepared(request, tmp_path / "none")
    assert found.origin is not None and (found.origin_probe, dict(found.attention)) == (None, {})
    assert len(list(folder.activations_path.glob("*.h5"))) == 5
    request.write_text(text.replace('[origin]\npath = "origin"\nn = 24\n', ""))
    _, found = prepared(request, tmp_path / "no origin")
    assert (found.origin, found.origin_probe, list(found.attention)) == (None, None, ["target"])


def test_too_few_origin_images_for_a_measure_are_said_before_training(tmp_path: Path) -> None:
    """As many as the study asks for, of which too few can be used."""
    request = write_study(tmp_path, methods=["linear"])
    measure = '[measure]\nsimilarity = ["mutual_knn"]\nquality = ["effective_rank"]\n[machine]'
    text = request.read_text().replace("n = 6", "n = 12\norigin_n = 12").replace("[machine]", measure)
    request.write_text(text.replace('path = "origin"', 'path = "origin"\nmax_skipped = 1.0'))
    make_images(tmp_path / "more", 40, seed=5)
    request.write_text(request.read_text().replace('path = "images"', 'path = "more"'))
    for path in sorted((tmp_path / "origin").rglob("*.png"))[:14]:
        path.write_bytes(path.read_bytes()[:-200])
    folder = make_study_folder(load_study(request), tmp_path / "out")
    with pytest.raises(StudyError) as caught:
        Preparation(folder, reports=True).prepare()
    assert caught.value.where == 'measure.similarity "mutual_knn"' and "10" in caught.value.problem
    assert caught.value.fix == "raise probe.origin_n or the number of origin images, or leave it out"


def test_a_plan_of_an_earlier_version_has_no_notes(tmp_path: Path) -> None:
    assert notes_of(tmp_path) == ()


def test_the_limit_of_unusable_images_is_over_all_splits(tmp_path: Path) -> None:
    request = write_study(tmp_path, methods=["linear"])
    bad = sorted((tmp_path / "images").rglob("*.png"))[:2]
    bad[0].write_bytes(bad[0].read_bytes()[:-200])
    folder, inputs = prepared(request, tmp_path / "one")
    assert sum(len(cache.skipped) for cache in inputs.splits.values()) == 1
    assert [note for note in notes_of(folder.path) if "left out" in note] == [
        f"1 left out: image is cut short (blue/{bad[0].name})"
    ]
    bad[1].write_bytes(bad[1].read_bytes()[:-200])
    with pytest.raises(DataError, match=r"2 of 30 images cannot be used \(limit 5%\)"):
        prepared(request, tmp_path / "two")
    request.write_text(request.read_text().replace("[probe]", "max_skipped = 0.1\n[probe]"))
    prepared(request, tmp_path / "two")  # in the folder in which it could not start
