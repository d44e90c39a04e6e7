"""Measures how fast this machine trains and evaluates a backbone, for an estimate before a study; keeps nothing."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path

import torch
from torch import nn

from engine.backbones import load_backbone
from engine.backbones.backbone import Backbone, BackboneInfo
from engine.backbones.names import FAMILIES, parse_name
from engine.finetune.classifier import Classifier
from engine.jobs.child import answer_for
from engine.jobs.prepare import n_workers_of, precision_of
from engine.measures import Comparison
from engine.study import MeasureSection

_BATCH = 16
_MIN_S = 2.0
_MAX_ROUNDS = 20


def measure(name: str, weights: Path | None, input_size: int | None) -> dict[str, object]:
    """Images a second in training (forward, backward, AdamW) and in evaluation, on the device that a study would take.

    Raises:
        SimtuiError: the backbone cannot be loaded.
    """
    return _measured(load_backbone(name, weights=weights, input_size=input_size))


def measure_for_study(text: str, n_probe: int) -> dict[str, object]:
    """What a forecast needs, measured with random weights, which are as fast and need not be there yet.

    Beside what `measure` gives: the comparison of `n_probe` images with the pre-trained model, the training of a head
    on features, and how many devices and workers a study would have.

    Raises:
        StudyError: the name is malformed or unknown.
    """
    name = parse_name(text)
    backbone, _ = import_module(FAMILIES[name.family].module).without_weights(name, "cpu")
    found = _measured(backbone.eval())
    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return {
        **found,
        "compare_s": _compare_s(backbone.info, n_probe),
        "head_images_per_s": _head_per_s(backbone.info, _device()),
        "n_devices": max(n_gpus, 1),
        "n_workers": n_workers_of(tuple(f"cuda:{i}" for i in range(n_gpus)) or ("cpu",)),
    }


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _measured(backbone: Backbone) -> dict[str, object]:
    device = _device()
    backbone = backbone.to(device)
    model = Classifier(backbone, nn.Linear(backbone.info.n_features, 2)).to(device)
    size, precision = backbone.info.input_size, precision_of("auto", device)
    images = torch.zeros(_BATCH, 3, size, size, device=device)
    labels = torch.zeros(_BATCH, dtype=torch.long, device=device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.0)

    def train() -> None:
        model.train()
        is_low = precision == "bfloat16"
        with torch.autocast(device.type, torch.bfloat16) if is_low else contextlib.nullcontext():
            logits = model(images)
        nn.functional.cross_entropy(logits.float(), labels).backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    @torch.inference_mode()
    def evaluate() -> None:
        backbone.eval()
        backbone.forward_blocks(images)

    trained = _per_s(train, device)
    return {
        "device": str(device),
        "precision": precision,
        "input_size": size,
        "train_images_per_s": trained,
        "evaluate_images_per_s": _per_s(evaluate, device),
    }


def _compare_s(info: BackboneInfo, n: int) -> float:
    """Seconds in which every pair of layers is compared on `n` images, for all poolings, by the default measures."""
    layers = [torch.randn(n, width) for width in info.widths]
    few = [layer[:_BATCH] for layer in layers]
    Comparison(few, MeasureSection.similarity).heatmaps(few)  # the first time allocates and fills caches
    reference = Comparison(layers, MeasureSection.similarity)
    started_s = time.monotonic()
    reference.heatmaps(layers)
    return (time.monotonic() - started_s) * len(info.poolings)


def _head_per_s(info: BackboneInfo, device: torch.device) -> float:
    """Images a second in the training of a linear head on features that lie on the device."""
    head = nn.Linear(info.n_features, 2).to(device)
    features = torch.randn(_BATCH, info.n_features, device=device)
    labels = torch.zeros(_BATCH, dtype=torch.long, device=device)
    optimiser = torch.optim.AdamW(head.parameters(), lr=0.0)

    def train() -> None:
        nn.functional.cross_entropy(head(features), labels).backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return _per_s(train, device)


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
    parser.add_argument("--probe", type=int, help="measure what a forecast needs, with so many probe images")
    options = parser.parse_args(arguments)
    measured = (
        partial(measure_for_study, options.name, options.probe)
        if options.probe
        else partial(measure, options.name, options.weights, options.input_size)
    )
    return answer_for(lambda: print(json.dumps(measured())))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
