"""Reads what trainings write down beside their checkpoints: model, seed, input size, classes; never a pickle.

Everything is from outside: a value that is not as its writer would have it is left out, a file that cannot be read
gives a note.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from engine.backbones.names import parse_name
from engine.errors import StudyError
from engine.files import open_file

_MAX_BYTES = 4 << 20
_MAX_TEXT = 200
_MAX_CLASSES = 100_000
_SIZES = range(8, 4097)
# Published under both names by their authors; of others it is not sure enough that they are the same weights.
_SAME_WEIGHTS = {
    **{
        f"facebook/dinov2-{size}": f"timm:vit_{size}_patch14_dinov2.lvd142m"
        for size in ("small", "base", "large", "giant")
    },
    **{
        f"facebook/dinov2-with-registers-{size}": f"timm:vit_{size}_patch14_reg4_dinov2.lvd142m"
        for size in ("small", "base", "large", "giant")
    },
    "openai/clip-vit-base-patch32": "open_clip:ViT-B-32/openai",
    "openai/clip-vit-base-patch16": "open_clip:ViT-B-16/openai",
    "openai/clip-vit-large-patch14": "open_clip:ViT-L-14/openai",
}


@dataclass(frozen=True)
class Said:
    """See `engine.foreign.find.FoundTraining`, whose fields these become."""

    backbone: str | None = None
    model_said: str | None = None
    seed: int | None = None
    input_size: int | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    class_names: tuple[str, ...] | None = None
    said_by: Path | None = None
    notes: tuple[str, ...] = field(default=())


def read_said(folders: list[Path]) -> Said:
    """What the first of these folders that holds a file of a training says."""
    for folder in folders:
        for name, read in _FILES:
            path = folder / name
            if path.is_file():
                try:
                    said = read(path)
                except _UNREADABLE as error:
                    reason = " ".join(str(error).split())[:100]
                    return Said(notes=(f"{name} is not readable, and is left aside ({reason})",))
                if said is not None:
                    return replace(said, said_by=path)
    return Said()


def read_trainer_state(folder: Path) -> tuple[float | None, int | None]:
    """Epoch and step of a checkpoint of transformers' `Trainer`; None where its file does not say it.

    Raises:
        ValueError: the file is there and is not readable.
    """
    path = folder / "trainer_state.json"
    if not path.is_file():
        return None, None
    try:
        state = _mapping(json.loads(_text(path)))
    except _UNREADABLE as error:
        raise ValueError(f"{folder.name}/{path.name} is not readable") from error
    epoch, step = state.get("epoch"), _whole(state.get("global_step"))
    if isinstance(epoch, int | float) and not isinstance(epoch, bool) and 0 <= epoch < 10**6:
        return float(epoch), step
    return None, step


def _timm(path: Path) -> Said | None:
    """args.yaml of timm's train.py."""
    values = _mapping(yaml.safe_load(_text(path)))
    model = _word(values.get("model"))
    if model is None:
        return None
    name = re.sub(r"^(hf[-_]hub:)?timm/", "", model)
    notes = []
    backbone = _known(f"timm:{name}")
    started = _word(values.get("initial_checkpoint")) or _word(values.get("pretrained_path"))
    if started or values.get("pretrained") is not True:
        why = f"started from {started}" if started else "says pretrained: false, so it started from random weights"
        notes.append(f"{path.name} {why}: what it is compared with is yours to name with --backbone")
        backbone = None
    elif backbone is None:
        notes.append(
            f"{path.name} says {model} and not which of its weights; name them with --backbone timm:{name}.TAG"
        )
    if pool := _word(values.get("gp")):
        notes.append(f"{path.name} says gp: {pool}, another pooling than the backbone's may be")
    size = values.get("img_size") or values.get("input_size")
    return Said(
        backbone,
        model,
        _whole(values.get("seed")),
        _size(size[-1] if isinstance(size, list) and size else size),
        _three(values.get("mean")),
        _three(values.get("std")),
        notes=tuple(notes),
    )


def _open_clip(path: Path) -> Said | None:
    """params.txt of open_clip_train."""
    lines = (line.partition(": ") for line in _text(path).splitlines())
    values = {name.strip(): value.strip() for name, _, value in lines}
    model = _word(values.get("model"))
    if model is None:
        return None
    tag = _word(values.get("pretrained"))
    backbone = _known(f"open_clip:{model}/{tag}") if tag else None
    notes: tuple[str, ...] = ()
    if backbone is None:
        seen = f'pretrained: "{tag}"' if tag else "no pretrained weights"
        notes = (f"{path.name} says {seen} for {model}: name what it is compared with, with --backbone",)
    seed = values.get("seed", "")
    size = values.get("force_image_size", "")
    return Said(
        backbone,
        model,
        int(seed) if re.fullmatch(r"\d{1,9}", seed) else None,
        _size(int(size)) if re.fullmatch(r"\d{1,5}", size) else None,
        notes=notes,
    )


