"""The maps of a run beside those of θ*: what one image shows, and the words for every way in which there are none."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.analysis.attention import attention_map_table, attention_view, find_image, study_attention
from engine.errors import DamagedError, StudyError
from engine.export import to_csv
from engine.jobs.plan import PLAN_FILE, Plan, write_plan
from engine.quality.attention import map_correlation, map_overlap
from engine.runs.attention_maps import AttentionMaps, write_attention
from engine.runs.record import Provenance, RunRecord, State
from engine.runs.study_folder import StudyFolder
from engine.study import freeze_study, run_specs
from tests.attention import made_maps
from tests.simtui.studies import study_of

BEFORE, AFTER = made_maps(0, with_pixels=True), made_maps(1)
REFERENCE = "ab" * 32


class TestView:
    def test_of_one_head(self) -> None:
        view = attention_view(BEFORE, AFTER, 2, "blocks.1", 1, "cls")
        maps = [each.maps["cls"][2, 1, 1].astype(np.float64) for each in (BEFORE, AFTER)]
        assert view.side == 4 and view.before.dtype == view.difference.dtype == np.float64
        np.testing.assert_array_equal(view.before, maps[0].reshape(4, 4))
        np.testing.assert_array_equal(view.after, maps[1].reshape(4, 4))
        np.testing.assert_array_equal(view.difference, view.after - view.before)
        assert view.entropy_before == BEFORE.entropy["cls"][2, 1, 1]
        assert view.entropy_after == AFTER.entropy["cls"][2, 1, 1]
        assert (view.distance_before, view.distance_after) == (None, None)
        assert view.correlation == map_correlation(*maps) and view.overlap == map_overlap(*maps)
        assert (view.patch_share_before, view.patch_share_after) == pytest.approx((0.9, 0.9), abs=2e-3)
        assert view.is_frozen is False

    def test_of_the_mean_over_the_heads(self) -> None:
        view = attention_view(BEFORE, AFTER, 0, "blocks.0", None, "feat")
        maps = [each.maps["feat"][0, 0].astype(np.float64).mean(0) for each in (BEFORE, AFTER)]
        np.testing.assert_allclose(view.before, maps[0].reshape(4, 4))
        assert view.entropy_after == pytest.approx(AFTER.entropy["feat"][0, 0].mean())
        assert view.distance_before == pytest.approx(BEFORE.distance[0, 0].mean())
        assert view.distance_after == pytest.approx(AFTER.distance[0, 0].mean())
        assert view.correlation == pytest.approx(map_correlation(*maps))

    def test_of_a_frozen_backbone(self) -> None:
        view = attention_view(BEFORE, BEFORE, 0, "blocks.0", None, "cls")
        assert view.is_frozen and view.correlation == pytest.approx(1) and view.overlap == pytest.approx(1)
        assert not view.difference.any()
        assert not attention_view(BEFORE, replace(BEFORE), 0, "blocks.0", None, "cls").is_frozen

    def test_what_is_undefined_is_none(self) -> None:
        nothing = replace(AFTER, maps={each: np.zeros_like(values) for each, values in AFTER.maps.items()})
        view = attention_view(BEFORE, nothing, 0, "blocks.0", 0, "cls")
        assert (view.correlation, view.overlap, view.patch_share_after) == (None, None, 0)

    @pytest.mark.parametrize(
        ("asked", "message"),
        [
            ((4, "blocks.0", None, "cls"), "image 4: there is no such row\n  fix: give 0 to 3"),
            ((-1, "blocks.0", None, "cls"), "image -1: there is no such row"),
            ((0, "blocks.9", None, "cls"), "layer 'blocks.9': .*\n  fix: choose one of blocks.0, blocks.1"),
            ((0, "blocks.0", 3, "cls"), "head 3: the layer has no such head\n  fix: give 0 to 2"),
            ((0, "blocks.0", -1, "cls"), "head -1: "),
            ((0, "blocks.0", None, "mean"), "pooling 'mean': .*\n  fix: choose one of cls, feat"),
        ],
    )
    def test_what_is_not_there_is_named(self, asked: tuple[int, str, int | None, str], message: str) -> None:
        for function in (attention_view, attention_map_table):
            with pytest.raises(StudyError, match=message):
                function(BEFORE, AFTER, *asked)


class TestTable:
    def test_one_row_a_patch(self) -> None:
        table = attention_map_table(BEFORE, AFTER, 1, "blocks.0", 2, "feat")
        view = attention_view(BEFORE, AFTER, 1, "blocks.0", 2, "feat")
        assert table.columns == ("row", "column", "before", "after", "difference")
        assert len(table.rows) == 16 and table.rows[6][:2] == (1, 2)
        assert table.rows[6][2:] == (view.before[1, 2], view.after[1, 2], view.difference[1, 2])
        assert table.notes[0] == "a/2.png (target), blocks.0, head 2 of 3, feat"
        assert any(note.startswith("mean attention distance ") for note in table.notes)
        assert any(f"(even: {math.log(16):.4g})" in note for note in table.notes)
        assert len(to_csv(table).splitlines()) == 17

    def test_it_says_that_a_backbone_is_frozen_and_what_is_undefined(self) -> None:
        frozen = attention_map_table(BEFORE, BEFORE, 1, "blocks.0", None, "cls")
        assert "this run trains no backbone: its attention is that of θ*" in frozen.notes
        assert frozen.notes[0] == "a/2.png (target), blocks.0, mean over 3 heads, cls"
        assert not any("distance" in note for note in frozen.notes)
        nothing = replace(AFTER, maps={each: np.zeros_like(values) for each, values in AFTER.maps.items()})
        notes = attention_map_table(BEFORE, nothing, 1, "blocks.0", None, "cls").notes
        assert "correlation of the two maps undefined, overlap undefined" in notes


class TestFindImage:
    MAPS = made_maps(images=("a/1.png", "a/10.png", "a/1.png", "b/2.png"))

    @pytest.mark.parametrize(
        ("name", "row"),
        [
            ("a/10.png", 1), ("10", 1), ("b", 3), ("2.p", 3), ("target:a/1.png", 0), ("origin:a/1.png", 2),
            ("origin:1", 2), ("target:10", 1), ("origin:b/2.png", 3),
        ],
    )  # fmt: skip
    def test_by_its_id_or_a_part_that_fits_only_one(self, name: str, row: int) -> None:
        assert find_image(self.MAPS, name) == row

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("a/1.png", "fits 2 images: target:a/1.png, origin:a/1.png\n  fix: name its domain too"),
            ("a/1", "fits 3 images: target:a/1.png, target:a/10.png, origin:a/1.png\n  fix: give more of the name"),
            ("", "fits 4 images"),
            ("target:", "fits 2 images: target:a/1.png, target:a/10.png\n"),
            ("zz", "no image .*\n  fix: choose one of target:a/1.png, target:a/10.png, origin:a/1.png, origin:b/2.png"),
            ("target:b", "no image of the attention set has this in its name"),
            ("elsewhere:a/1.png", "no image of the attention set has this in its name"),
        ],
    )
    def test_none_or_several_are_said_with_the_choices(self, name: str, message: str) -> None:
        with pytest.raises(StudyError, match=message):
            find_image(self.MAPS, name)

    def test_an_id_with_a_colon_is_taken_whole(self) -> None:
        maps = made_maps(images=("target:x.png", "x.png", "y.png", "z.png"))
        assert find_image(maps, "target:x.png") == 0

    def test_few_of_many_choices_are_named(self) -> None:
        names = tuple(f"{i:02d}.png" for i in range(40))
        maps = made_maps(images=names, domains=("target",) * 40)
        with pytest.raises(StudyError) as caught:
            find_image(maps, "q")
        assert caught.value.fix.endswith("target:11.png and 28 more")


# A study


Make = Callable[..., tuple[StudyFolder, RunRecord]]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A study folder with θ*'s maps and those of one run, and the run's record with the changes asked for."""

    def make(method: str = "full", **changes: object) -> tuple[StudyFolder, RunRecord]:
        path = tmp_path / "my study"
        path.mkdir()
        (path / "study.toml").write_text(freeze_study(study_of(("bundled:supervised",), seeds=1)))
        folder = StudyFolder(path)
        spec = next(each for each in run_specs(folder.study) if each.method == method)
        files = {} if method == "linear" else {"attention.h5": "00"}
        record = RunRecord(
            spec.run_id, spec, State.DONE, files=files, provenance=Provenance(attention_reference=REFERENCE)
        )
        write_attention(folder.activations_path / f"{REFERENCE}.h5", BEFORE)
        if files:
            write_attention(folder.run_path(spec.run_id) / "attention.h5", AFTER)
        return folder, record.with_(**changes)

    return make


