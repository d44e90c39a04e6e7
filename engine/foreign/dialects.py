"""How other libraries name the weights of the networks that timm and open_clip build; knows names, not checkpoints.

A dialect is one entry of `DIALECTS`; of several that fit the first counts. Its rules lead to timm's names, and
`open_clip_name` leads on from there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Dialect:
    """The names of one library's network.

    Args:
        label: what the names are of, for the records.
        anchor: a name that every such network has; what stands before it is its prefix.
        rules: patterns and what takes their place, applied one after the other.
        dropped: matches translated names of what the network's features do not depend on.
        head_note: why a classifier beside such a network does not sit on the embedding; "" where it does.
        positions_count_the_class: its position embeddings begin with that of the CLS token, whatever timm's do.
    """

    label: str
    anchor: str
    rules: tuple[tuple[str, str], ...]
    dropped: str = r"mask_token|.*(num_batches_tracked|relative_position_index|attn_mask)"
    head_note: str = ""
    positions_count_the_class: bool = False


@dataclass(frozen=True)
class Translated:
    """Tensors by timm's names, and the names that each was made of."""

    tensors: Mapping[str, Tensor]
    sources: Mapping[str, tuple[str, ...]]


OWN = Dialect("", "", ())  # the backbone's own names, whichever library it is of

_HF_BLOCK = (
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.(?:attention|self)\.(query|key|value)\.", r".attn.\1."),
    (r"\.attention\.([qkv])_proj\.", r".attn.\1."),
    (r"\.attention\.(?:output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"(\d)\.output\.dense\.", r"\1.mlp.fc2."),
    (r"\.attn\.(q|k|v)[a-z]+\.", r".attn.\1."),
)
_HF_VIT = (
    (r"^embeddings\.(cls_token|mask_token)$", r"\1"),
    (r"^embeddings\.distillation_token$", "dist_token"),
    (r"^embeddings\.register_tokens$", "reg_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^(?:encoder\.layer|layers)\.(\d+)\.", r"blocks.\1."),
    *_HF_BLOCK,
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"\.mlp\.weights_in\.", ".mlp.fc1."),
    (r"\.mlp\.(?:weights_out|down_proj)\.", ".mlp.fc2."),
    (r"^layernorm\.", "norm."),
)
_TWO_HEADS = "its classifier takes the CLS token alone, where timm's embedding is the mean of two tokens"
_HF_ANCHOR = "embeddings.patch_embeddings.projection.weight"

