"""Weights as other libraries save them, in the backbone: the same images must give the same features."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from engine.backbones import open_clip_family, timm_family
from engine.backbones.backbone import Backbone
from engine.backbones.torchvision_guard import guard
from engine.errors import WeightsError
from engine.foreign.fit import fit_to_backbone, read_tensors

guard()
import open_clip  # noqa: E402
import timm  # noqa: E402

VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "mlp_ratio": 2.0}
HF = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "image_size": 32,
    "patch_size": 8, "num_labels": 3,
}  # fmt: skip
CLIP_VISION = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8, "mlp_ratio": 2.0}
CLIP_TEXT = {"context_length": 4, "vocab_size": 8, "width": 16, "heads": 2, "layers": 1}


def timm_backbone(create: Callable[[], nn.Module], *, stages: bool = False) -> Backbone:
    known: dict[str, Any] = {
        "name": "timm:made", "family": "timm", "paradigm": "unknown", "input_size": 32, "mean": (0.5,) * 3,
        "std": (0.5,) * 3, "weights_source": "", "weights_sha256": None,
    }  # fmt: skip
    wrap = timm_family.wrap_stages if stages else timm_family.wrap
    return wrap(create(), create, **known).eval()


def vit(**changes: Any) -> Backbone:
    return timm_backbone(
        partial(
            timm.models.VisionTransformer,
            **{**VIT, "num_classes": 0, "norm_layer": partial(nn.LayerNorm, eps=1e-12), **changes},
        )
    )


def clip_backbone() -> Backbone:
    def create() -> nn.Module:
        return open_clip.CLIP(16, CLIP_VISION, CLIP_TEXT)

    known: dict[str, Any] = {
        "name": "open_clip:ViT-B-16/openai", "family": "open_clip", "paradigm": "image-text", "input_size": 32,
        "mean": (0.5,) * 3, "std": (0.5,) * 3, "weights_source": "", "weights_sha256": None,
    }  # fmt: skip
    return open_clip_family.wrap(create(), create, **known).eval()


def redrawn(model: nn.Module) -> nn.Module:
    """With values of every parameter that tell one from another: libraries leave many at 0 or 1."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for value in (*model.parameters(), *model.buffers()):
            if value.is_floating_point():
                drawn = torch.randn(value.shape, generator=generator) * 0.2
                value.copy_(drawn.abs() + 0.5 if value.ndim == 1 else drawn)
    return model.eval()


def features(backbone: Backbone, weights: Mapping[str, Tensor]) -> Tensor:
    backbone.model.load_state_dict(dict(weights))
    with torch.no_grad():
        return backbone.double()(images())


def images() -> Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)).double()


def saved(model: Any, folder: Path) -> dict[str, Tensor]:
    model.save_pretrained(folder)
    return read_tensors([folder / "model.safetensors"])


transformers: Any = pytest.importorskip("transformers")


