"""What this machine has of what a study needs: `python -m engine.jobs.doctor` prints it as JSON.

A process of its own, because it loads torch and because a broken library must not break the one who asks.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from engine.backbones.bundled import BUNDLED, bundled_weights_path
from engine.backbones.torchvision_guard import guard
from engine.errors import WeightsError


def _torch() -> str:
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return f"{torch.__version__}, CUDA {torch.version.cuda}: {', '.join(names)}"
    return f"{torch.__version__}, no CUDA device: studies run on the CPU"


def _torchvision() -> str:
    guard()
    import torchvision

    # Only a build that fits torch has its compiled operators and knows its CUDA version.
    if hasattr(torchvision.version, "cuda"):
        return str(torchvision.__version__)
    return f"{torchvision.__version__}, built for another torch: its operators are missing, simtui needs none of them"


def _timm() -> str:
    guard()
    import timm

    return str(timm.__version__)


def _open_clip() -> str:
    guard()
    import open_clip  # noqa: F401

    return version("open_clip_torch")


def _bundled() -> str:
    return ", ".join(_bundled_one(name) for name in BUNDLED)


def _bundled_one(name: str) -> str:
    try:
        return f"{name} {bundled_weights_path(name).stat().st_size / 1e6:.1f} MB"
    except WeightsError:
        return f'{name} not there: "python sample_runs/pretrain.py {name}" makes it'


def _hub_cache() -> str:
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE)
    models = sorted(path.name.removeprefix("models--").replace("--", "/") for path in folder.glob("models--*"))
    mode = "offline" if os.environ.get("HF_HUB_OFFLINE") == "1" else "online"
    return f"{folder} ({mode}): {', '.join(models) or 'no models yet'}"


CHECKS: dict[str, Callable[[], str]] = {
    "torch": _torch,
    "torchvision": _torchvision,
    "timm": _timm,
    "open_clip": _open_clip,
    "bundled weights": _bundled,
    "hub cache": _hub_cache,
}


def main() -> int:
    """Prints a JSON list of [name, works, words]."""
    found = []
    for name, check in CHECKS.items():
        try:
            found.append([name, True, check()])
        except Exception as error:  # a check's failure is its finding
            found.append([name, False, f"{type(error).__name__}: {error}"])
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
