"""The paper's three backbones at their real size, with random weights in the real file formats, from cache and file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from engine.backbones import load_backbone
from engine.backbones.backbone import BackboneInfo
from engine.backbones.torchvision_guard import guard
from engine.files import sha256_file
from tests.engine.backbones.conftest import REVISION

guard()
import open_clip  # noqa: E402
import timm  # noqa: E402


@dataclass(frozen=True)
class Case:
    """A backbone, the file that the hub holds for it, and what must be known of it."""

    name: str
    repository: str
    filename: str
    paradigm: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    build: Callable[[], nn.Module]


def blank(create: Callable[[], nn.Module]) -> Any:
    """A model with random weights; the libraries' own start takes seconds, and CLS tokens and scales near zero."""
    with torch.device("meta"):
        model = create()
    model.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(-0.05, 0.05, generator=generator)
            if parameter.ndim == 1:  # norms and layer scales
                parameter.add_(0.5)
    return model.eval()


def vit() -> nn.Module:
    return blank(lambda: timm.create_model("vit_base_patch16_224.augreg_in21k"))  # with its head of 21,843 classes


def clip() -> nn.Module:
    config = open_clip.get_model_config("ViT-B-16")
    text = config["text_cfg"] | {"layers": 1, "vocab_size": 64}  # the keys of the real text tower, without its 250 MB
    return blank(lambda: open_clip.CLIP(config["embed_dim"], config["vision_cfg"], text))


def dinov2() -> nn.Module:
    return blank(lambda: timm.create_model("vit_base_patch14_dinov2.lvd142m"))  # at 518 pixels, as it is published


CASES = [
    Case(
        "timm:vit_base_patch16_224.augreg_in21k",
        "timm/vit_base_patch16_224.augreg_in21k",
        "model.safetensors",
        "supervised",
        (0.5, 0.5, 0.5),
        (0.5, 0.5, 0.5),
        vit,
    ),
    Case(
        "open_clip:ViT-B-16/laion2b_s34b_b88k",
        "laion/CLIP-ViT-B-16-laion2B-s34B-b88K",
        "open_clip_model.safetensors",
        "image-text",
        (0.48145466, 0.4578275, 0.40821073),
        (0.26862954, 0.26130258, 0.27577711),
        clip,
    ),
    Case(
        "timm:vit_base_patch14_dinov2.lvd142m",
        "timm/vit_base_patch14_dinov2.lvd142m",
        "model.safetensors",
        "self-supervised",
        (0.485, 0.456, 0.406),
        (0.229, 0.224, 0.225),
        dinov2,
    ),
]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.paradigm)
def published(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    hub: Callable[[str, str, Path], None],
) -> Iterator[tuple[Case, Any, Path]]:
    """(case, the library's own model, its file), the file also in the hub cache; removed afterwards."""
    case: Case = request.param
    path = tmp_path_factory.mktemp("weights") / case.filename
    model = case.build()
    save_file(model.state_dict(), path)
    hub(case.repository, case.filename, path)
    yield case, model, path
    path.write_bytes(b"")  # its 350 MB, under both names


def expected_info(case: Case, path: Path, source: str) -> BackboneInfo:
    return BackboneInfo(
        name=case.name,
        family=case.name.partition(":")[0],
        paradigm=case.paradigm,
        input_size=224,
        mean=case.mean,
        std=case.std,
        layers=tuple(f"blocks.{i}" for i in range(12)),
        widths=(768,) * 12,
        n_features=768,
        weights_source=source,
        weights_sha256=sha256_file(path),
    )


def library_outputs(model: Any, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """(embedding, tokens of each block) by hooks on the library's own model and by its own forward pass."""
    visual = getattr(model, "visual", None)
    blocks = visual.transformer.resblocks if visual else model.blocks
    tokens: list[Tensor] = []
    handles = [block.register_forward_hook(lambda module, args, output: tokens.append(output)) for block in blocks]
    if visual:
        projected = visual(x)
        embedding = visual.ln_post(tokens[-1])[:, 0]
        torch.testing.assert_close(embedding @ visual.proj, projected)  # the embedding is what the projection sits on
    else:
        if model.patch_embed.img_size != x.shape[2:]:
            model.set_input_size(x.shape[2:])  # timm resizes the position embeddings
        embedding = model.forward_head(model.forward_features(x), pre_logits=True)
    for handle in handles:
        handle.remove()
    return embedding, tokens


@torch.no_grad()
def test_blocks_from_the_hub_cache_equal_those_of_forward_hooks(published: tuple[Case, Any, Path]) -> None:
    case, model, path = published
    backbone = load_backbone(case.name)
    assert backbone.info == expected_info(case, path, f"hub:{case.repository}/{case.filename}@{REVISION}")

    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    outputs = backbone.forward_blocks(x)
    embedding, tokens = library_outputs(model, x)
    torch.testing.assert_close(outputs.embedding, embedding, atol=1e-6, rtol=1e-6)
    assert outputs.cls is not None
    assert {each.shape for each in (*outputs.cls, *outputs.feat)} == {(1, 768)}
    for layer, each in enumerate(tokens):
        torch.testing.assert_close(outputs.cls[layer], each[:, 0], atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(outputs.feat[layer], each[:, 1:].double().mean(1).float(), atol=1e-6, rtol=1e-5)
    assert not torch.allclose(outputs.cls[0], outputs.cls[11], atol=1e-2)  # the weights make the layers differ


def test_local_file_gives_the_same_weights(published: tuple[Case, Any, Path]) -> None:
    case, model, path = published
    backbone = load_backbone(case.name, weights=path)
    assert backbone.info == expected_info(case, path, f"file:{path}")
    saved = model.state_dict()
    loaded = backbone.model.state_dict()
    assert len(loaded) > 140
    for key, tensor in loaded.items():
        original = saved.get(f"visual.{key}", saved.get(key))
        if original.shape == tensor.shape:
            assert torch.equal(tensor, original), key
        else:
            assert key == "pos_embed"  # DINOv2's, from 518 pixels to 224
            assert tensor.shape == (1, 257, 768)