@pytest.mark.parametrize("as_saved", [True, False])
class TestTransformers:
    def check(
        self, model: Any, backbone: Backbone, folder: Path, as_saved: bool, pooled: Callable[[Any], Tensor]
    ) -> Any:
        redrawn(model)
        tensors = saved(model, folder) if as_saved else dict(model.state_dict())
        fitted = fit_to_backbone(tensors, backbone, "w")
        with torch.no_grad():
            theirs = pooled(model.double())
        torch.testing.assert_close(features(backbone, fitted.weights), theirs, rtol=0, atol=1e-5)
        return fitted

    def logits_agree(self, model: Any, backbone: Backbone, fitted: Any) -> None:
        with torch.no_grad():
            theirs = model(images()).logits
            ours = backbone(images()) @ fitted.head.weight.double().T + fitted.head.bias.double()
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
        assert not fitted.head.is_assumed

    def test_vit(self, tmp_path: Path, as_saved: bool) -> None:
        model, backbone = transformers.ViTForImageClassification(transformers.ViTConfig(**HF)), vit()
        fitted = self.check(model, backbone, tmp_path, as_saved, lambda m: m.vit(images()).last_hidden_state[:, 0])
        assert fitted.renamed_by == 'without "vit."; names of transformers\' ViT'
        self.logits_agree(model, backbone, fitted)

    @pytest.mark.parametrize("gated", [False, True])
    def test_dinov2(self, tmp_path: Path, as_saved: bool, gated: bool) -> None:
        own = {k: v for k, v in HF.items() if k != "intermediate_size"}
        config = transformers.Dinov2Config(**own, mlp_ratio=2, use_swiglu_ffn=gated, layer_norm_eps=1e-12)
        model = transformers.Dinov2ForImageClassification(config)
        hidden = (int(64 * 2 / 3) + 7) // 8 * 8
        gate = {"mlp_layer": timm.layers.GluMlp, "mlp_ratio": 2 * hidden / 32, "act_layer": nn.SiLU} if gated else {}
        if gated:
            gate["mlp_layer"] = partial(timm.layers.GluMlp, act_layer=nn.SiLU, gate_last=False)
        backbone = vit(init_values=1.0, **gate)
        fitted = self.check(model, backbone, tmp_path, as_saved, lambda m: m.dinov2(images()).last_hidden_state[:, 0])
        assert fitted.head is None
        assert fitted.notes == ("accuracy is not known: classifier is not one linear layer on 32 features",)

    def test_dinov2_with_registers(self, tmp_path: Path, as_saved: bool) -> None:
        own = {k: v for k, v in HF.items() if k != "intermediate_size"}
        config = transformers.Dinov2WithRegistersConfig(**own, mlp_ratio=2, num_register_tokens=3, layer_norm_eps=1e-12)
        model = transformers.Dinov2WithRegistersForImageClassification(config)
        backbone = vit(init_values=1.0, reg_tokens=3, no_embed_class=True)
        self.check(
            model, backbone, tmp_path, as_saved, lambda m: m.dinov2_with_registers(images()).last_hidden_state[:, 0]
        )

    @pytest.mark.parametrize("family", ["timm", "open_clip"])
    def test_clip(self, tmp_path: Path, as_saved: bool, family: str) -> None:
        vision = {k: v for k, v in HF.items() if k != "num_labels"} | {"hidden_act": "gelu"}
        text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
                "vocab_size": 64, "max_position_embeddings": 8, "eos_token_id": 2, "bos_token_id": 1,
                "pad_token_id": 0}  # fmt: skip
        config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16, num_labels=3)
        norm = partial(nn.LayerNorm, eps=1e-5)
        backbone = vit(pre_norm=True, norm_layer=norm) if family == "timm" else clip_backbone()
        model = transformers.CLIPForImageClassification(config)
        fitted = self.check(model, backbone, tmp_path, as_saved, lambda m: m.vision_model(images()).pooler_output)
        assert fitted.head is None
        assert "mean of the patch tokens" in fitted.notes[0]

    def test_resnet(self, tmp_path: Path, as_saved: bool) -> None:
        config = transformers.ResNetConfig(
            embedding_size=64, hidden_sizes=[256, 512, 1024, 2048], depths=[1, 1, 1, 1], num_labels=3
        )
        model = transformers.ResNetForImageClassification(config)
        create = partial(timm.models.ResNet, block=timm.models.resnet.Bottleneck, layers=[1, 1, 1, 1], num_classes=0)
        backbone = timm_backbone(create, stages=True)
        fitted = self.check(model, backbone, tmp_path, as_saved, lambda m: m.resnet(images()).pooler_output.flatten(1))
        self.logits_agree(model, backbone, fitted)

    @pytest.mark.parametrize("version", [1, 2])
    def test_convnext(self, tmp_path: Path, as_saved: bool, version: int) -> None:
        dims, depths = [8, 16, 24, 32], [1, 1, 2, 1]
        kind = "ConvNext" if version == 1 else "ConvNextV2"
        config = getattr(transformers, f"{kind}Config")(hidden_sizes=dims, depths=depths, num_labels=3)
        model = getattr(transformers, f"{kind}ForImageClassification")(config)
        changes = {} if version == 1 else {"use_grn": True, "ls_init_value": None}
        create = partial(timm.models.ConvNeXt, dims=dims, depths=depths, num_classes=0, **changes)
        backbone = timm_backbone(create, stages=True)
        body = "convnext" if version == 1 else "convnextv2"
        fitted = self.check(model, backbone, tmp_path, as_saved, lambda m: getattr(m, body)(images()).pooler_output)
        self.logits_agree(model, backbone, fitted)

    def test_swin(self, tmp_path: Path, as_saved: bool) -> None:
        config = transformers.SwinConfig(
            embed_dim=8, depths=[1, 2], num_heads=[2, 2], image_size=32, window_size=4, patch_size=4, num_labels=3
        )
        model = transformers.SwinForImageClassification(config)
        create = partial(
            timm.models.SwinTransformer, img_size=32, patch_size=4, embed_dim=8, depths=(1, 2), num_heads=(2, 2),
            window_size=4, num_classes=0,
        )  # fmt: skip
        backbone = timm_backbone(create, stages=True)
        fitted = self.check(model, backbone, tmp_path, as_saved, lambda m: m.swin(images()).pooler_output)
        self.logits_agree(model, backbone, fitted)