def test_the_maps_of_a_run_are_read_with_those_of_the_pre_trained_model(make: Make) -> None:
    before, after = study_attention(*make())
    np.testing.assert_array_equal(before.maps["cls"], BEFORE.maps["cls"])
    np.testing.assert_array_equal(after.maps["cls"], AFTER.maps["cls"])
    assert before.pixels is not None and after.pixels is None


def test_a_linear_run_has_those_of_the_pre_trained_model(make: Make) -> None:
    before, after = study_attention(*make("linear"))
    assert after is before and attention_view(before, after, 0, "blocks.0", None, "cls").is_frozen


@pytest.mark.parametrize("state", [state for state in State if state is not State.DONE])
def test_a_run_that_is_not_done_has_none_yet(make: Make, state: State) -> None:
    folder, record = make(state=state)
    with pytest.raises(StudyError, match=rf"is {state}: its attention maps are made at its last epoch") as caught:
        study_attention(folder, record)
    assert caught.value.fix == f"simtui run '{folder.path}' goes on with it"


def test_a_study_that_keeps_none_says_how_to_keep_some(make: Make) -> None:
    folder, record = make(provenance=Provenance())
    asked = record.with_(spec=replace(record.spec, attention_n=0))
    with pytest.raises(StudyError, match=r"keeps no attention maps \(attention\.n = 0\)\n  fix: set \[attention\] n ="):
        study_attention(folder, asked)


