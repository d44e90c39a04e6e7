"""Networks whose layers are stages: what is read against the library's own pass in float64, sizes, what is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from engine.backbones import initialise, load_backbone
from engine.backbones.attention import attention_of
from engine.backbones.backbone import Backbone
from engine.backbones.stages import read_stages
from engine.backbones.torchvision_guard import guard
from engine.errors import StudyError, WeightsError

guard()
import open_clip  # noqa: E402
import timm  # noqa: E402

RESNET, CONVNEXT = "resnet10t.c3_in1k", "convnext_atto.d2_in1k"
SWIN = "swin_tiny_patch4_window7_224.ms_in1k"
NARROW: Mapping[str, Any] = {"embed_dim": 8, "depths": (1, 1, 2, 1), "num_heads": (1, 1, 2, 2)}


def drawn(model: nn.Module) -> Any:
    """Every parameter and buffer drawn anew, so that no layer or statistic is as it was created."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, values in model.state_dict().items():
            if not values.is_floating_point():
                continue
            noise = torch.empty_like(values).normal_(std=0.1, generator=generator)
            is_scale = values.ndim == 1 and name.endswith(("weight", "gamma", "running_var"))
            values.copy_(noise.abs() + 0.5 if is_scale else noise)
    return model.eval()


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., tuple[Backbone, Any]]:
    """Saves a drawn timm model under a classifier of 5 classes and loads it: (backbone, the timm model)."""

    def load(name: str, input_size: int, **kwargs: Any) -> tuple[Backbone, Any]:
        model = drawn(timm.create_model(name, num_classes=5, **kwargs))
        path = tmp_path / "w.safetensors"
        save_file({key: tensor.contiguous() for key, tensor in model.state_dict().items()}, path)
        return load_backbone(f"timm:{name}", weights=path, input_size=input_size), model

    return load


def images(size: int, n: int = 2) -> Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "size", "kwargs", "layers", "widths"),
    [
        (RESNET, 64, {}, ("act1", "layer1", "layer2", "layer3", "layer4"), (64, 64, 128, 256, 512)),
        (RESNET, 50, {}, ("act1", "layer1", "layer2", "layer3", "layer4"), (64, 64, 128, 256, 512)),
        (CONVNEXT, 64, {}, ("stages.0", "stages.1", "stages.2", "stages.3"), (40, 80, 160, 320)),
        (SWIN, 64, {"img_size": 64}, ("layers.0", "layers.1", "layers.2", "layers.3"), (96, 192, 384, 768)),
        ("regnetx_002.pycls_in1k", 32, {}, ("stem", "s1", "s2", "s3", "s4"), (32, 24, 56, 152, 368)),
        ("mobilenetv3_small_050.lamb_in1k", 32, {}, ("bn1", *(f"blocks.{i}" for i in (0, 1, 3, 5))),
         (16, 8, 16, 24, 288)),
    ],
)  # fmt: skip
def test_maps_are_the_librarys_own(
    load: Callable[..., tuple[Backbone, Any]],
    name: str,
    size: int,
    kwargs: dict[str, Any],
    layers: tuple[str, ...],
    widths: tuple[int, ...],
) -> None:
    backbone, model = load(name, size, **kwargs)
    info, x = backbone.info, images(size)
    assert (info.layers, info.widths, info.poolings, info.layer_kind) == (layers, widths, ("feat",), "stages")
    with torch.no_grad():
        outputs = backbone.forward_blocks(x)
        assert torch.equal(outputs.embedding, backbone(x))
        assert torch.equal(outputs.embedding, model.forward_head(model.forward_features(x), pre_logits=True))
        exact = model.double().forward_intermediates(x.double(), intermediates_only=True, norm=False)
    assert outputs.cls is None
    assert outputs.embedding.shape == (2, info.n_features)
    assert len(exact) == len(outputs.feat)
    for width, found, expected in zip(widths, outputs.feat, exact, strict=True):
        assert found.shape == (2, width) and found.dtype == torch.float32
        # timm gives maps as (n, c, h, w), those of Swin too, unless it is asked for others.
        torch.testing.assert_close(found.double(), expected.mean((2, 3)), atol=1e-5, rtol=1e-4)