class TestOwnNames:
    """timm's and open_clip's own state dicts, in whatever holds them."""

    @pytest.fixture
    def model(self) -> nn.Module:
        return redrawn(timm.models.VisionTransformer(**VIT, num_classes=3))

    @pytest.mark.parametrize(
        "prefix", ["", "module.", "_orig_mod.", "state_dict.module._orig_mod.", "backbone.", "model.encoder.net."]
    )
    def test_any_prefix(self, model: nn.Module, prefix: str) -> None:
        given = {f"{prefix}{name}": value for name, value in model.state_dict().items()}
        fitted = fit_to_backbone(given, vit(), "w")
        for name, value in fitted.weights.items():
            assert torch.equal(value, model.state_dict()[name])
        assert fitted.head is not None
        assert torch.equal(fitted.head.weight, model.state_dict()["head.weight"])
        assert (fitted.head.is_assumed, fitted.left_aside, fitted.notes) == (False, (), ())

    def test_head_around_the_backbone_is_assumed(self, model: nn.Module) -> None:
        given = {f"net.body.{k}": v for k, v in model.state_dict().items() if not k.startswith("head")}
        given |= {"net.classifier.1.weight": torch.ones(4, 32), "net.classifier.1.bias": torch.ones(4)}
        fitted = fit_to_backbone(given, vit(), "w")
        assert fitted.head is not None
        assert (fitted.head.name, fitted.head.is_assumed) == ("net.classifier.1.weight", True)

    def test_classifier_of_two_layers_is_none(self, model: nn.Module) -> None:
        given = {f"net.{k}": v for k, v in model.state_dict().items() if not k.startswith("head")}
        given |= {"head.0.weight": torch.ones(32, 32), "head.2.weight": torch.ones(3, 32)}
        fitted = fit_to_backbone(given, vit(), "w")
        assert fitted.head is None
        assert fitted.notes == ("accuracy is not known: head is not one linear layer on 32 features",)
        assert fitted.left_aside == ("head.0.weight", "head.2.weight")

    def test_averaged_weights_are_left_aside_unless_asked_for(self, model: nn.Module) -> None:
        plain = {f"state_dict.{k}": v for k, v in model.state_dict().items()}
        given = plain | {f"state_dict_ema.{k}": v + 1 for k, v in model.state_dict().items()}
        norm = model.state_dict()["norm.bias"]
        fitted = fit_to_backbone(given, vit(), "w")
        assert torch.equal(fitted.weights["norm.bias"], norm)
        assert 'averaged weights (EMA) in "state_dict_ema" are left aside' in fitted.notes[0]
        averaged = fit_to_backbone(given, vit(), "w", part="state_dict_ema")
        assert torch.equal(averaged.weights["norm.bias"], norm + 1)
        assert averaged.head is not None
        assert torch.equal(averaged.head.bias, model.state_dict()["head.bias"] + 1)

    def test_student_and_teacher_are_asked_for(self, model: nn.Module) -> None:
        given = {f"{who}.backbone.{k}": v for who in ("student", "teacher") for k, v in model.state_dict().items()}
        with pytest.raises(WeightsError) as caught:
            fit_to_backbone(given, vit(), "w")
        assert caught.value.problem == 'holds 2 networks that fit: "student.backbone", "teacher.backbone"'
        assert caught.value.fix == "say which with --part student or --part teacher"
        assert fit_to_backbone(given, vit(), "w", part="teacher").renamed_by == 'without "teacher.backbone."'
        with pytest.raises(WeightsError, match='nothing named "tutor" that fits'):
            fit_to_backbone(given, vit(), "w", part="tutor")

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_is_cast_and_said(self, model: nn.Module, dtype: torch.dtype) -> None:
        fitted = fit_to_backbone({k: v.to(dtype) for k, v in model.state_dict().items()}, vit(), "w")
        assert {value.dtype for value in fitted.weights.values()} == {torch.float32}
        assert fitted.notes == (f"30 of 30 tensors were stored as {str(dtype)[6:]}",)

    def test_positions_of_another_size_are_resampled_as_timm_does(self, model: nn.Module) -> None:
        fitted = fit_to_backbone(model.state_dict(), vit(img_size=16), "w")
        target = timm.models.VisionTransformer(**{**VIT, "img_size": 16})
        expected = timm.models.vision_transformer.checkpoint_filter_fn(dict(model.state_dict()), target)["pos_embed"]
        assert torch.equal(fitted.weights["pos_embed"], expected)
        assert fitted.notes[0].startswith("its position embeddings are of")

    @pytest.mark.parametrize(
        ("change", "problem"),
        [
            ({"depth": 1}, "not in the model: blocks.1.norm1.weight"),
            ({"depth": 3}, "missing blocks.2.norm1.weight"),
            ({"embed_dim": 48}, r"cls_token is \(1, 1, 32\), model needs \(1, 1, 48\)"),
            ({"patch_size": 16}, r"patch_embed.proj.weight is \(32, 3, 8, 8\), model needs \(32, 3, 16, 16\)"),
        ],
    )
    def test_another_network_is_refused(self, model: nn.Module, change: dict[str, Any], problem: str) -> None:
        with pytest.raises(WeightsError, match=problem):
            fit_to_backbone(model.state_dict(), vit(**change), "w")

    @pytest.mark.parametrize("extra", ["prompt_tokens", "fc_norm.weight", "blocks.0.adapter.weight"])
    def test_what_changes_the_features_is_refused(self, model: nn.Module, extra: str) -> None:
        with pytest.raises(WeightsError, match=f"not in the model: {extra}"):
            fit_to_backbone({**model.state_dict(), extra: torch.ones(32)}, vit(), "w")

    def test_other_pooling_is_said(self) -> None:
        model = timm.models.VisionTransformer(**VIT, num_classes=3, global_pool="avg")
        with pytest.raises(WeightsError, match=r"missing norm.weight, norm.bias; it was trained with another pooling"):
            fit_to_backbone(model.state_dict(), vit(), "w")

    def test_adapters_that_are_not_merged(self, model: nn.Module) -> None:
        given = {**model.state_dict(), "blocks.0.attn.qkv.lora_A.default.weight": torch.ones(2, 32)}
        with pytest.raises(WeightsError, match="holds adapters that are not merged"):
            fit_to_backbone(given, vit(), "w")

    def test_values_that_do_not_fit_into_float32(self, model: nn.Module) -> None:
        given = {**model.state_dict(), "norm.bias": torch.full((32,), 1e300, dtype=torch.float64)}
        with pytest.raises(WeightsError, match=r"norm\.bias has 32 non-finite values as float32"):
            fit_to_backbone(given, vit(), "w")

    def test_nothing_known(self) -> None:
        with pytest.raises(WeightsError, match=r"none of its names are known here \(seen x\)"):
            fit_to_backbone({"x": torch.ones(1)}, vit(), "w")

    def test_integers_in_place_of_numbers(self, model: nn.Module) -> None:
        given = {**model.state_dict(), "norm.bias": torch.ones(32, dtype=torch.int64)}
        with pytest.raises(WeightsError, match=r"norm\.bias is of type int64, model needs float32"):
            fit_to_backbone(given, vit(), "w")

    @pytest.mark.parametrize("family", ["open_clip", "timm"])
    def test_open_clips_whole_state_dict(self, family: str) -> None:
        clip = redrawn(open_clip.CLIP(16, CLIP_VISION, CLIP_TEXT))
        given = {f"state_dict.module.{k}": v for k, v in clip.state_dict().items()}
        norm = partial(nn.LayerNorm, eps=1e-5)
        backbone = clip_backbone() if family == "open_clip" else vit(pre_norm=True, norm_layer=norm)
        fitted = fit_to_backbone(given, backbone, "w")
        clip.visual.proj = None
        with torch.no_grad():
            theirs = clip.double().visual(images())
        torch.testing.assert_close(features(backbone, fitted.weights), theirs, rtol=0, atol=1e-9)
        assert fitted.head is None
        assert "state_dict.module.token_embedding.weight" in fitted.left_aside

    def test_torchvisions_vit(self) -> None:
        import torchvision

        made = torchvision.models.VisionTransformer(32, 8, 2, 2, 32, 64, num_classes=3)
        model = redrawn(made)
        backbone = vit(norm_layer=partial(nn.LayerNorm, eps=1e-6))
        fitted = fit_to_backbone(model.state_dict(), backbone, "w")
        ours = features(backbone, fitted.weights)
        assert fitted.head is not None
        with torch.no_grad():
            theirs = model.double()(images())
        torch.testing.assert_close(
            ours @ fitted.head.weight.double().T + fitted.head.bias.double(), theirs, rtol=0, atol=1e-9
        )


class TestReadTensors:
    def test_shards(self, tmp_path: Path) -> None:
        for name in "ab":
            save_file({name: torch.ones(2)}, tmp_path / f"{name}.safetensors")
        assert set(read_tensors([tmp_path / "a.safetensors", tmp_path / "b.safetensors"])) == {"a", "b"}
        with pytest.raises(WeightsError, match="holds what another shard holds too: a"):
            read_tensors([tmp_path / "a.safetensors", tmp_path / "a.safetensors"])

    def test_values_that_are_not_finite(self, tmp_path: Path) -> None:
        save_file({"a": torch.tensor([1.0, float("nan")])}, tmp_path / "a.safetensors")
        with pytest.raises(WeightsError, match="a has 1 non-finite values"):
            read_tensors([tmp_path / "a.safetensors"])
