"""What is measured of the models of one run: against θ*, on the labelled images, of their layers; trains nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from engine.activations.store import Activations
from engine.backbones.backbone import Backbone
from engine.finetune.attention import attention_metrics, take_attention
from engine.finetune.bench import Bench
from engine.finetune.evaluate import classification_metrics, layer_metrics
from engine.finetune.inputs import labels_of
from engine.finetune.observe import Observation
from engine.measures import Comparison
from engine.measures.check import Layer, as_layer
from engine.quality import knn_accuracy
from engine.runs.attention_maps import AttentionMaps
from engine.runs.results import SimilarityKey
from engine.study import RunSpec


@dataclass(frozen=True)
class Measured:
    """What one epoch adds to `Results`."""

    similarity: Mapping[SimilarityKey, np.ndarray]
    quality: Mapping[str, float | None] = field(default_factory=dict)
    layers: Mapping[str, np.ndarray] = field(default_factory=dict)


class Meter:
    """Measures the models of one run, epoch by epoch."""

    def __init__(self, spec: RunSpec, bench: Bench) -> None:
        self._spec, self._bench = spec, bench
        self._comparisons = {
            (domain, pooling): Comparison(_layers(probe, pooling, "the pre-trained model"), spec.measure.similarity)
            for domain, probe in bench.reference.probes.items()
            for pooling in probe.pooled
        }

    def measured(self, seen: Observation) -> Measured:
        """Everything that is measured at every epoch."""
        return Measured(
            self._similarity(seen.probes),
            self._quality(seen),
            layer_metrics(seen.probes["target"].pooled, self._spec.measure.quality),
        )

    def origin_knn(self, embed: Callable[[], np.ndarray | None]) -> float | None:
        """k-NN accuracy on the origin images, whose `(n, d)` `embed` gives; None where the study asks for none."""
        embedding = embed() if "knn" in self._spec.measure.quality else None
        if embedding is None or self._bench.inputs.origin is None:
            return None
        labels = labels_of(self._bench.inputs.origin)
        return float(knn_accuracy(embedding, labels, embedding, labels, leave_one_out=True))

    def attention(self, backbone: Backbone | None) -> tuple[AttentionMaps, dict[str, np.ndarray]] | None:
        """The attention maps of a model (None for θ*), and how they are, by layer; None where no maps are kept."""
        reference = self._bench.reference.attention
        if reference is None:
            return None
        found = reference if backbone is None else take_attention(backbone, self._bench.inputs.attention)
        return found, attention_metrics(reference, found)

    def _quality(self, seen: Observation) -> dict[str, float]:
        inputs, asked = self._bench.inputs, self._spec.measure.quality
        return {
            name: value
            for split, logits in seen.logits.items()
            for name, value in classification_metrics(
                logits, inputs.labels(split), split, asked, inputs.manifest.task
            ).items()
        }

    def _similarity(self, probes: Mapping[str, Activations]) -> dict[SimilarityKey, np.ndarray]:
        """Every pair of blocks, θ*'s in rows, for every probe, pooling and measure."""
        return {
            SimilarityKey(domain, pooling, measure): np.asarray(matrix)
            for (domain, pooling), comparison in self._comparisons.items()
            for measure, matrix in comparison.heatmaps(_layers(probes[domain], pooling, "this run's model")).items()
        }


def _layers(probe: Activations, pooling: str, model: str) -> list[Layer]:
    """The outputs of every block, under the names by which an error is to call them."""
    return [
        as_layer(values, f"{layer} ({pooling}) of {model}")
        for layer, values in zip(probe.layers, probe.pooled[pooling], strict=True)
    ]
