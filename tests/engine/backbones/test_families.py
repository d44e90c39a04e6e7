"""What each family refuses, and how the traps of its library are avoided."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from engine.backbones import load_backbone, open_clip_family, parse_name
from engine.backbones.bundled import BUNDLED, build
from engine.backbones.torchvision_guard import guard
from engine.backbones.weights import local_file
from engine.errors import StudyError, WeightsError

guard()
import open_clip  # noqa: E402
import timm  # noqa: E402

TEXT = {"context_length": 4, "vocab_size": 8, "width": 16, "heads": 2, "layers": 1}
VISION = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}


def save(path: Path, state: dict[str, torch.Tensor]) -> Path:
    save_file({key: tensor.contiguous() for key, tensor in state.items()}, path)
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "w.safetensors"


@pytest.mark.parametrize(
    ("name", "input_size", "problem", "fix"),
    [
        ("timm:vit_tiny_patch16_224.augreg", None, 'vit_tiny_patch16_224 has no weights "augreg"', "augreg_in21k"),
        ("timm:vit_tny_patch16_224.augreg_in21k", None, "timm has no backbone of this name", "vit_tiny_patch16_224"),
        ("timm:cait_xxs24_224.fb_dist_in1k", None, "its blocks.0 gives a tensor (2, 196, 192) (need a map of", "ViT"),
        ("timm:tnt_s_patch16_224.in1k", None, "its blocks.0 gives a tuple (need a map of 384 channels", "resnet50"),
        ("timm:tresnet_m.miil_in1k", None, "what timm names as a stage is not there", "timm:resnet50.a1_in1k"),
        ("timm:twins_svt_small.in1k", None, "what timm names as a stage is not there (Twins has no", "ViT"),
        ("timm:naflexvit_base_patch16_gap.e300_s576_in1k", None, "its layers can be read neither as", "ViT"),
        (
            "timm:convnext_atto.d2_in1k",
            80,
            "its stages.3.downsample.1 would leave out the last 1 of",
            "= 64, or another",
        ),
        ("timm:convnext_atto.d2_in1k", 33, "its stem.0 would leave out the last 1 of each row", "multiple of its str"),
        ("timm:swin_tiny_patch4_window7_224.ms_in1k", 34, "patch_embed.proj would leave out the last 2", "size = 32"),
        (
            "timm:maxvit_tiny_rw_224.sw_in1k",
            72,
            "takes no images of 72 pixels (height (9) must be div",
            "another input",
        ),
        ("timm:gcvit_xxtiny.in1k", 16, "input_size = 16: timm does not build it for this size (division", "leave in"),
        (
            "timm:vit_base_patch14_dinov2.lvd142m",
            225,
            "input_size = 225: need a multiple of its patch size 14",
            "= 224",
        ),
        ("timm:vit_tiny_patch16_224.augreg_in21k", 0, "input_size = 0: need a multiple", "set input_size = 16"),
        ("timm:vit_tiny_patch16_224.augreg_in21k", 5, "input_size = 5: need a multiple", "set input_size = 16"),
        ("open_clip:ViT-B-61/openai", None, "open_clip has no backbone of this name", "open_clip:ViT-B-16/openai"),
        ("open_clip:ViT-B-16/laion", None, 'ViT-B-16 has no weights "laion"', "open_clip:ViT-B-16/openai"),
        ("open_clip:RN50/openai", None, "whose attention pool projects at once", '"timm:resnet50_clip.openai"'),
        ("open_clip:ViTamin-B/datacomp1b", None, "its layers can be read neither as blocks of tokens", "name a ViT"),
        ("open_clip:coca_ViT-B-32/laion2b_s13b_b90k", None, "pools its tokens by attention", "ViT-B-16"),
        ("open_clip:ViT-B-16/openai", 100, "input_size = 100: need a multiple of its patch size 16", "= 96"),
        (
            "open_clip:ViT-B-16-SigLIP/webli",
            256,
            "input_size = 256: open_clip builds it for 224 only",
            "= 224, or take",
        ),
        ("bundled:supervised", 224, "input_size = 224: bundled backbones read 64 pixels only", "set input_size = 64"),
    ],
)
def test_request_that_cannot_be_met(name: str, input_size: int | None, problem: str, fix: str) -> None:
    with pytest.raises(StudyError) as caught:
        load_backbone(name, input_size=input_size)
    assert caught.value.where == f'backbone "{name}"'
    assert problem in caught.value.problem
    assert fix in caught.value.fix


@pytest.mark.parametrize(
    ("name", "url"),
    [
        (
            "timm:vit_tiny_patch16_224.augreg_in21k",
            "timm/vit_tiny_patch16_224.augreg_in21k/resolve/main/model.safetensors",
        ),
        (
            "open_clip:ViT-B-16/laion2b_s34b_b88k",
            "laion/CLIP-ViT-B-16-laion2B-s34B-b88K/resolve/main/open_clip_model.safetensors",
        ),
        ("open_clip:ViT-B-16/openai", "timm/vit_base_patch16_clip_224.openai/resolve/main/open_clip_model.safetensors"),
    ],
)
def test_missing_weights_name_the_file_to_fetch(name: str, url: str, hub: object) -> None:
    with pytest.raises(WeightsError) as caught:
        load_backbone(name)
    assert caught.value.where == f'backbone "{name}"'
    assert f"fetch https://huggingface.co/{url} on" in caught.value.fix


class TestTimm:
    def test_weights_of_another_width(self, file: Path) -> None:
        save(file, timm.create_model("test_vit", embed_dim=32).state_dict())
        problem = r"not the weights of timm:test_vit.r160_in1k: cls_token is \(1, 1, 32\), model needs \(1, 1, 64\); "
        with pytest.raises(WeightsError, match=problem):
            load_backbone("timm:test_vit.r160_in1k", weights=file)

    def test_missing_and_extra_keys(self, file: Path) -> None:
        state = timm.create_model("test_vit").state_dict()
        state["decoder.weight"] = state.pop("norm.weight")
        with pytest.raises(WeightsError, match=r"r160_in1k: missing norm.weight; not in the model: decoder.weight\n"):
            load_backbone("timm:test_vit.r160_in1k", weights=save(file, state))

    def test_patches_of_another_size_are_not_resampled_in_silence(self, file: Path) -> None:
        save(file, timm.create_model("test_vit", patch_size=32).state_dict())
        with pytest.raises(
            WeightsError, match=r"patch_embed.proj.weight is \(64, 3, 32, 32\), model needs \(64, 3, 16, 16\)"
        ):
            load_backbone("timm:test_vit.r160_in1k", weights=file)

    def test_weights_that_timm_would_load_loosely(self, file: Path) -> None:
        save(file, {"cls.unused": torch.ones(1)})
        with pytest.raises(WeightsError, match=r"missing pos_embed, patch_embed.proj.weight, .* and 144 more"):
            load_backbone("timm:vit_base_patch16_siglip_gap_224.webli", weights=file, input_size=16)

    def test_file_of_dinov2s_authors(self, file: Path) -> None:
        state = timm.create_model("vit_small_patch14_dinov2", img_size=56, num_classes=0).state_dict()
        save(file, state | {"mask_token": torch.zeros(1, 384)})
        backbone = load_backbone("timm:vit_small_patch14_dinov2.lvd142m", weights=file, input_size=56)
        assert set(backbone.model.state_dict()) == set(state)
        assert torch.equal(backbone.model.state_dict()["pos_embed"], state["pos_embed"])

    @pytest.mark.parametrize("n_classes", [0, 3, 21843])
    def test_any_classifier_is_left_out(self, file: Path, n_classes: int) -> None:
        state = timm.create_model("test_vit", num_classes=n_classes).state_dict()
        backbone = load_backbone("timm:test_vit.r160_in1k", weights=save(file, state))
        assert not any("head" in key for key in backbone.state_dict())
        assert torch.equal(backbone.state_dict()["model.pos_embed"], state["pos_embed"])

    def test_half_precision_files_are_computed_in_float32(self, file: Path) -> None:
        state = {key: tensor.half() for key, tensor in timm.create_model("test_vit").state_dict().items()}
        backbone = load_backbone("timm:test_vit.r160_in1k", weights=save(file, state))
        assert {parameter.dtype for parameter in backbone.parameters()} == {torch.float32}


class TestOpenClip:
    @pytest.mark.parametrize(("tag", "activation"), [("openai", "QuickGELU"), ("laion2b_s34b_b88k", "GELU")])
    def test_activation_is_that_of_the_weights(self, tag: str, activation: str) -> None:
        name = parse_name(f"open_clip:ViT-B-16/{tag}")
        with torch.device("meta"):
            clip = open_clip_family._create(name, 224, bool(open_clip_family._config(name).get("quick_gelu")))
        assert type(clip.visual.transformer.resblocks[0].mlp.gelu).__name__ == activation

    def test_position_embeddings_are_resized_as_open_clip_does(self, file: Path) -> None:
        source = open_clip.CLIP(16, VISION, TEXT)
        save(file, source.state_dict())
        target = open_clip.CLIP(16, {**VISION, "image_size": 16}, TEXT)
        open_clip_family.load_image_tower(target, local_file(file), "n")
        grid = source.visual.positional_embedding.data[1:].reshape(1, 4, 4, 32).permute(0, 3, 1, 2)
        resized = torch.nn.functional.interpolate(grid, (2, 2), mode="bicubic", antialias=True, align_corners=False)
        torch.testing.assert_close(
            target.visual.positional_embedding.data[1:], resized.permute(0, 2, 3, 1).reshape(4, 32)
        )
        assert torch.equal(target.visual.positional_embedding[0], source.visual.positional_embedding[0])

    def test_file_without_an_image_tower(self, file: Path) -> None:
        save(file, timm.create_model("test_vit").state_dict())
        with pytest.raises(WeightsError, match=r'no key begins with "visual." \(seen .* and \d+ more\)'):
            load_backbone("open_clip:ViT-B-16/openai", weights=file)

    def test_tower_of_another_width(self, file: Path) -> None:
        save(file, open_clip.CLIP(16, VISION, TEXT).state_dict())
        clip = open_clip.CLIP(16, {**VISION, "width": 48}, TEXT)
        with pytest.raises(
            WeightsError, match=r"not the weights of n: .*class_embedding is \(32\), model needs \(48\)"
        ):
            open_clip_family.load_image_tower(clip, local_file(file), "n")

    def test_position_embeddings_of_no_square(self, file: Path) -> None:
        state = open_clip.CLIP(16, VISION, TEXT).state_dict()
        state["visual.positional_embedding"] = torch.ones(12, 32)
        with pytest.raises(WeightsError, match="not the weights of n: shape"):
            open_clip_family.load_image_tower(open_clip.CLIP(16, VISION, TEXT), local_file(save(file, state)), "n")


class TestBundled:
    @pytest.mark.parametrize("name", BUNDLED)
    def test_each_is_read_like_any_other(self, name: str, file: Path) -> None:
        model = build(name)
        save(file, model.state_dict())
        backbone = load_backbone(f"bundled:{name}", weights=file)
        x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            outputs = backbone.forward_blocks(x)
            assert torch.equal(outputs.embedding, backbone(x))
        assert outputs.cls is not None
        assert [each.shape for each in (*outputs.cls, *outputs.feat)] == [(2, 128)] * 12
        norm: Any = getattr(backbone.model, "ln_post", None) or backbone.model.norm
        torch.testing.assert_close(norm(outputs.cls[-1]), outputs.embedding)  # both are the last CLS token, normed
        assert (backbone.info.paradigm, backbone.info.weights_source) == (name, f"file:{file}")
        assert (backbone.info.n_blocks, backbone.info.n_features, backbone.info.input_size) == (6, 128, 64)

    def test_weights_that_do_not_fit(self, file: Path) -> None:
        save(file, timm.create_model("test_vit").state_dict())
        with pytest.raises(WeightsError, match=r"not the weights of bundled:supervised: .* model needs"):
            load_backbone("bundled:supervised", weights=file)

    def test_shipped_file_is_taken_by_default(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        save(file, build("supervised").state_dict())
        monkeypatch.setattr("engine.backbones.bundled_family.bundled_weights_path", lambda name: file)
        assert load_backbone("bundled:supervised").info.weights_source == "bundled:w.safetensors"


def test_hub_cache_is_used_without_network(file: Path, hub: Callable[[str, str, Path], None]) -> None:
    state = timm.create_model("test_vit").state_dict()
    hub("timm/test_vit.r160_in1k", "model.safetensors", save(file, state))
    backbone = load_backbone("timm:test_vit.r160_in1k")
    assert backbone.info.weights_source.startswith("hub:timm/test_vit.r160_in1k/model.safetensors@")
    assert torch.equal(backbone.state_dict()["model.norm.weight"], state["norm.weight"])
