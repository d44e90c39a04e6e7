"""What reading out all blocks costs over the bare forward pass: `python -m tests.benchmarks.extraction`.

"capture" is the forward pass with both poolings of every block and their conversion to float16. The two are measured in
turn, so that another load on the machine meets both; medians. The target is a ratio of at most 1.05.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from engine.backbones import timm_family
from engine.backbones.backbone import Backbone
from engine.backbones.bundled import INPUT_SIZE, build
from engine.backbones.torchvision_guard import guard

N_ROUNDS = 15


def main() -> None:
    """Prints one line a model and device."""
    guard()
    import timm

    def vit_small() -> torch.nn.Module:
        model: torch.nn.Module = timm.create_model("vit_small_patch16_224", num_classes=0)
        return model

    cases = [
        ("vit_small_patch16_224, 224 pixels", random_backbone(vit_small, 224), 16),
        ("bundled:supervised, 64 pixels", random_backbone(lambda: build("supervised"), INPUT_SIZE), 64),
    ]
    for device in ["cpu"] + ["cuda"] * torch.cuda.is_available():
        for name, backbone, n in cases:
            n_images = n * 16 if device == "cuda" else n
            bare_ms, capture_ms = measure(backbone.to(device), n_images)
            print(
                f"{name}, {n_images} images, {device} ({torch.get_num_threads()} threads): "
                f"bare {bare_ms:.1f} ms, capture {capture_ms:.1f} ms, ratio {capture_ms / bare_ms:.3f}"
            )


def random_backbone(create: Callable[[], torch.nn.Module], size: int) -> Backbone:
    """A backbone with random weights: the cost does not depend on their values."""
    half = (0.5, 0.5, 0.5)
    known = {
        "name": "random",
        "family": "timm",
        "paradigm": "unknown",
        "weights_source": "random",
        "weights_sha256": None,
    }
    return timm_family.wrap(create(), create, input_size=size, mean=half, std=half, **known).eval()


@torch.inference_mode()
def measure(backbone: Backbone, n_images: int) -> tuple[float, float]:
    """Median milliseconds of the bare forward pass and of the one with capture."""
    device = next(backbone.parameters()).device
    size = backbone.info.input_size
    x = torch.randn(n_images, 3, size, size, device=device)

    def capture() -> tuple[Tensor, ...]:
        outputs = backbone.forward_blocks(x)
        assert outputs.cls is not None
        return outputs.embedding, outputs.cls.half(), outputs.feat.half()

    times: dict[Callable[[], object], list[float]] = {lambda: backbone(x): [], capture: []}
    for nth in range(N_ROUNDS + 2):
        for call, taken_s in times.items():
            start = time.perf_counter()
            call()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if nth >= 2:  # the first two warm up
                taken_s.append(time.perf_counter() - start)
    bare_s, capture_s = (statistics.median(taken_s) for taken_s in times.values())
    return bare_s * 1e3, capture_s * 1e3


if __name__ == "__main__":
    main()
