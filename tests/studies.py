"""Makes small real studies for tests: images on disk, a bundled backbone with random weights, a study file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("blue", "green", "red")


def make_images(folder: Path, n_a_class: int, *, seed: int = 0, size: int = 32) -> Path:
    """Three classes of noisy one-coloured PNGs in the `folder` layout: learnable in a few steps."""
    rng = np.random.default_rng(seed)
    for channel, name in enumerate(reversed(CLASSES)):
        (folder / name).mkdir(parents=True)
        for i in range(n_a_class):
            pixels = rng.integers(0, 120, (size, size, 3))
            pixels[..., channel] += 100
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{name}{i:03d}.png")
    return folder


def save_random_weights(path: Path, name: str = "supervised") -> Path:
    """The weights file of a bundled backbone as its library initialises it."""
    import torch
    from safetensors.torch import save_file

    from engine.backbones.bundled import build

    with torch.random.fork_rng():
        torch.manual_seed(1)
        save_file(build(name).state_dict(), path)
    return path


def save_timm_weights(path: Path, name: str) -> Path:
    """The weights file of a model of timm as its library initialises it, with a classifier as the hub's have."""
    from safetensors.torch import save_file

    from engine.backbones.torchvision_guard import guard

    guard()
    import timm
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(1)
        save_file(timm.create_model(name).state_dict(), path)
    return path


def write_study(folder: Path, **finetune: object) -> Path:
    """A study file beside its images, origin images and weights; `finetune` settings as given."""
    save_random_weights(folder / "w.safetensors")
    return _write(folder, 'name = "bundled:supervised"\nweights = "w.safetensors"', finetune)


def write_timm_study(folder: Path, names: Sequence[str], **finetune: object) -> Path:
    """The same of models of timm that read 32 pixels."""
    files = [save_timm_weights(folder / f"{name}.safetensors", name).name for name in names]
    backbones = [
        f'name = "timm:{name}"\nweights = "{file}"\ninput_size = 32' for name, file in zip(names, files, strict=True)
    ]
    return _write(folder, "\n[[backbone]]\n".join(backbones), finetune)


def _write(folder: Path, backbones: str, finetune: Mapping[str, object]) -> Path:
    make_images(folder / "images", 10)
    make_images(folder / "origin", 8, seed=1)
    settings = {"methods": ["full", "linear", "scratch"], "seeds": 1, "epochs": 2, "batch_size": 8, **finetune}
    lines = [f"{key} = {value!r}" for key, value in settings.items()]
    path = folder / "study.toml"
    path.write_text(
        '[study]\nname = "tiny"\nkeep = "all"\n[data]\npath = "images"\n[probe]\nn = 6\n'
        f'[origin]\npath = "origin"\nn = 24\n[[backbone]]\n{backbones}\n'
        "[machine]\nworkers = 1\n[finetune]\n" + "\n".join(lines) + "\n"
    )
    return path
