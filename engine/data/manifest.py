"""Owns what a dataset is once it has been read: ordered images with labels, splits and content hashes, and its file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from engine.errors import DamagedError, DataError
from engine.files import digest
from engine.sealed import read_sealed_json, write_sealed_json

SPLITS = ("train", "val", "test")
MAX_SKIPPED = 0.05
_SCHEMA = 2
_SEALED_SINCE = 2
_REMAKE = "remove the file and read the dataset again"


@dataclass(frozen=True)
class Item:
    """One image: `path` is relative to the dataset's folder, in POSIX form; `label` is a position in `classes`."""

    id: str
    path: str
    label: int
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
    """A dataset: items in the order of their ids, the images that were skipped, and what the user should know."""

    root: Path
    layout: str
    classes: tuple[str, ...]
    items: tuple[Item, ...]
    skipped: tuple[Skipped, ...] = ()
    synthetic: bool = False
    warnings: tuple[str, ...] = ()

    @cached_property
    def digest(self) -> str:
        """64 hexadecimal digits over classes, ids, labels, splits and contents; the same wherever the folder lies."""
        return digest([self.classes, [(item.id, item.label, item.split, item.sha256) for item in self.items]])

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
        raise DamagedError(str(path), f"written by schema {schema}; this simtui reads up to {_SCHEMA}", _REMAKE)
    try:
        manifest = _from_json(content)
        if manifest.digest != content["digest"]:
            raise ValueError("the digest does not match")
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedError(str(path), f"not a manifest ({error})", _REMAKE) from error
    return manifest


def refuse_many_skipped(where: str, skipped: Sequence[Skipped], n_images: int) -> None:
    """Stops where more than 5 % of `n_images` images cannot be used.

    Raises:
        DataError: with the count and the first three.
    """
    if len(skipped) > MAX_SKIPPED * n_images:
        first = "; ".join(f"{one.path}: {one.problem}" for one in skipped[:3])
        problem = f"{len(skipped)} of {n_images} images cannot be used (limit {MAX_SKIPPED:.0%}): {first}"
        raise DataError(where, problem, "mend or remove these images")


def _from_json(content: dict[str, Any]) -> Manifest:
    return Manifest(
        root=Path(content["root"]),
        layout=content["layout"],
        classes=tuple(content["classes"]),
        items=tuple(Item(**item) for item in content["items"]),
        skipped=tuple(Skipped(**one) for one in content["skipped"]),
        synthetic=content["synthetic"],
        warnings=tuple(content["warnings"]),
    )
