"""Folders as timm, transformers and open_clip write them, and as people name files."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from engine.backbones.torchvision_guard import guard
from engine.errors import MachineError, WeightsError
from engine.foreign.find import FoundTraining, find_trainings, refuse_other_epoch
from engine.foreign.labels import read_label, seed_of

guard()
from timm.utils import CheckpointSaver  # noqa: E402


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def epochs(training: FoundTraining) -> list[int]:
    return [each.epoch for each in training.checkpoints]


def train_as_timm(folder: Path, seed: int, n_epochs: int, max_history: int = 10, **changes: Any) -> None:
    folder.mkdir(parents=True)
    model = torch.nn.Linear(2, 2)
    args = {"model": "vit_tiny_patch16_224.augreg_in21k", "pretrained": True, "seed": seed, "img_size": 64,
            "mean": [0.5, 0.5, 0.5], "std": None, "gp": None, **changes}  # fmt: skip
    (folder / "args.yaml").write_text(yaml.safe_dump(args, default_flow_style=False))
    saver = CheckpointSaver(
        model, torch.optim.SGD(model.parameters()), argparse.Namespace(**args), checkpoint_dir=str(folder),
        recovery_dir=str(folder), max_history=max_history,
    )  # fmt: skip
    for epoch in range(n_epochs):
        saver.save_checkpoint(epoch, metric=float(epoch))
    saver.save_recovery(n_epochs, 1)


class TestTimm:
    def test_two_seeds(self, tmp_path: Path) -> None:
        for seed in (0, 1):
            train_as_timm(tmp_path / f"run-{seed}", 40 + seed, 3)
        first, second = find_trainings(tmp_path)
        assert (first.name, first.layout, epochs(first), first.seed) == ("run-0", "timm", [1, 2, 3], 40)
        assert (second.name, second.seed) == ("run-1", 41)
        assert first.backbone == "timm:vit_tiny_patch16_224.augreg_in21k"
        assert (first.input_size, first.mean, first.std) == (64, (0.5, 0.5, 0.5), None)
        assert first.said_by == tmp_path / "run-0" / "args.yaml"
        assert first.checkpoints[0].files == (tmp_path / "run-0" / "checkpoint-0.pth.tar",)
        assert {note.partition(" ")[0] for note in first.notes} >= {"last.pth.tar", "model_best.pth.tar"}

    def test_only_the_best_were_kept(self, tmp_path: Path) -> None:
        train_as_timm(tmp_path / "a", 1, 6, max_history=2)
        assert epochs(find_trainings(tmp_path / "a")[0]) == [5, 6]

    def test_epoch_of_the_pickle_itself(self, tmp_path: Path) -> None:
        train_as_timm(tmp_path / "a", 1, 2)
        training = find_trainings(tmp_path / "a")[0]
        second = training.checkpoints[1]
        refuse_other_epoch(training.layout, second.files[0], second.epoch_said, {"epoch": 1, "version": 2})
        with pytest.raises(WeightsError, match="named as epoch 2, and says itself that 1 were trained"):
            refuse_other_epoch(training.layout, second.files[0], second.epoch_said, {"epoch": 0, "version": 2})

    @pytest.mark.parametrize(
        ("changes", "note"),
        [
            ({"pretrained": False}, "started from random weights"),
            ({"model": "vit_tiny_patch16_224"}, "not which of its weights"),
            ({"initial_checkpoint": "/x/y.pth"}, "started from /x/y.pth"),
            ({"gp": "max"}, "gp: max"),
        ],
    )
    def test_what_is_not_said_fully(self, tmp_path: Path, changes: dict[str, Any], note: str) -> None:
        train_as_timm(tmp_path / "a", 1, 1, **changes)
        training = find_trainings(tmp_path / "a")[0]
        assert (training.backbone is None) == ("gp" not in changes)
        assert any(note in each for each in training.notes)

    @pytest.mark.parametrize(
        "junk", ["!!python/object/apply:os.system ['x']", "[", "- 1", "\0", "{" * 5000, "model: [1]"]
    )
    def test_junk_in_the_file_of_settings(self, tmp_path: Path, junk: str) -> None:
        touch(tmp_path, "checkpoint-0.pth.tar")
        (tmp_path / "args.yaml").write_text(junk)
        training = find_trainings(tmp_path)[0]
        assert (training.backbone, training.model_said, training.seed) == (None, None, None)


class TestTransformers:
    def checkpoint(self, folder: Path, step: int, epoch: Any, **config: Any) -> None:
        transformers: Any = pytest.importorskip("transformers")
        from transformers.trainer_callback import TrainerState

        names = {0: "nevus", 1: "melanoma"}
        own = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
        size = {"image_size": 16, "patch_size": 8, "id2label": names, "label2id": {v: k for k, v in names.items()}}
        place = folder / f"checkpoint-{step}"
        transformers.ViTForImageClassification(transformers.ViTConfig(**own, **size)).save_pretrained(place, **config)
        TrainerState(epoch=epoch, global_step=step).save_to_json(str(place / "trainer_state.json"))
        touch(place, "optimizer.pt", "rng_state.pth", "training_args.bin")

    def test_whole_epochs(self, tmp_path: Path) -> None:
        for n in (1, 2, 10):
            self.checkpoint(tmp_path / "seed_3", 50 * n, float(n))
        touch(tmp_path / "seed_3", "model.safetensors")
        (training,) = find_trainings(tmp_path)
        assert (training.name, training.layout, epochs(training)) == ("seed_3", "hugging_face", [1, 2, 10])
        assert [each.step for each in training.checkpoints] == [50, 100, 500]
        assert (training.seed, training.input_size) == (3, 16)
        assert training.class_names == ("nevus", "melanoma")
        assert training.backbone is None
        assert (training.model_said or "").startswith("ViTForImageClassification")

    def test_epochs_that_are_not_whole(self, tmp_path: Path) -> None:
        for step, epoch in ((40, 0.8), (80, 1.6), (120, 2.4)):
            self.checkpoint(tmp_path, step, epoch)
        (training,) = find_trainings(tmp_path)
        assert [(c.epoch, c.epoch_said, c.step) for c in training.checkpoints] == [
            (1, 0.8, 40),
            (2, 1.6, 80),
            (3, 2.4, 120),
        ]
        assert "its epochs are not whole (0.8, 1.6, 2.4): numbered in their order" in training.notes

    def test_state_that_is_junk(self, tmp_path: Path) -> None:
        for step in (40, 80):
            self.checkpoint(tmp_path, step, 1.0)
            (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text("[[")
        (training,) = find_trainings(tmp_path)
        assert [(c.epoch, c.epoch_said, c.step) for c in training.checkpoints] == [(1, None, 40), (2, None, 80)]

    def test_shards(self, tmp_path: Path) -> None:
        place = tmp_path / "checkpoint-5"
        touch(place, "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
        shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
        index = place / "model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": shards}))
        (training,) = find_trainings(tmp_path)
        assert [path.name for path in training.checkpoints[0].files] == sorted(shards.values())
        assert training.checkpoints[0].kind == "safetensors"
        index.write_text(json.dumps({"weight_map": {"a": "../../secret.safetensors"}}))
        with pytest.raises(WeightsError, match="names files outside its folder"):
            find_trainings(tmp_path)
        index.write_text("{")
        with pytest.raises(WeightsError, match="not readable as an index"):
            find_trainings(tmp_path)


def test_open_clip(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "checkpoints", "epoch_1.pt", "epoch_2.pt", "epoch_latest.pt")
    (tmp_path / "a" / "params.txt").write_text("model: ViT-B-16\npretrained: laion2b_s34b_b88k\nseed: 7\n")
    (training,) = find_trainings(tmp_path)
    assert (training.name, training.layout, epochs(training), training.seed) == ("a", "open_clip", [1, 2], 7)
    assert training.backbone == "open_clip:ViT-B-16/laion2b_s34b_b88k"


def test_lightning_counts_from_zero(tmp_path: Path) -> None:
    touch(tmp_path / "version_0" / "checkpoints", "epoch=0-step=10.ckpt", "epoch=1-step=20.ckpt", "last.ckpt")
    (training,) = find_trainings(tmp_path)
    assert (training.layout, epochs(training), [c.step for c in training.checkpoints]) == (
        "lightning",
        [1, 2],
        [10, 20],
    )


class TestPlain:
    @pytest.mark.parametrize(
        ("names", "found"),
        [
            (("epoch_01.pth", "epoch_02.pth"), {"": [1, 2]}),
            (("ep3.safetensors", "ep12.safetensors"), {"": [3, 12]}),
            (("e3-step900.pt", "e4-step1200.pt"), {"": [3, 4]}),
            (("checkpoint_0003.pth", "checkpoint_0004.pth"), {"": [3, 4]}),
            (("model-7.bin",), {"": [7]}),
            (("resnet50_epoch5_acc0.83.pth", "resnet50_epoch6_acc0.91.pth"), {"resnet50": [5, 6]}),
            (("seed0_epoch1.pth", "seed0_epoch2.pth", "seed1_epoch1.pth"), {"seed0": [1, 2], "seed1": [1]}),
            (("a/epoch1.pth", "b/epoch1.pth"), {"a": [1], "b": [1]}),
            (("epoch-1/model.safetensors", "epoch-2/model.safetensors"), {"": [1, 2]}),
            (("init.pth", "epoch_1.pth", "best.pth", "last.pth"), {"": [0, 1]}),
            (("epoch_1.pth", "epoch_1_ema.pth"), {"": [1]}),
            (("step100.pth", "step50.pth"), {"": [1, 2]}),
        ],
    )
    def test_names(self, tmp_path: Path, names: tuple[str, ...], found: dict[str, list[int]]) -> None:
        assert {each.name: epochs(each) for each in find_trainings(touch(tmp_path, *names))} == found

    def test_counted_from_zero(self, tmp_path: Path) -> None:
        touch(tmp_path, "epoch_0.pth", "epoch_1.pth")
        assert epochs(find_trainings(tmp_path)[0]) == [0, 1]
        assert epochs(find_trainings(tmp_path, counted_from=0)[0]) == [1, 2]

    def test_two_files_of_one_epoch(self, tmp_path: Path) -> None:
        touch(tmp_path, "epoch_1.pth", "epoch_01.pth")
        with pytest.raises(WeightsError, match="two checkpoints of one epoch or step"):
            find_trainings(tmp_path)

    def test_epoch_that_cannot_be_told(self, tmp_path: Path) -> None:
        touch(tmp_path, "vit_base_patch16_224.pth")
        with pytest.raises(WeightsError, match="which epoch it is of cannot be told") as caught:
            find_trainings(tmp_path)
        assert "--order name" in caught.value.fix
        assert epochs(find_trainings(tmp_path, order="name")[0]) == [1]

    @pytest.mark.parametrize("names", [(), ("readme.txt",), ("optimizer.pt",)])
    def test_nothing(self, tmp_path: Path, names: tuple[str, ...]) -> None:
        with pytest.raises(WeightsError, match="no checkpoints in it"):
            find_trainings(touch(tmp_path, *names))
        with pytest.raises(WeightsError, match="no such folder"):
            find_trainings(tmp_path / "absent")

    def test_links(self, tmp_path: Path) -> None:
        touch(tmp_path / "other", "epoch_1.pth")
        given = tmp_path / "given"
        given.mkdir()
        (given / "loop").symlink_to(given)
        (given / "other").symlink_to(tmp_path / "other")
        with pytest.raises(WeightsError, match="no checkpoints"):
            find_trainings(given)
        assert [each.name for each in find_trainings(given, follow_links=True)] == ["other"]

    def test_folder_that_cannot_be_read(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(_path: Path) -> Any:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "iterdir", refuse)
        with pytest.raises(MachineError, match=r"cannot be read \(Permission denied"):
            find_trainings(tmp_path)

    def test_hostile_names(self, tmp_path: Path) -> None:
        touch(tmp_path, "[/]\x1b[31m_epoch_1.pth", "a\nb_epoch_2.pth")
        assert len(find_trainings(tmp_path)) == 2


@pytest.mark.parametrize(
    ("name", "seed"),
    [("seed3", 3), ("a_seed_12/b", 12), ("run-4", 4), ("run-4/seed=5", 5), ("seeds", None)],
)
def test_seed_of(name: str, seed: int | None) -> None:
    assert seed_of(name) == seed


def test_label_of_a_figure() -> None:
    assert asdict(read_label("net_e2_loss0.31"))["epoch"] == 2.0
