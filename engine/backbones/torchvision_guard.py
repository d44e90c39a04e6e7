"""Lets timm and open_clip import where torchvision was built for another torch; knows nothing of backbones.

timm and open_clip import torchvision, whose import fails with "operator torchvision::nms does not exist" when its
compiled operators do not load, as in a CUDA build beside a CPU torch. simtui calls none of them: declaring is enough.
"""

from __future__ import annotations

import importlib.util
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_declared: list[torch.library.Library] = []  # a Library takes its operators with it when it is collected


def guard() -> None:
    """Makes `import torchvision` possible; call it before the first import of timm or open_clip.

    Does nothing where torchvision is absent, where its compiled operators load (they are then loaded just as
    torchvision itself would load them), or on a second call.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or _operators_exist() or _compiled_operators_load(spec.submodule_search_locations or []):
        return
    import torch

    library = torch.library.Library("torchvision", "DEF")
    _declared.append(library)
    for name in ("nms", "qnms"):
        library.define(name + _SIGNATURE)


def _operators_exist() -> bool:
    import torch

    return hasattr(torch.ops.torchvision, "nms")


def _compiled_operators_load(folders: list[str]) -> bool:
    import torch

    for path in (Path(folder) / f"_C{suffix}" for folder in folders for suffix in EXTENSION_SUFFIXES):
        if path.is_file():
            try:
                torch.ops.load_library(path)
            except OSError:  # built for another torch: the very case that torchvision passes over in silence
                return False
            return _operators_exist()
    return False