def test_a_run_of_an_earlier_simtui_is_told_from_one_whose_attention_cannot_be_read(make: Make) -> None:
    folder, record = make(provenance=Provenance())
    other = 'no attention maps: backbone "timm:other": its attention cannot be read: its shape is (1, 8, 17, 17)'
    ours = other.replace("timm:other", "bundled:supervised")
    plan = Plan(("cpu",), 1, 1, "float32", "m", None, (other,))
    write_plan(folder.path / PLAN_FILE, plan)
    with pytest.raises(StudyError, match="was run by a simtui that kept no attention maps\n  fix: rm -r ") as caught:
        study_attention(folder, record)
    assert caught.value.where == record.run_id
    write_plan(folder.path / PLAN_FILE, replace(plan, notes=(other, ours)))
    with pytest.raises(StudyError) as caught:
        study_attention(folder, record)
    assert (caught.value.problem, caught.value.fix) == (ours, "choose a run of another backbone")


def test_maps_that_were_freed_are_told_from_maps_that_are_lost(make: Make, tmp_path: Path) -> None:
    folder, record = make()
    copy = record.with_(files={})
    record = record.with_(provenance=replace(record.provenance, dataset_path=str(tmp_path)))
    path = folder.run_path(record.run_id) / "attention.h5"
    path.unlink()
    with pytest.raises(StudyError, match="its attention maps were freed") as caught:
        study_attention(folder, record.with_(files={}))
    assert caught.value.fix.startswith(f"rm -r '{path.parent}' && simtui run ")
    with pytest.raises(StudyError, match="not in this copy of the study") as caught:
        study_attention(folder, copy)
    assert "rm " not in caught.value.fix
    with pytest.raises(DamagedError, match=r"attention\.h5: cannot be read \(No such file"):
        study_attention(folder, record)


def test_maps_of_the_pre_trained_model_that_are_not_there_are_made_again(make: Make) -> None:
    folder, record = make()
    path = folder.activations_path / f"{REFERENCE}.h5"
    path.unlink()
    with pytest.raises(StudyError, match=r"the attention maps of θ\* are not there") as caught:
        study_attention(folder, record)
    assert caught.value.where == str(path) and caught.value.fix == f"simtui run '{folder.path}' makes them again"


@pytest.mark.parametrize("which", ["before", "after"])
def test_a_damaged_file_is_named(make: Make, which: str) -> None:
    folder, record = make()
    places = {
        "before": folder.activations_path / f"{REFERENCE}.h5", "after": folder.run_path(record.run_id) / "attention.h5",
    }  # fmt: skip
    content = bytearray(places[which].read_bytes())
    content[-2000] ^= 1
    places[which].write_bytes(content)
    with pytest.raises(DamagedError, match="changed since it was written") as caught:
        study_attention(folder, record)
    assert caught.value.where.startswith(str(places[which]))


@pytest.mark.parametrize(
    "other",
    [
        made_maps(images=("a/2.png", "a/1.png", "b/3.png", "c/10.png")),
        made_maps(domains=("target",) * 4),
        made_maps(layers=("blocks.0", "blocks.2")),
        made_maps(poolings=("feat",)),
    ],
    ids=["images", "domains", "layers", "poolings"],
)
def test_maps_that_are_not_of_the_same_are_not_laid_side_by_side(make: Make, other: AttentionMaps) -> None:
    folder, record = make()
    path = folder.run_path(record.run_id) / "attention.h5"
    write_attention(path, other)
    with pytest.raises(DamagedError, match=r"holds other images, layers or heads than the maps of θ\*"):
        study_attention(folder, record)
    shutil.copy(folder.activations_path / f"{REFERENCE}.h5", path)
    study_attention(folder, record)
