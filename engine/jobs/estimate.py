"""Measures how fast this machine trains and evaluates a backbone, for an estimate before a study; keeps nothing."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from engine.backbones import load_backbone
from engine.errors import SimtuiError
from engine.finetune.learner import Classifier
from engine.jobs.prepare import precision_of

_BATCH = 16
_MIN_S = 2.0
_MAX_ROUNDS = 20


def measure(name: str, weights: Path | None, input_size: int | None) -> dict[str, object]:
    """Images a second in training (forward, backward, AdamW) and in evaluation, on the device that a study would take.

    Raises:
        SimtuiError: the backbone cannot be loaded.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    backbone = load_backbone(name, weights=weights, input_size=input_size).to(device)
    model = Classifier(backbone, nn.Linear(backbone.info.n_features, 2)).to(device)
    size, precision = backbone.info.input_size, precision_of("auto", device)
    images = torch.zeros(_BATCH, 3, size, size, device=device)
    labels = torch.zeros(_BATCH, dtype=torch.long, device=device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.0)

    def train() -> None:
        is_low = precision == "bfloat16"
        with torch.autocast(device.type, torch.bfloat16) if is_low else contextlib.nullcontext():
            logits = model(images)
        nn.functional.cross_entropy(logits.float(), labels).backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    @torch.inference_mode()
    def evaluate() -> None:
        backbone.forward_blocks(images)

    trained = _per_s(train, device)
    return {
        "device": str(device),
        "precision": precision,
        "input_size": size,
        "train_images_per_s": trained,
        "evaluate_images_per_s": _per_s(evaluate, device),
    }


def _per_s(work: Callable[[], None], device: torch.device) -> float:
    work()  # the first time compiles, allocates and fills caches
    started_s, rounds = time.monotonic(), 0
    while rounds < _MAX_ROUNDS and (rounds == 0 or time.monotonic() - started_s < _MIN_S):
        work()
        rounds += 1
    if device.type == "cuda":
        torch.cuda.synchronize()
    return rounds * _BATCH / (time.monotonic() - started_s)


def main(arguments: list[str]) -> int:
    """Prints the figures as JSON, or the error; returns the exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--input-size", type=int)
    options = parser.parse_args(arguments)
    try:
        print(json.dumps(measure(options.name, options.weights, options.input_size)))
    except SimtuiError as error:
        print(json.dumps({"where": error.where, "problem": error.problem, "fix": error.fix, "code": error.exit_code}))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
