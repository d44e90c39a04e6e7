"""What every backbone does, on small models of each kind: blocks, poolings, normalisation, random weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from engine.backbones import initialise, load_backbone
from engine.backbones.backbone import Backbone, BlockOutputs
from engine.backbones.bundled import build
from engine.backbones.torchvision_guard import guard
from engine.errors import ShapeError

guard()
import open_clip  # noqa: E402
import timm  # noqa: E402

Load = Callable[..., tuple[Backbone, Any]]


def randomise(model: nn.Module) -> Any:
    """Draws every parameter anew: the libraries' own start leaves CLS tokens and layer scales near zero."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.empty_like(parameter).normal_(std=0.05, generator=generator)
            parameter.copy_(noise + 1 if parameter.ndim == 1 and name.endswith(("weight", "gamma")) else noise)
    return model.eval()


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Saves a random timm model under a classifier of 5 classes and loads it: (backbone, the timm model)."""

    def load(name: str, input_size: int | None = None, **kwargs: Any) -> tuple[Backbone, Any]:
        model = randomise(timm.create_model(name, num_classes=5, **kwargs))
        save_file(model.state_dict(), tmp_path / "w.safetensors")
        return load_backbone(f"timm:{name}", weights=tmp_path / "w.safetensors", input_size=input_size), model

    return load


def images(backbone: Backbone, n: int = 2) -> Tensor:
    size = backbone.info.input_size
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0))


def outputs_by_hooks(model: nn.Module, blocks: Any, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    tokens: list[Tensor] = []
    for block in blocks:
        block.register_forward_hook(lambda module, args, output: tokens.append(output.clone()))
    with torch.no_grad():
        return model(x), tokens


def run(backbone: Backbone, x: Tensor) -> BlockOutputs:
    with torch.no_grad():
        return backbone.forward_blocks(x)


def check(backbone: Backbone, model: Any, n_prefix_tokens: int) -> BlockOutputs:
    """The blocks are those that hooks on the library's own model give, the embedding is what its head sits on."""
    x = images(backbone)
    outputs = run(backbone, x)
    with torch.no_grad():
        assert torch.equal(outputs.embedding, backbone(x))
        assert torch.equal(outputs.embedding, model.forward_head(model.forward_features(x), pre_logits=True))
    _, tokens = outputs_by_hooks(model, model.blocks, x)
    assert len(tokens) == backbone.info.n_blocks
    for layer, each in enumerate(tokens):
        torch.testing.assert_close(
            outputs.feat[layer], each[:, n_prefix_tokens:].double().mean(1).float(), atol=1e-6, rtol=1e-5
        )
        if outputs.cls is not None:
            assert torch.equal(outputs.cls[layer], each[:, 0])
    return outputs


def test_vit_with_cls(load: Load) -> None:
    backbone, model = load("test_vit.r160_in1k")
    outputs = check(backbone, model, n_prefix_tokens=1)
    assert outputs.cls is not None
    assert [each.shape for each in (*outputs.cls, *outputs.feat)] == [(2, 64)] * 12
    assert backbone.info.poolings == ("cls", "feat")
    assert not backbone.training


def test_blocks_equal_forward_intermediates(load: Load) -> None:
    backbone, model = load("test_vit.r160_in1k")
    x = images(backbone)
    outputs = run(backbone, x)
    with torch.no_grad():
        layers = model.forward_intermediates(
            x, return_prefix_tokens=True, output_fmt="NLC", norm=False, intermediates_only=True
        )
    assert outputs.cls is not None
    for layer, (patches, prefix) in enumerate(layers):
        assert torch.equal(outputs.cls[layer], prefix[:, 0])
        torch.testing.assert_close(outputs.feat[layer], patches.mean(1), atol=1e-6, rtol=1e-5)


def test_registers_are_left_out_and_cls_is_not_one_of_them(load: Load) -> None:
    backbone, model = load("vit_small_patch14_reg4_dinov2.lvd142m", input_size=56, img_size=56)
    outputs = check(backbone, model, n_prefix_tokens=5)
    assert backbone.info.input_size == 56
    _, tokens = outputs_by_hooks(model, model.blocks, images(backbone))
    assert not torch.allclose(outputs.feat[-1], tokens[-1][:, 1:].mean(1), atol=1e-3)  # registers would be seen


def test_distillation_token_is_left_out(load: Load) -> None:
    backbone, model = load("deit_tiny_distilled_patch16_224.fb_in1k", input_size=32, img_size=32)
    x = images(backbone)
    _, tokens = outputs_by_hooks(model, model.blocks, x)
    torch.testing.assert_close(run(backbone, x).feat[-1], tokens[-1][:, 2:].mean(1), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("name", "n_prefix_tokens"), [("test_vit2.r160_in1k", 1), ("test_vit3.r160_in1k", 1)])
def test_vit_without_cls_says_so(load: Load, name: str, n_prefix_tokens: int) -> None:
    backbone, model = load(name)  # one pools by the mean of its patches, the other by attention
    assert check(backbone, model, n_prefix_tokens).cls is None
    assert backbone.info.poolings == ("feat",)


def test_eva_with_rotary_positions(load: Load) -> None:
    backbone, model = load("eva02_tiny_patch14_224.mim_in22k", input_size=56, img_size=56)
    assert check(backbone, model, n_prefix_tokens=1).cls is not None


