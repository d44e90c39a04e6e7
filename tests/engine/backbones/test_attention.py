"""Attention of every kind of block against a recomputation in float64 from its own weights; the model is left as is."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from engine.backbones import load_backbone, open_clip_family, timm_family
from engine.backbones.attention import BlockAttention, attention_of, patch_distances
from engine.backbones.backbone import Backbone
from engine.backbones.torchvision_guard import guard
from engine.errors import StudyError

guard()
import open_clip  # noqa: E402
import timm  # noqa: E402

SIZE = 32
KNOWN: dict[str, Any] = {
    "name": "test:tiny", "family": "timm", "paradigm": "unknown", "input_size": SIZE, "mean": (0.5,) * 3,
    "std": (0.5,) * 3, "weights_source": "random (seed 3)", "weights_sha256": None,
}  # fmt: skip


def randomise(model: nn.Module) -> Any:
    """Weights large enough that attention is far from even."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.empty_like(parameter).normal_(std=0.3, generator=generator)
            parameter.copy_(noise + 1 if parameter.ndim == 1 and name.endswith("weight") else noise)
    return model.eval()


def tiny_timm(**options: Any) -> Backbone:
    """4 × 4 patches, 2 blocks, 4 heads."""
    settings: dict[str, Any] = {"img_size": SIZE, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 4}

    def create() -> Any:
        return timm.models.VisionTransformer(**{**settings, "num_classes": 0, **options})

    return timm_family.wrap(randomise(create()), create, **KNOWN)


def tiny_clip() -> Backbone:
    vision = {"image_size": SIZE, "layers": 2, "width": 32, "head_width": 8, "patch_size": 8}
    text = {"context_length": 4, "vocab_size": 8, "width": 16, "heads": 2, "layers": 1}

    def create() -> Any:
        return open_clip.CLIP(16, vision, text)

    return open_clip_family.wrap(randomise(create()), create, **KNOWN)


MAKERS: dict[str, Callable[[], Backbone]] = {
    "CLS": tiny_timm,
    "CLS and registers": lambda: tiny_timm(reg_tokens=3),
    "normed queries and keys": lambda: tiny_timm(qk_norm=True),
    "mean of patches": lambda: tiny_timm(class_token=False, global_pool="avg"),
    "register, no CLS": lambda: tiny_timm(class_token=False, reg_tokens=1, global_pool="avg"),
    "attention pooling": lambda: tiny_timm(class_token=False, global_pool="map"),
    "open_clip": tiny_clip,
}


def images(backbone: Backbone, n: int = 3) -> Tensor:
    size = backbone.info.input_size
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0))


def recomputed(backbone: Backbone, x: Tensor) -> list[Tensor]:
    """softmax(q kᵀ / √d) of every block in float64, `(n, h, t, t)`, from what goes into it and its weights."""
    seen: list[Tensor] = []
    attentions: list[Any] = [block.attn for block in backbone.blocks]
    handles = [each.register_forward_pre_hook(lambda _m, args: seen.append(args[0].double())) for each in attentions]
    with torch.no_grad():
        backbone(x)
    for handle in handles:
        handle.remove()
    return [_softmax(attention, tokens) for attention, tokens in zip(attentions, seen, strict=True)]


