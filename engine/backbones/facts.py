"""What must be known of a backbone before a study: its size, and where its weights lie; imports no torch.

For the bundled backbones and those that the README recommends it is written down here, and a test compares it with
the libraries. For any other name `engine.jobs.describe` asks the libraries in a process of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from engine.backbones.bundled_places import bundled_places
from engine.backbones.names import paradigm_of

Place = Literal["bundled", "file", "cached", "absent"]


@dataclass(frozen=True)
class BackboneFacts:
    """A backbone without its weights.

    Args:
        n_blocks: layers whose outputs are compared: blocks, or stages where there are no heads and patches.
        n_features: width of the embedding, and of a block's output.
        n_parameters: of the image tower without a head: what is trained and kept.
        n_poolings: 2 where there is a CLS token, else 1.
        repository, filename: where the weights lie in the hub; empty for bundled ones.
        widths: of the layers' outputs, where they differ from that of the embedding.
    """

    name: str
    input_size: int
    n_blocks: int
    n_heads: int
    n_features: int
    n_patches: int
    n_parameters: int
    n_poolings: int = 2
    repository: str = ""
    filename: str = ""
    widths: tuple[int, ...] = ()

    @classmethod
    def of(cls, answer: dict[str, Any]) -> BackboneFacts:
        """What `engine.jobs.describe` has printed as JSON."""
        return cls(**{**answer, "widths": tuple(answer["widths"])})

    @property
    def n_values(self) -> int:
        """What all layers together give of an image, by each pooling."""
        return sum(self.widths) or self.n_blocks * self.n_features

    @property
    def shape(self) -> str:
        """Its layers in words."""
        if self.widths:
            return f"{self.n_blocks} stages of {min(self.widths)} to {max(self.widths)} features, no CLS, no attention"
        return f"{self.n_blocks} blocks, {self.n_features} features, {self.n_patches} patches"

    @property
    def paradigm(self) -> str:
        """How it was pre-trained."""
        return paradigm_of(self.name)


RECOMMENDED = (
    BackboneFacts("bundled:supervised", 64, 6, 4, 128, 64, 1_223_040),
    BackboneFacts("bundled:image-text", 64, 6, 4, 128, 64, 1_223_168),
    BackboneFacts("bundled:self-supervised", 64, 6, 4, 128, 64, 1_223_040),
    BackboneFacts(
        "timm:vit_base_patch16_224.augreg_in21k", 224, 12, 12, 768, 196, 85_798_656,
        repository="timm/vit_base_patch16_224.augreg_in21k", filename="model.safetensors",
    ),
    BackboneFacts(
        "open_clip:ViT-B-16/laion2b_s34b_b88k", 224, 12, 12, 768, 196, 85_799_424,
        repository="laion/CLIP-ViT-B-16-laion2B-s34B-b88K", filename="open_clip_model.safetensors",
    ),
    BackboneFacts(
        "timm:vit_base_patch14_dinov2.lvd142m", 224, 12, 12, 768, 256, 85_724_928,
        repository="timm/vit_base_patch14_dinov2.lvd142m", filename="model.safetensors",
    ),
)  # fmt: skip


def weights_place(facts: BackboneFacts, weights: Path | None = None) -> Place:
    """Where a study would take the weights from: the package, the user's file, the hub cache, or nowhere here yet."""
    if weights is not None:
        return "file" if weights.is_file() else "absent"
    if not facts.repository:
        places = bundled_places(f"{facts.name.partition(':')[2]}.safetensors")
        return "bundled" if any(path.is_file() for path in places) else "absent"
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(facts.repository, facts.filename)
    return "cached" if isinstance(found, str) else "absent"