class TestOpenClip:
    def test_timm_tower_inside_open_clip(self, tmp_path: Path) -> None:
        config = open_clip.get_model_config("PE-Core-T-16-384")
        clip = randomise(open_clip.CLIP(config["embed_dim"], config["vision_cfg"], small_text()))
        save_file(clip.state_dict(), tmp_path / "w.safetensors")
        backbone = load_backbone("open_clip:PE-Core-T-16-384/meta", weights=tmp_path / "w.safetensors")
        check(backbone, clip.visual.trunk, n_prefix_tokens=1)
        assert (backbone.info.mean, backbone.info.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
        initialise(backbone, 0)
        assert run(backbone, images(backbone, 1)).embedding.isfinite().all()


def small_text() -> dict[str, int]:
    return {"context_length": 4, "vocab_size": 8, "width": 16, "heads": 2, "layers": 1}


def test_input_of_another_size_is_refused(load: Load) -> None:
    backbone, _ = load("test_vit.r160_in1k")
    for call in (backbone, backbone.forward_blocks):
        with pytest.raises(
            ShapeError, match=r"images are \(2, 3, 96, 96\) \(need \(n, 3, 160, 160\)\)\n  fix: resize .* input_size=96"
        ):
            call(torch.zeros(2, 3, 96, 96))


def test_position_embeddings_are_resized_as_timm_does(load: Load) -> None:
    backbone, model = load("test_vit.r160_in1k", input_size=64)
    assert backbone.info.input_size == 64
    model.set_input_size(64)
    check(backbone, model, n_prefix_tokens=1)


def test_autocast_pools_in_float32(tmp_path: Path) -> None:
    save_file(randomise(build("image-text")).state_dict(), tmp_path / "w.safetensors")
    backbone = load_backbone("bundled:image-text", weights=tmp_path / "w.safetensors")
    tower: Any = backbone.model
    x = images(backbone)
    exact = run(backbone, x)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = run(backbone, x)
        embedding, tokens = outputs_by_hooks(backbone, tower.transformer.resblocks, x)
    assert torch.equal(outputs.embedding, embedding)
    assert outputs.cls is not None and exact.cls is not None
    assert tokens[0].dtype == torch.bfloat16  # open_clip's tokens are not float32 between the blocks, timm's are
    assert {each.dtype for each in (*outputs.cls, *outputs.feat)} == {torch.float32}
    torch.testing.assert_close(outputs.feat[-1], tokens[-1][:, 1:].float().mean(1), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(outputs.cls, exact.cls, atol=0.05, rtol=0.05)


def test_capture_leaves_no_hooks_behind_and_lets_gradients_through(load: Load) -> None:
    backbone, _ = load("test_vit.r160_in1k")
    backbone.forward_blocks(images(backbone)).feat[2].sum().backward()
    blocks: list[Any] = [block for block in backbone.modules() if hasattr(block, "attn")]
    assert len(blocks) == 6
    assert not any(block._forward_hooks for block in blocks)
    assert blocks[2].attn.qkv.weight.grad.any()
    assert blocks[3].attn.qkv.weight.grad is None


def test_parameters_appear_once(load: Load) -> None:
    backbone, model = load("test_vit.r160_in1k")
    expected = {f"model.{key}" for key in model.state_dict() if not key.startswith("head.")}
    assert set(backbone.state_dict()) == expected


class TestInitialise:
    def test_is_what_the_library_does(self, load: Load) -> None:
        backbone, _ = load("test_vit.r160_in1k")
        initialise(backbone, 7)
        torch.manual_seed(7)
        fresh = timm.create_model("test_vit.r160_in1k", num_classes=0)
        for key, tensor in fresh.state_dict().items():
            assert torch.equal(backbone.model.state_dict()[key], tensor), key

    def test_depends_on_the_seed_alone(self, load: Load) -> None:
        backbone, _ = load("test_vit.r160_in1k")
        drawn = []
        for seed, consumed in ((1, 0), (1, 5), (2, 0)):
            torch.rand(consumed)
            initialise(backbone, seed)
            drawn.append(backbone.state_dict()["model.blocks.0.attn.qkv.weight"].clone())
        assert torch.equal(drawn[0], drawn[1])
        assert not torch.equal(drawn[0], drawn[2])

    def test_keeps_parameters_in_place_and_says_that_they_are_random(self, load: Load) -> None:
        backbone, _ = load("test_vit.r160_in1k")
        before = list(backbone.parameters())
        initialise(backbone, 4)
        assert all(one is other for one, other in zip(before, backbone.parameters(), strict=True))
        assert (backbone.info.weights_source, backbone.info.weights_sha256) == ("random (seed 4)", None)


def test_global_random_state_is_left_alone(load: Load, tmp_path: Path) -> None:
    load("test_vit.r160_in1k")
    before = torch.get_rng_state()
    backbone = load_backbone("timm:test_vit.r160_in1k", weights=tmp_path / "w.safetensors")
    initialise(backbone, 1)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_as_on_the_cpu(load: Load) -> None:
    backbone, _ = load("test_vit.r160_in1k")
    x = images(backbone)
    exact = run(backbone, x)
    before = torch.cuda.get_rng_state()
    outputs = run(backbone.cuda(), x.cuda())
    torch.testing.assert_close(outputs.feat.cpu(), exact.feat, atol=1e-3, rtol=1e-3)
    initialise(backbone, 1)
    assert torch.equal(torch.cuda.get_rng_state(), before)
