"""Owns what a dataset is once it has been read: ordered images with labels, splits and content hashes, and its file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from engine.data.intensity import AS_STORED, Decoding
from engine.data.options import Task
from engine.errors import DamagedError, DataError
from engine.files import digest
from engine.sealed import read_sealed_json, write_sealed_json

Label = int | tuple[int, ...]
"""A position in `classes`; or, of a multi-label dataset, 1, 0 or -1 (not known) for every class."""

SPLITS = ("train", "val", "test")
MAX_SKIPPED = 0.05
_SCHEMA = 2
_SEALED_SINCE = 2
_REMAKE = "remove the file and read the dataset again"


@dataclass(frozen=True)
class Item:
    """One image: `path` is relative to the dataset's folder, in POSIX form."""

    id: str
    path: str
    label: Label
    split: str
    sha256: str
    group: str | None = None


@dataclass(frozen=True)
class Skipped:
    """An image that cannot be used, and why."""

    path: str
    problem: str


@dataclass(frozen=True)
class Manifest:
    """A dataset: items in the order of their ids, the images that were skipped, and what the user should know.

    `root` is the folder, or the `.npz` file; `group_name` is where the groups come from, None where there are none;
    `read_from` says in words which column or folder holds what.
    """

    root: Path
    layout: str
    classes: tuple[str, ...]
    items: tuple[Item, ...]
    skipped: tuple[Skipped, ...] = ()
    synthetic: bool = False
    warnings: tuple[str, ...] = ()
    task: Task = "single"
    group_name: str | None = None
    decoding: Decoding = AS_STORED
    read_from: str = ""

    @cached_property
    def digest(self) -> str:
        """64 hexadecimal digits over classes, ids, labels, splits and contents; the same wherever the folder lies."""
        content: list[Any] = [self.classes, [(item.id, item.label, item.split, item.sha256) for item in self.items]]
        if self.task == "ordinal":
            content.append(self.task)
        return digest(content if self.decoding == AS_STORED else [*content, asdict(self.decoding)])

    def of_split(self, split: str) -> tuple[Item, ...]:
        """The items of "train", "val" or "test", in order."""
        return tuple(item for item in self.items if item.split == split)


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Writes the manifest as JSON, whole."""
    content = asdict(manifest) | {"root": str(manifest.root)}
    write_sealed_json(path, {"schema": _SCHEMA, "digest": manifest.digest, **content})


def read_manifest(path: Path) -> Manifest:
    """Reads what `write_manifest` wrote.

    Raises:
        DamagedError: the file is damaged, or was written by another version of simtui.
    """
    content = read_sealed_json(path, _REMAKE, sealed_since=_SEALED_SINCE)
    schema = content.get("schema")
    if not isinstance(schema, int) or not 1 <= schema <= _SCHEMA:
        raise DamagedError(
            str(path), f"written by schema {schema}; this simtui reads up to {_SCHEMA}; upgrade", _REMAKE
        )
    try:
        manifest = _from_json(content)
        if manifest.digest != content["digest"]:
            raise ValueError("the digest does not match")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DamagedError(str(path), f"not a manifest ({error})", _REMAKE) from error
    return manifest


def refuse_many_skipped(where: str, skipped: Sequence[Skipped], n_images: int, limit: float = MAX_SKIPPED) -> None:
    """Stops where more than a share `limit` of `n_images` images cannot be used.

    Raises:
        DataError: with the count and the first three.
    """
    if len(skipped) > limit * n_images:
        first = "; ".join(f"{one.path}: {one.problem}" for one in skipped[:3])
        problem = f"{len(skipped)} of {n_images} images cannot be used (limit {100 * limit:g}%): {first}"
        lines = sum("no such image" in one.problem for one in skipped)
        what = "add these images, or remove their lines" if lines == len(skipped) else "mend or remove these images"
        raise DataError(where, problem, f"{what}, or raise data.max_skipped")


def _from_json(content: dict[str, Any]) -> Manifest:
    return Manifest(
        root=Path(content["root"]),
        layout=content["layout"],
        classes=tuple(content["classes"]),
        items=tuple(_item(one) for one in content["items"]),
        skipped=tuple(Skipped(**one) for one in content["skipped"]),
        synthetic=content["synthetic"],
        warnings=tuple(content["warnings"]),
        task=content.get("task", "single"),
        group_name=content.get("group_name"),
        decoding=_decoding(content.get("decoding", {})),
        read_from=content.get("read_from", ""),
    )


def _item(content: dict[str, Any]) -> Item:
    label = content["label"]
    return Item(**{**content, "label": tuple(label) if isinstance(label, list) else label})


def _decoding(content: dict[str, Any]) -> Decoding:
    window = content.get("window")
    return Decoding(tuple(window) if isinstance(window, list) else window, content.get("frame"))
