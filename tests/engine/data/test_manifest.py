"""The manifest: what its digest depends on, and its way to disk and back."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from engine.data.manifest import Item, Manifest, Skipped, read_manifest, refuse_many_skipped, write_manifest
from engine.errors import DamagedError, DataError
from engine.sealed import write_sealed_json

HOSTILE_NAMES = [
    "\x1b]0;owned\x07.png",
    "[/]",
    "[@click=quit]",
    "a\nb\tc",
    "\u202egnp.exe",
    "\udcff\udcfe",
    "=cmd()",
    "é",
    "e\u0301",
]
ITEMS = tuple(
    Item(id=f"{n} {name}", path=f"a/{n} {name}", label=n % 2, split="train", sha256=f"{n:064x}", group=name)
    for n, name in enumerate(HOSTILE_NAMES)
)
MANIFEST = Manifest(
    root=Path("/data/\udcff"),
    layout="folder",
    classes=("a", "\udcfe"),
    items=ITEMS,
    skipped=(Skipped("a/\udcfe.png", "file is empty"),),
    synthetic=True,
    warnings=("1 image: CMYK",),
)


def test_way_to_disk_and_back(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    write_manifest(path, MANIFEST)
    assert read_manifest(path) == MANIFEST
    assert path.read_bytes().isascii()
    assert [one.name for one in tmp_path.iterdir()] == ["manifest.json"]


def test_digest_is_of_known_value_and_not_of_the_place() -> None:
    manifest = Manifest(Path("/x"), "folder", ("a", "b"), (Item("1", "a/1.png", 0, "train", "0" * 64),))
    canonical = '[["a","b"],[["1",0,"train","' + "0" * 64 + '"]]]'
    assert manifest.digest == hashlib.sha256(canonical.encode()).hexdigest()
    assert replace(manifest, root=Path("/y"), layout="csv", warnings=("w",)).digest == manifest.digest


@pytest.mark.parametrize(
    "changed",
    [
        replace(MANIFEST, classes=("b", "a")),
        replace(MANIFEST, items=ITEMS[:-1]),
        replace(MANIFEST, items=ITEMS[::-1]),
        replace(MANIFEST, items=(replace(ITEMS[0], id="other"), *ITEMS[1:])),
        replace(MANIFEST, items=(replace(ITEMS[0], label=1), *ITEMS[1:])),
        replace(MANIFEST, items=(replace(ITEMS[0], split="val"), *ITEMS[1:])),
        replace(MANIFEST, items=(replace(ITEMS[0], sha256="f" * 64), *ITEMS[1:])),
    ],
)
def test_digest_depends_on_what_is_learnt_from(changed: Manifest) -> None:
    assert changed.digest != MANIFEST.digest


def test_of_split_keeps_the_order() -> None:
    items = tuple(replace(item, split="val" if n % 3 else "test") for n, item in enumerate(ITEMS))
    assert replace(MANIFEST, items=items).of_split("test") == items[::3]
    assert MANIFEST.of_split("val") == ()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"schema": 3}, "written by schema 3; this simtui reads up to 2"),
        ({"items": []}, "the digest does not match"),
        ({"items": [{"id": "1"}]}, "not a manifest"),
        ({"classes": None}, "not a manifest"),
    ],
)
def test_damaged_manifest(tmp_path: Path, change: dict[str, object], problem: str) -> None:
    path = tmp_path / "manifest.json"
    write_manifest(path, MANIFEST)
    content = json.loads(path.read_text()) | change
    del content["sha256"]
    write_sealed_json(path, content)
    with pytest.raises(DamagedError, match=problem):
        read_manifest(path)


@pytest.mark.parametrize("content", ["[]", '{"sch', "3"])
def test_no_manifest_at_all(tmp_path: Path, content: str) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(content)
    with pytest.raises(DamagedError):
        read_manifest(path)


def test_skipping_stops_above_five_percent() -> None:
    skipped = [Skipped(f"{n}.png", "file is empty") for n in range(6)]
    refuse_many_skipped("data", skipped[:5], 100)
    with pytest.raises(DataError) as caught:
        refuse_many_skipped("data", skipped, 100)
    assert caught.value.problem == (
        "6 of 100 images cannot be used (limit 5%): 0.png: file is empty; 1.png: file is empty; 2.png: file is empty"
    )
