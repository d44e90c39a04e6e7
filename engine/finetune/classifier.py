"""A backbone and a linear head on its embedding: the model that is fine-tuned."""

from __future__ import annotations

from torch import Tensor, nn

from engine.backbones.backbone import Backbone


class Classifier(nn.Module):
    """A backbone and a linear head on its embedding."""

    def __init__(self, backbone: Backbone, head: nn.Linear) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(n, n_classes)` of normalised images `(n, 3, s, s)`."""
        logits: Tensor = self.head(self.backbone(x))
        return logits