def _softmax(attention: Any, tokens: Tensor) -> Tensor:
    is_timm = hasattr(attention, "qkv")
    weight = attention.qkv.weight if is_timm else attention.in_proj_weight
    bias = attention.qkv.bias if is_timm else attention.in_proj_bias
    width, h = tokens.shape[-1], attention.num_heads
    projected = tokens @ weight.double().T + (0 if bias is None else bias.double())
    q, k = (
        projected[..., start : start + width].unflatten(-1, (h, width // h)).transpose(1, 2) for start in (0, width)
    )
    if is_timm and isinstance(attention.q_norm, nn.LayerNorm):
        q, k = (
            nn.functional.layer_norm(each, (width // h,), norm.weight.double(), norm.bias.double(), norm.eps)
            for each, norm in ((q, attention.q_norm), (k, attention.k_norm))
        )
    return torch.softmax(torch.einsum("nhqd,nhkd->nhqk", q, k) / math.sqrt(width // h), dim=-1).detach()


def entropy(attention: Tensor) -> Tensor:
    shares = attention / attention.sum(-1, keepdim=True)
    return -(shares * shares.log()).sum(-1)


@pytest.mark.parametrize("kind", MAKERS)
def test_it_is_the_softmax_of_queries_and_keys(kind: str) -> None:
    backbone = MAKERS[kind]()
    x = images(backbone)
    found = attention_of(backbone, x)
    n_prefix = backbone.n_prefix_tokens
    for layer, exact in enumerate(recomputed(backbone, x)):
        patches = exact[:, :, n_prefix:, n_prefix:]
        assert patches.std(-1).mean() > 0.02  # an even attention would agree with anything
        close(found.feat[:, layer], patches.mean(2))
        close(found.feat_entropy[:, layer], entropy(patches).mean(2))
        rows, columns = torch.arange(16) // 4, torch.arange(16) % 4
        apart = ((rows[:, None] - rows) ** 2 + (columns[:, None] - columns) ** 2).double().sqrt() * 8
        close(found.distance[:, layer], (patches / patches.sum(-1, keepdim=True) * apart).sum(-1).mean(2))
        if "cls" in backbone.info.poolings:
            assert found.cls is not None and found.cls_entropy is not None
            close(found.cls[:, layer], exact[:, :, 0, n_prefix:])
            close(found.cls_entropy[:, layer], entropy(exact[:, :, 0, n_prefix:]))
    assert (found.cls is None) == ("cls" not in backbone.info.poolings)
    assert found.feat.shape == (3, 2, 4, 16) and found.distance.shape == (3, 2, 4)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found.double(), expected, atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize("kind", ["CLS and registers", "open_clip"])
def test_what_goes_to_cls_and_registers_is_missing_from_the_sums(kind: str) -> None:
    found = attention_of(backbone := MAKERS[kind](), x := images(backbone))
    assert found.cls is not None
    for layer, exact in enumerate(recomputed(backbone, x)):
        to_prefix = exact[:, :, 0, : backbone.n_prefix_tokens].sum(-1)
        assert to_prefix.max() > 0.02
        close(found.cls[:, layer].sum(-1), 1 - to_prefix)


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(kind: str, training: bool) -> None:
    backbone = MAKERS[kind]()
    x = images(backbone)
    with torch.no_grad():
        before = backbone(x)
    state = hooks_and_switches(backbone)
    backbone.train(training)
    attention_of(backbone, x)
    assert backbone.training is training
    assert hooks_and_switches(backbone) == state
    with torch.no_grad():
        assert torch.equal(backbone.eval()(x), before)


def hooks_and_switches(backbone: Backbone) -> list[Any]:
    return [
        (name, len(module._forward_hooks), len(module._forward_pre_hooks), getattr(module, "fused_attn", None))
        for name, module in backbone.named_modules()
    ]


def test_dropout_of_training_has_no_part_in_it() -> None:
    backbone = tiny_timm(attn_drop_rate=0.5, proj_drop_rate=0.5)
    x = images(backbone)
    backbone.train()
    found = attention_of(backbone, x)
    torch.testing.assert_close(found.feat, attention_of(backbone.eval(), x).feat)


@pytest.mark.parametrize("kind", ["CLS", "open_clip"])
def test_an_exception_on_the_way_leaves_the_model_as_it_was(kind: str) -> None:
    backbone = MAKERS[kind]()
    state = hooks_and_switches(backbone)
    last: Any = backbone.blocks[-1]
    handle = last.register_forward_hook(lambda *_: 1 / 0)
    backbone.train()
    with pytest.raises(ZeroDivisionError):
        attention_of(backbone, images(backbone))
    handle.remove()
    assert hooks_and_switches(backbone) == state and backbone.training


class Fixed(nn.Module):
    """Stands where timm's attention does, and pays attention as it is told; `heads` is what it says it has."""

    def __init__(self, attention: Tensor, heads: int | None = None) -> None:
        super().__init__()
        self.attention, self.num_heads, self.fused_attn = attention, heads or len(attention), True
        self.attn_drop = nn.Identity()

    def forward(self, x: Tensor, *_: object, **__: object) -> Tensor:
        if not self.fused_attn:
            self.attn_drop(self.attention.expand(len(x), *self.attention.shape))
        return x


def paying(attention: Tensor, heads: int | None = None) -> BlockAttention:
    """What is made of the same `(h, t, t)` attention in every block of a backbone with CLS and 4 × 4 patches."""
    backbone = tiny_timm()
    blocks: Any = backbone.blocks
    for block in blocks:
        block.attn = Fixed(attention, heads)
    return attention_of(backbone, images(backbone, 1))


def test_even_attention_has_the_largest_entropy_and_the_mean_distance() -> None:
    found = paying(torch.full((1, 17, 17), 1 / 17))
    assert found.cls is not None and found.cls_entropy is not None
    torch.testing.assert_close(found.cls, torch.full((1, 2, 1, 16), 1 / 17))
    for entropies in (found.cls_entropy, found.feat_entropy):
        torch.testing.assert_close(entropies, torch.full((1, 2, 1), math.log(16)))
    torch.testing.assert_close(found.distance, torch.full((1, 2, 1), float(patch_distances(4, 8).mean())))


def test_attention_to_one_patch_has_no_entropy_and_to_oneself_no_distance() -> None:
    to_itself = paying(torch.eye(17)[None])
    to_the_first = torch.zeros(1, 17, 17)
    to_the_first[:, :, 1] = 1
    found = paying(to_the_first)
    for each in (to_itself, found):
        torch.testing.assert_close(each.feat_entropy, torch.zeros(1, 2, 1))
    torch.testing.assert_close(to_itself.distance, torch.zeros(1, 2, 1))
    torch.testing.assert_close(found.distance, torch.full((1, 2, 1), float(patch_distances(4, 8)[:, 0].mean())))
    torch.testing.assert_close(found.feat[0, 0, 0], torch.eye(16)[0])


def test_a_token_that_pays_the_patches_nothing_spreads_evenly() -> None:
    to_cls = torch.zeros(1, 17, 17)
    to_cls[:, :, 0] = 1
    found = paying(to_cls)
    assert found.cls_entropy is not None
    torch.testing.assert_close(found.feat, torch.zeros(1, 2, 1, 16))
    torch.testing.assert_close(found.cls_entropy, torch.full((1, 2, 1), math.log(16)))


def test_distances_of_two_by_two_patches() -> None:
    side, across = 14.0, 14.0 * math.sqrt(2)
    expected = [[0, side, side, across], [side, 0, across, side], [side, across, 0, side], [across, side, side, 0]]
    torch.testing.assert_close(patch_distances(2, 14), torch.tensor(expected))


def test_it_takes_the_224_pixels_at_which_dinov2_is_fine_tuned(tmp_path: Path) -> None:
    name = "vit_small_patch14_reg4_dinov2.lvd142m"
    save_file(timm.create_model(name, num_classes=0, img_size=224).state_dict(), tmp_path / "w.safetensors")
    backbone = load_backbone(f"timm:{name}", weights=tmp_path / "w.safetensors")
    assert backbone.info.input_size == 224
    found = attention_of(backbone, images(backbone, 1))
    assert found.cls is not None and found.cls.shape == found.feat.shape == (1, 12, 6, 256)  # 16 × 16, no registers
    assert 0 < float(found.distance.max()) < 16 * 14 * math.sqrt(2)


@pytest.mark.parametrize(
    ("name", "size"), [("eva02_tiny_patch14_224.mim_in22k", 56), ("beit_base_patch16_224.in22k_ft_in22k", 32)]
)
def test_blocks_with_rotary_or_relative_positions_give_theirs(name: str, size: int) -> None:
    model = timm.create_model(name, num_classes=0, img_size=size, depth=2)
    backbone = timm_family.wrap(randomise(model), lambda: model, **{**KNOWN, "input_size": size})
    found = attention_of(backbone, images(backbone, 2))
    assert found.cls is not None and found.cls.shape[:2] == (2, 2)
    assert bool((found.cls.sum(-1) <= 1 + 1e-5).all()) and float(found.cls.sum()) > 0


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: tiny_timm(attn_layer="diff"), r"its shape is \(1, 8, 17, 17\) \(need \(1, 4, t, t\)"),
        (
            lambda: tiny_timm(block_fn=timm.models.vision_transformer.ParallelScalingBlock),
            "attn of a ParallelScalingBlock is missing",
        ),
        (lambda: without_attention(), "attn of a Block is a Identity, which is not known"),
        (lambda: silent(), "0 of 2 blocks gave any"),
    ],
    ids=["differential", "parallel", "other module", "never asked"],
)
def test_a_backbone_whose_attention_cannot_be_read_is_named(make: Callable[[], Backbone], problem: str) -> None:
    backbone = make()
    state = hooks_and_switches(backbone)
    with pytest.raises(StudyError, match=problem) as caught:
        attention_of(backbone, images(backbone, 1))
    assert caught.value.where == 'backbone "test:tiny"'
    assert caught.value.problem.startswith("its attention cannot be read: ") and "attention.n = 0" in caught.value.fix
    assert hooks_and_switches(backbone) == state


def without_attention() -> Backbone:
    backbone = tiny_timm()
    block: Any = backbone.blocks[1]
    block.attn = nn.Identity()
    return backbone


def silent() -> Backbone:
    """Its attention has another kernel, which forms no weights even without the fused one."""
    backbone = tiny_timm()
    blocks: Any = backbone.blocks
    for block in blocks:
        block.attn.attn_drop = nn.Identity()
        block.attn.forward = lambda x, **_: x
    return backbone


@pytest.mark.parametrize(
    ("attention", "heads", "problem"),
    [
        (torch.full((1, 17, 17), 0.5), 1, "its weights do not sum to 1"),
        (torch.full((1, 17, 17), math.nan), 1, "its weights do not sum to 1"),
        (torch.full((1, 17, 16), 1 / 16), 1, r"its shape is \(1, 1, 17, 16\)"),
        (torch.full((1, 16, 16), 1 / 16), 1, r"its shape is \(1, 1, 16, 16\)"),  # 15 patches are no square
        (torch.full((2, 17, 17), 1 / 17), 1, r"its shape is \(1, 2, 17, 17\)"),
    ],
)
def test_what_is_no_attention_over_a_square_of_patches_is_refused(attention: Tensor, heads: int, problem: str) -> None:
    with pytest.raises(StudyError, match=problem):
        paying(attention, heads)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", ["CLS and registers", "open_clip"])
def test_on_a_gpu_as_on_the_cpu(kind: str) -> None:
    backbone = MAKERS[kind]()
    x = images(backbone)
    exact = attention_of(backbone, x)
    found = attention_of(backbone.cuda(), x.cuda())
    torch.testing.assert_close(found.feat.cpu(), exact.feat, atol=1e-3, rtol=1e-2)
    torch.testing.assert_close(found.distance.cpu(), exact.distance, atol=1e-1, rtol=1e-2)
