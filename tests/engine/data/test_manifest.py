"""The manifest: what its digest depends on, and its way to disk and back."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from engine.data.intensity import AS_STORED, Decoding
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


def old_formula(manifest: Manifest) -> str:
    """The digest as it was before images had windows and labels were several: old studies keep theirs."""
    items = [[item.id, item.label, item.split, item.sha256] for item in manifest.items]
    text = json.dumps([list(manifest.classes), items], separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


FINDINGS = Manifest(
    root=Path("/data/my.npz"),
    layout="medmnist",
    classes=("x", "y"),
    items=tuple(
        Item(f"{n}", f"{n}", label, "train", f"{n:064x}") for n, label in enumerate([(1, 0), (0, 0), (-1, 1), (1, 1)])
    ),
    task="multilabel",
    group_name="patient",
    decoding=Decoding((-1000.0, 400.0), 2),
)


@pytest.mark.parametrize("manifest", [MANIFEST, replace(FINDINGS, decoding=AS_STORED)])
def test_digest_without_decoding_is_the_old_one(manifest: Manifest) -> None:
    assert manifest.digest == old_formula(manifest)
    assert replace(manifest, group_name="other", read_from="x").digest == manifest.digest
    assert replace(manifest, task="ordinal").digest != manifest.digest


def test_digest_depends_on_the_decoding() -> None:
    decodings = [
        AS_STORED, Decoding("auto"), Decoding((0.0, 1.0)), Decoding((0.0, 2.0)), Decoding(frame=0), Decoding(frame=1),
        Decoding("auto", 0),
    ]  # fmt: skip
    assert len({replace(MANIFEST, decoding=decoding).digest for decoding in decodings}) == len(decodings)


@pytest.mark.parametrize("decoding", [AS_STORED, Decoding("auto"), Decoding((-1000.0, 400.0), 2), Decoding(frame=0)])
def test_findings_and_decoding_to_disk_and_back(tmp_path: Path, decoding: Decoding) -> None:
    path = tmp_path / "manifest.json"
    manifest = replace(FINDINGS, decoding=decoding)
    write_manifest(path, manifest)
    found = read_manifest(path)
    assert found == manifest
    assert found.digest == manifest.digest
    assert all(isinstance(item.label, tuple) for item in found.items)
    assert found.decoding.window is None or isinstance(found.decoding.window, str | tuple)


@pytest.mark.parametrize("schema", [1, 2])
def test_files_from_before_tasks_and_windows_are_read(tmp_path: Path, schema: int) -> None:
    path = tmp_path / "manifest.json"
    write_manifest(path, MANIFEST)
    content = json.loads(path.read_text()) | {"schema": schema, "digest": old_formula(MANIFEST)}
    for name in ("task", "group_name", "decoding", "sha256"):
        del content[name]
    if schema == 1:  # from before files were sealed
        path.write_text(json.dumps(content))
    else:
        write_sealed_json(path, content)
    assert read_manifest(path) == MANIFEST
    assert (MANIFEST.task, MANIFEST.group_name, MANIFEST.decoding) == ("single", None, AS_STORED)


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
        ({"decoding": {"window": "auto"}}, "the digest does not match"),
        ({"decoding": 3}, "not a manifest"),
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


@pytest.mark.parametrize(("limit", "stops"), [(0.0, True), (0.05, True), (0.06, False), (1.0, False)])
def test_the_user_says_how_many_may_be_skipped(limit: float, stops: bool) -> None:
    skipped = [Skipped(f"{n}.png", "file is empty") for n in range(6)]
    if stops:
        with pytest.raises(DataError, match=rf"6 of 100 images cannot be used \(limit {limit:.0%}\)"):
            refuse_many_skipped("data", skipped, 100, limit)
    else:
        refuse_many_skipped("data", skipped, 100, limit)


def test_skipping_stops_above_five_percent() -> None:
    skipped = [Skipped(f"{n}.png", "file is empty") for n in range(6)]
    refuse_many_skipped("data", skipped[:5], 100)
    with pytest.raises(DataError) as caught:
        refuse_many_skipped("data", skipped, 100)
    assert caught.value.problem == (
        "6 of 100 images cannot be used (limit 5%): 0.png: file is empty; 1.png: file is empty; 2.png: file is empty"
    )