def _hugging_face(path: Path) -> Said | None:
    """config.json of transformers, and preprocessor_config.json beside it."""
    values = _mapping(json.loads(_text(path)))
    kind = _word(values.get("model_type"))
    if kind is None:
        return None
    architectures = values.get("architectures")
    classes = architectures if isinstance(architectures, list) and architectures else [kind]
    origin = _word(values.get("_name_or_path"))
    model, backbone = _word(classes[0]) or kind, _SAME_WEIGHTS.get(origin or "")
    if kind == "timm_wrapper":
        model, backbone = _timm_wrapper(values)
    elif origin:
        model = f"{model} from {origin}"
    notes = []
    if backbone is None:
        notes.append(
            f"{path.name} says {model} and not what timm or open_clip call its weights; name it with --backbone"
        )
    size, mean, std = _processor(path.parent)
    if size is None and not kind.startswith("dinov2"):  # whose tables are larger than the images of a training
        size = _size(values.get("image_size"))
    names = _class_names(values.get("id2label"))
    return Said(backbone, model, None, size, mean, std, names, notes=tuple(notes))


def _timm_wrapper(values: Mapping[str, Any]) -> tuple[str, str | None]:
    architecture = _word(values.get("architecture")) or "timm_wrapper"
    config = values.get("pretrained_cfg")
    tag = _word(config.get("tag")) if isinstance(config, dict) else None
    name = architecture if "." in architecture or tag is None else f"{architecture}.{tag}"
    return architecture, _known(f"timm:{name}")


def _processor(folder: Path) -> tuple[int | None, Any, Any]:
    """Input size, mean and std of transformers' image processor, where it is saved."""
    for name in ("preprocessor_config.json", "processor_config.json"):
        try:
            values = _mapping(json.loads(_text(folder / name)))
            values = _mapping(values.get("image_processor", values))
        except _UNREADABLE:
            continue
        sizes = values.get("crop_size") if values.get("do_center_crop") else values.get("size")
        side = sizes.get("height", sizes.get("shortest_edge")) if isinstance(sizes, dict) else sizes
        return _size(side), _three(values.get("image_mean")), _three(values.get("image_std"))
    return None, None, None


def _class_names(found: Any) -> tuple[str, ...] | None:
    """Names in the order of the outputs; None where they are not one a number, or only numbered."""
    if not isinstance(found, dict) or not 0 < len(found) <= _MAX_CLASSES:
        return None
    names = [found.get(str(i)) for i in range(len(found))]
    if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        return None
    if all(name == f"LABEL_{i}" for i, name in enumerate(names)):
        return None
    return tuple(str(name)[:_MAX_TEXT] for name in names)


def _text(path: Path) -> str:
    with open_file(path) as file:
        content = file.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise ValueError(f"more than {_MAX_BYTES >> 20} MB")
    return content.decode("utf-8-sig")


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("not names and values")
    return value


def _word(value: Any) -> str | None:
    """A text of one line without anything that a name has not."""
    is_word = isinstance(value, str) and re.fullmatch(r"[\w.:/@+-]{1,200}", value)
    return value if is_word and value != "None" else None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else None


def _size(value: Any) -> int | None:
    return value if isinstance(value, int) and value in _SIZES else None


def _three(value: Any) -> tuple[float, float, float] | None:
    if not isinstance(value, list | tuple) or len(value) != 3:
        return None
    if not all(isinstance(each, int | float) and math.isfinite(each) for each in value):
        return None
    first, second, third = (float(each) for each in value)
    return first, second, third


def _known(name: str) -> str | None:
    """The name, where it is one of a backbone with its weights."""
    try:
        return str(parse_name(name))
    except StudyError:
        return None


_UNREADABLE = (OSError, ValueError, yaml.YAMLError, RecursionError, KeyError, TypeError)
_FILES: tuple[tuple[str, Callable[[Path], Said | None]], ...] = (
    ("args.yaml", _timm),
    ("params.txt", _open_clip),
    ("config.json", _hugging_face),
)
