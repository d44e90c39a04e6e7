"""What a run trains and is measured on, decoded and in memory maps; knows nothing of backbones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from engine.activations.store import Activations
from engine.data.images import SQUARE_PROTOCOL
from engine.data.intensity import AS_STORED
from engine.data.manifest import Manifest
from engine.data.pixels import PixelCache
from engine.files import digest


@dataclass(frozen=True)
class Inputs:
    """The target domain at one input size, and the origin domain where the study has one.

    Attributes:
        probe_rows: rows of the test split, in increasing order, whose activations are compared.
        origin_probe: the origin images whose activations are compared; None where none are.
        attention: domain ("target", "origin") -> the images whose attention maps are kept.
    """

    manifest: Manifest
    splits: dict[str, PixelCache]
    probe_rows: np.ndarray
    origin_manifest: Manifest | None = None
    origin: PixelCache | None = None
    origin_probe: PixelCache | None = None
    attention: Mapping[str, PixelCache] = field(default_factory=dict)

    @property
    def n_classes(self) -> int:
        """Classes of the target domain."""
        return len(self.manifest.classes)

    def labels(self, split: str) -> np.ndarray:
        """`(n,)` classes of a split, or `(n, n_classes)` of 1, 0 and -1, in the order of its pixels."""
        return labels_of(self.splits[split])

    @property
    def probe_ids(self) -> tuple[str, ...]:
        """The images whose activations are compared, in order."""
        return tuple(self.splits["test"].items[row].id for row in self.probe_rows)

    @property
    def probe_digest(self) -> str:
        """Digest of the content and order of the probe images, and of how their pixels were made."""
        items = [self.splits["test"].items[row] for row in self.probe_rows]
        content = ["probe", SQUARE_PROTOCOL, self.splits["test"].pixels.shape[1], [(i.id, i.sha256) for i in items]]
        decoding = self.manifest.decoding
        return digest(content if decoding == AS_STORED else [*content, [decoding.window, decoding.frame]])

    def digest_of_probe(self, domain: str) -> str:
        """The digest of the probe images of a domain, "target" or "origin"."""
        if domain == "target":
            return self.probe_digest
        assert self.origin_probe is not None
        return self.origin_probe.digest

    def probe_activations(self, test: Activations) -> Activations:
        """The part of the test split's activations that is compared: ids and embedding of the probe rows alone."""
        return Activations(self.probe_ids, test.embedding[self.probe_rows], test.layers, test.pooled)


def labels_of(cache: PixelCache) -> np.ndarray:
    """`(n,)` int64 classes, or `(n, n_classes)` of 1, 0 and -1 (not known), in the order of the pixels."""
    return np.array([item.label for item in cache.items], np.int64)
