"""Self-supervised pre-training: DINO's self-distillation (Caron et al. 2021), which sees no label and no caption.

With multi-crop and centring as there, and DINOv2's KoLeo loss (Oquab et al. 2023), without which a network this small
lets its embeddings fall together."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.backbones.bundled import WIDTH, build
from pretraining.augment import random_crops, recolour
from pretraining.recipe import Batch, Settings

N_GLOBAL, N_LOCAL = 2, 4
GLOBAL_SIZE, LOCAL_SIZE = 48, 24  # below the input size, to save time; with these areas objects keep their scale
GLOBAL_AREA, LOCAL_AREA = (0.4, 1.0), (0.12, 0.35)
N_PROTOTYPES = 512
STUDENT_TEMPERATURE, TEACHER_TEMPERATURE = 0.1, 0.04
CENTRE_MOMENTUM = 0.9
SPREADING_WEIGHT = 0.1  # of DINOv2's KoLeo loss
TEACHER_MOMENTUM = 0.99  # at the start; rises to 1 as a cosine
# Under random colours a random network cannot tell which crops are of one scene (the other crop has median rank 377 of
# 720), in grey it can (71): so colours come in over the first part of the training.
COLOUR_RAMP = 0.4
INITIAL_GAIN = 1.5  # over 1 / sqrt(fan-in); timm's fixed 0.02 is made for wider networks and leaves blocks nearly idle


class Head(nn.Module):
    """DINO's projection: an MLP, L2 normalisation, then prototypes of unit length. `(n, WIDTH)` to `(n, N_PROTOTYPES)`.

    It has DINO's optional batch normalisation, without which a training this short stays at uniform targets.
    """

    def __init__(self, hidden: int = 512, bottleneck: int = 128) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(WIDTH, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.GELU(),
            nn.Linear(hidden, bottleneck, bias=False),
            nn.BatchNorm1d(bottleneck),
        )
        self.prototypes = nn.Parameter(torch.randn(N_PROTOTYPES, bottleneck))

    def forward(self, x: Tensor) -> Tensor:
        return functional.normalize(self.mlp(x), dim=-1) @ functional.normalize(self.prototypes, dim=-1).T


class SelfSupervised:
    """Student and teacher of one architecture; the teacher, a running mean of the student, is what is saved."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        student = build("self-supervised")
        for module in student.get_submodule("blocks").modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=INITIAL_GAIN * module.in_features**-0.5)
        self.trained: nn.Module = nn.Sequential(student, Head())
        self.teacher = copy.deepcopy(self.trained).requires_grad_(False)
        self.backbone: nn.Module = self.teacher.get_submodule("0")
        self.centre = torch.zeros(1, N_PROTOTYPES)
        self.colour = 0.0

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        near = torch.cat([self._view(batch.images, GLOBAL_SIZE, GLOBAL_AREA, generator) for _ in range(N_GLOBAL)])
        far = torch.cat([self._view(batch.images, LOCAL_SIZE, LOCAL_AREA, generator) for _ in range(N_LOCAL)])
        with torch.no_grad():
            taught = self.teacher(near).float()
        student, head = self.trained.children()
        embeddings = torch.cat([student(near), student(far)])
        learnt = head(embeddings).float()
        loss = distillation_loss(learnt.chunk(N_GLOBAL + N_LOCAL), taught.chunk(N_GLOBAL), self.centre)
        for view in embeddings[: len(near)].chunk(N_GLOBAL):
            loss = loss + SPREADING_WEIGHT * spreading_loss(view)
        self.centre = CENTRE_MOMENTUM * self.centre + (1 - CENTRE_MOMENTUM) * taught.mean(dim=0, keepdim=True)
        return loss

    def after_step(self, done: float) -> None:
        self.colour = min(1.0, done / COLOUR_RAMP)
        momentum = 1 - (1 - TEACHER_MOMENTUM) * 0.5 * (1 + math.cos(math.pi * done))
        with torch.no_grad():
            for kept, new in zip(self.teacher.parameters(), self.trained.parameters(), strict=True):
                kept.lerp_(new, 1 - momentum)

    def _view(self, images: Tensor, size: int, area: tuple[float, float], generator: torch.Generator) -> Tensor:
        crops = random_crops(images, size, area, generator, turned=True)
        return 2 * recolour(crops, self.colour, generator) - 1


def spreading_loss(embeddings: Tensor) -> Tensor:
    """Minus the mean log distance of each image to its nearest in the batch, on the unit sphere; `(n, d)` to a scalar.

    Source: Sablayrolles et al. 2019 (KoLeo), as DINOv2 uses it: it keeps the embeddings from falling together.
    """
    z = functional.normalize(embeddings.float(), dim=-1)
    with torch.no_grad():
        nearest = (z @ z.T).fill_diagonal_(-2).argmax(dim=1)
    return -(z - z[nearest]).norm(dim=1).clamp(min=1e-6).log().mean()


def distillation_loss(student: tuple[Tensor, ...], teacher: tuple[Tensor, ...], centre: Tensor) -> Tensor:
    """Mean cross-entropy of the student's views against the teacher's, over all pairs of different views.

    Args:
        student: logits `(n, k)` of every view, global views first.
        teacher: logits `(n, k)` of the global views; they are centred and sharpened.
        centre: `(1, k)`, the running mean of the teacher's logits.
    """
    targets = [functional.softmax((logits - centre) / TEACHER_TEMPERATURE, dim=-1) for logits in teacher]
    guesses = [functional.log_softmax(logits / STUDENT_TEMPERATURE, dim=-1) for logits in student]
    pairs = [
        -(target * guess).sum(dim=-1).mean()
        for i, target in enumerate(targets)
        for j, guess in enumerate(guesses)
        if i != j
    ]
    return torch.stack(pairs).mean()