def test_of_maps_with_channels_last_the_positions_are_pooled() -> None:
    """As many channels as positions: the shape fits both, and the other maps tell which it is."""
    with torch.device("meta"):
        model = timm.create_model(SWIN, num_classes=0, img_size=32, **NARROW)
        found = read_stages(model, 32, "it")
    assert (found.widths[0], 32 // 4) == (8, 8)
    assert found.positions == ((1, 2),) * 4


def test_layers_of_a_map_in_bfloat16_are_pooled_in_float32(load: Callable[..., tuple[Backbone, Any]]) -> None:
    backbone, _ = load(CONVNEXT, 32)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert {each.dtype for each in backbone.forward_blocks(images(32)).feat} == {torch.float32}


def test_attention_is_said_to_be_missing(load: Callable[..., tuple[Backbone, Any]]) -> None:
    backbone, _ = load(RESNET, 32)
    with pytest.raises(StudyError, match="its layers are stages of maps, which have no CLS token and no attention"):
        attention_of(backbone, images(32))


def test_running_statistics_are_loaded_drawn_anew_and_left_alone_in_eval_mode(
    load: Callable[..., tuple[Backbone, Any]],
) -> None:
    backbone, model = load(RESNET, 32)
    buffers = {f"model.{name}": values.clone() for name, values in model.named_buffers()}
    assert len(buffers) > 30
    assert all(torch.equal(dict(backbone.named_buffers())[name], values) for name, values in buffers.items())
    with torch.no_grad():
        backbone.forward_blocks(images(32))
    assert all(torch.equal(dict(backbone.named_buffers())[name], values) for name, values in buffers.items())
    initialise(backbone, 7)
    torch.manual_seed(7)
    fresh = timm.create_model(RESNET, num_classes=0)
    for key, tensor in fresh.state_dict().items():
        assert torch.equal(backbone.model.state_dict()[key], tensor), key
    assert float(backbone.model.state_dict()["bn1.running_var"].sum()) == 64


def test_weights_of_another_network_and_from_other_files(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(timm.create_model("resnet18").state_dict(), path)
    with pytest.raises(WeightsError, match=r"not the weights of timm:resnet10t\.c3_in1k: "):
        load_backbone(f"timm:{RESNET}", weights=path)
    assert load_backbone("timm:resnet18.a1_in1k", weights=path).info.n_features == 512
    state = timm.create_model(CONVNEXT, num_classes=7).state_dict()  # its authors call the classifier "head"
    state = {key.replace("head.fc.", "head.").replace("head.norm.", "norm."): each for key, each in state.items()}
    save_file(state, path)
    assert load_backbone(f"timm:{CONVNEXT}", weights=path, input_size=32).info.n_features == 320


def test_weights_outside_the_hub() -> None:
    with pytest.raises(WeightsError, match=r"timm names no file of its weights in the hub\n  fix: fetch https://"):
        load_backbone("timm:gcvit_xxtiny.in1k")


def test_a_convnext_of_open_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vision = {"timm_model_name": "convnext_atto", "timm_model_pretrained": False, "timm_pool": "", "image_size": 32,
              "timm_proj": "linear", "timm_drop": 0.0, "timm_drop_path": 0.1}  # fmt: skip
    config = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": {}}
    monkeypatch.setattr("open_clip.get_model_config", lambda name: config)
    text = {"context_length": 4, "vocab_size": 8, "width": 16, "heads": 2, "layers": 1}
    clip = drawn(open_clip.CLIP(16, vision, text))
    save_file(clip.state_dict(), tmp_path / "w.safetensors")
    backbone = load_backbone("open_clip:convnext_base/laion400m_s13b_b51k", weights=tmp_path / "w.safetensors")
    assert backbone.info.layers == ("stages.0", "stages.1", "stages.2", "stages.3")
    assert (backbone.info.paradigm, backbone.info.layer_kind) == ("image-text", "stages")
    with torch.no_grad():
        projected = clip.visual(images(32))
        torch.testing.assert_close(clip.visual.head(backbone(images(32))), projected)
        layers = clip.visual.trunk.forward_intermediates(images(32), intermediates_only=True, norm=False)
        for found, expected in zip(backbone.forward_blocks(images(32)).feat, layers, strict=True):
            torch.testing.assert_close(found, expected.mean((2, 3)), atol=1e-5, rtol=1e-4)


class _Odd(nn.Module):
    """A network with one thing of it that cannot be read."""

    def __init__(self, module: str = "stage", n_passes: int = 1, is_flat: bool = True) -> None:
        super().__init__()
        self.stage = nn.Conv2d(3, 4, 3, padding=1)
        self.feature_info = [{"module": module, "num_chs": 4, "reduction": 1}]
        self.n_passes, self.is_flat = n_passes, is_flat

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.n_passes):
            y: Tensor = self.stage(x)
        return y.mean((2, 3)) if self.is_flat else y


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        ({"n_passes": 2}, "does not go through each of its stages once"),
        ({"is_flat": False}, "without its classifier it gives no vector an image"),
        ({"module": "other"}, "what timm names as a stage is not there"),
        ({"module": ""}, r"is not there \(a stage without a name\)"),
    ],
)
def test_networks_that_cannot_be_read(odd: dict[str, Any], said: str) -> None:
    with torch.device("meta"):
        assert read_stages(_Odd(), 8, "it").widths == (4,)
        with pytest.raises(StudyError, match=f"it: its layers can be read neither .*{said}"):
            read_stages(_Odd(**odd), 8, "it")
        nameless = _Odd()
        nameless.feature_info = []
        with pytest.raises(StudyError, match="timm names no stages of it"):
            read_stages(nameless, 8, "it")


@pytest.mark.parametrize("size", [32, 33, 47, 50, 64])
def test_no_pixel_of_a_size_that_is_taken_is_left_out(load: Callable[..., tuple[Backbone, Any]], size: int) -> None:
    """Gradients say whether the last row and column count; sizes at which they would not are refused."""
    for name in (RESNET, CONVNEXT):
        try:
            backbone, _ = load(name, size)
        except StudyError as error:
            assert name == CONVNEXT and size % 32 and "would leave out" in error.problem
            continue
        x = images(size, 1).requires_grad_()
        backbone.forward_blocks(x).feat[-1].square().sum().backward()
        assert x.grad is not None
        assert x.grad[0, :, -1].any() and x.grad[0, :, :, -1].any()