DIALECTS = (
    Dialect(
        "transformers' DeiT",
        "embeddings.distillation_token",
        _HF_VIT,
        dropped=r"mask_token|pooler\..*",
        head_note=_TWO_HEADS,
        positions_count_the_class=True,
    ),
    Dialect("transformers' ViT", _HF_ANCHOR, _HF_VIT, dropped=r"mask_token|pooler\..*", positions_count_the_class=True),
    Dialect(
        "transformers' Swin",
        _HF_ANCHOR,
        (
            (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
            (r"^embeddings\.norm\.", "patch_embed.norm."),
            (r"^encoder\.", ""),
            *_HF_BLOCK,
            (r"\.attention\.(?:self|relative_position_bias)\.relative_position_", ".attn.relative_position_"),
            (r"^layernorm\.", "norm."),
        ),
    ),
    Dialect(
        "transformers' ConvNeXt",
        "embeddings.patch_embeddings.weight",
        (
            (r"^embeddings\.patch_embeddings\.", "stem.0."),
            (r"^embeddings\.layernorm\.", "stem.1."),
            (r"^layernorm\.", "head.norm."),
            (r"^encoder\.stages\.(\d+)\.layers\.", r"stages.\1.blocks."),
            (r"^encoder\.stages\.(\d+)\.downsampling_layer\.", r"stages.\1.downsample."),
            (r"\.dwconv\.", ".conv_dw."),
            (r"\.layernorm\.", ".norm."),
            (r"\.pwconv([12])\.", r".mlp.fc\1."),
            (r"\.grn\.", ".mlp.grn."),
            (r"\.layer_scale_parameter$", ".gamma"),
        ),
    ),
    Dialect(
        "transformers' ResNet",
        "embedder.embedder.convolution.weight",
        (
            (r"^embedder\.embedder\.convolution\.", "conv1."),
            (r"^embedder\.embedder\.normalization\.", "bn1."),
            (r"^encoder\.stages\.(\d+)\.layers\.", r"layer\1+1."),
            (r"\.layer\.(\d+)\.convolution\.", r".conv\1+1."),
            (r"\.layer\.(\d+)\.normalization\.", r".bn\1+1."),
            (r"\.shortcut\.convolution\.", ".downsample.0."),
            (r"\.shortcut\.normalization\.", ".downsample.1."),
        ),
    ),
    Dialect(
        "transformers' CLIP",
        "embeddings.patch_embedding.weight",
        (
            (r"^embeddings\.class_embedding$", "cls_token"),
            (r"^embeddings\.position_embedding\.weight$", "pos_embed"),
            (r"^embeddings\.patch_embedding\.", "patch_embed.proj."),
            (r"^pre_layrnorm\.", "norm_pre."),
            (r"^post_layernorm\.", "norm."),
            (r"^encoder\.layers\.(\d+)\.", r"blocks.\1."),
            (r"\.layer_norm([12])\.", r".norm\1."),
            (r"\.self_attn\.([qkv])_proj\.", r".attn.\1."),
            (r"\.self_attn\.out_proj\.", ".attn.proj."),
        ),
        dropped=r"embeddings\.position_ids",
        head_note="its classifier takes the mean of the patch tokens, where the embedding is the CLS token",
        positions_count_the_class=True,
    ),
    Dialect(
        "open_clip's image tower",
        "transformer.resblocks.0.ln_1.weight",
        (
            (r"^class_embedding$", "cls_token"),
            (r"^positional_embedding$", "pos_embed"),
            (r"^conv1\.", "patch_embed.proj."),
            (r"^ln_pre\.", "norm_pre."),
            (r"^ln_post\.", "norm."),
            (r"^transformer\.resblocks\.", "blocks."),
            (r"\.ln_([12])\.", r".norm\1."),
            (r"\.attn\.in_proj_", ".attn.qkv."),
            (r"\.attn\.out_proj\.", ".attn.proj."),
            (r"\.mlp\.c_fc\.", ".mlp.fc1."),
            (r"\.mlp\.c_proj\.", ".mlp.fc2."),
        ),
        dropped="proj",
        positions_count_the_class=True,
    ),
    Dialect(
        "torchvision's ViT",
        "encoder.layers.encoder_layer_0.ln_1.weight",
        (
            (r"^class_token$", "cls_token"),
            (r"^conv_proj\.", "patch_embed.proj."),
            (r"^encoder\.pos_embedding$", "pos_embed"),
            (r"^encoder\.ln\.", "norm."),
            (r"^encoder\.layers\.encoder_layer_", "blocks."),
            (r"\.ln_([12])\.", r".norm\1."),
            (r"\.self_attention\.in_proj_", ".attn.qkv."),
            (r"\.self_attention\.out_proj\.", ".attn.proj."),
            (r"\.mlp\.(?:0|linear_1)\.", ".mlp.fc1."),
            (r"\.mlp\.(?:3|linear_2)\.", ".mlp.fc2."),
        ),
        positions_count_the_class=True,
    ),
    Dialect(
        "DINOv2's authors",
        "mask_token",
        ((r"^register_tokens$", "reg_token"), (r"\.mlp\.w12\.", ".mlp.fc1."), (r"\.mlp\.w3\.", ".mlp.fc2.")),
        positions_count_the_class=True,
    ),
    Dialect("timm's ViT", "patch_embed.proj.weight", ()),
)

# Where timm's name of a module is open_clip's, in a tower that open_clip builds itself.
_TO_OPEN_CLIP = (
    (r"^cls_token$", "class_embedding"),
    (r"^pos_embed$", "positional_embedding"),
    (r"^patch_embed\.proj\.", "conv1."),
    (r"^norm_pre\.", "ln_pre."),
    (r"^norm\.", "ln_post."),
    (r"^blocks\.", "transformer.resblocks."),
    (r"\.norm([12])\.", r".ln_\1."),
    (r"\.attn\.qkv\.", ".attn.in_proj_"),
    (r"\.attn\.proj\.", ".attn.out_proj."),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
)
_JOINED = (("attn", ("q", "k", "v"), "qkv"), ("mlp", ("gate_proj", "up_proj"), "fc1"))


def translate(dialect: Dialect, tensors: Mapping[str, Tensor]) -> Translated:
    """Tensors under timm's names; what no rule touches keeps its own.

    Queries, keys and values are joined in this order, as timm does, and the two halves of a gated layer, gate first.
    """
    found: dict[str, tuple[tuple[str, ...], Tensor]] = {
        _renamed(name, dialect.rules): ((name,), tensor) for name, tensor in tensors.items()
    }
    for parent, parts, joined in _JOINED:
        for name in [each for each in found if re.search(rf"\b{parent}\.{parts[0]}\.(weight|bias)$", each)]:
            stem, _, kind = name.rpartition(".")
            stem = stem.removesuffix(parts[0])
            names = [f"{stem}{part}.{kind}" for part in parts]
            if all(each in found for each in names):
                pieces = [found.pop(each) for each in names]
                sources = tuple(source for sources, _ in pieces for source in sources)
                if len({piece.shape[1:] for _, piece in pieces}) == 1:
                    found[f"{stem}{joined}.{kind}"] = (sources, torch.cat([piece for _, piece in pieces]))
    found = {_after_downsample(name, dialect): each for name, each in found.items()}
    return Translated({name: t for name, (_, t) in found.items()}, {name: s for name, (s, _) in found.items()})


def open_clip_name(name: str) -> str:
    """timm's name of a weight of a ViT as open_clip's own image tower has it."""
    return _renamed(name, _TO_OPEN_CLIP)


def _renamed(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return re.sub(r"(\d+)\+1", lambda match: str(int(match[1]) + 1), name)


def _after_downsample(name: str, dialect: Dialect) -> str:
    """transformers merges the patches at the end of a stage of Swin, timm at the beginning of the next."""
    if dialect.label != "transformers' Swin":
        return name
    return re.sub(r"^layers\.(\d+)\.downsample\.", lambda match: f"layers.{int(match[1]) + 1}.downsample.", name)
