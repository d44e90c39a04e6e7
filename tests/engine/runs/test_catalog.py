"""The catalog says what the run folders say, is rebuilt from them, and is believed no further than they are."""

from __future__ import annotations

import os
import shutil
from dataclasses import fields, replace
from pathlib import Path

import pytest

from engine.files import write_hint
from engine.runs import catalog as catalog_module
from engine.runs.catalog import CATALOG_FILE, Catalog
from engine.runs.record import (
    ImportedCheckpoint,
    Provenance,
    Reference,
    RunRecord,
    Session,
    State,
    read_record,
    write_record,
)
from engine.runs.study_folder import StudyFolder
from engine.sealed import sealed_comment
from engine.study import freeze_study, load_study, run_specs

SESSION = Session(0, "box", "cuda:0 H100", "bfloat16", 8, {"torch": "2.13"}, "2026-01-01T00:00:00+00:00", 12.5)


@pytest.fixture
def study(tmp_path: Path) -> StudyFolder:
    """30 runs of which every field has a value of its own."""
    path = tmp_path / "study" / "study.toml"
    path.parent.mkdir()
    path.write_text(
        '[study]\nname="s"\n[data]\npath="d"\n[[backbone]]\nname="bundled:supervised"\n[finetune]\nseeds = 10\n'
    )
    path.write_text(freeze_study(load_study(path)))
    folder = StudyFolder(path.parent)
    for i, spec in enumerate(run_specs(folder.study)):
        record = RunRecord(
            spec.run_id, spec, State.DONE, f"reason {i}", i, {"a": i / 7}, {"b": None, "c": 1e-9 * i}, (0.5, 1.0 + i),
            (0.01, 0.02 * i), i % 3, {f"key{i}": "reference"}, {"results.h5": f"{i:064x}"},
            (replace(SESSION, seconds=float(i)), replace(SESSION, first_epoch=3, device="cpu")),
            Provenance(paradigm="supervised", n_test=i % 2, layers=("blocks.0",)),
            Reference("A", "bundled:supervised", layers=("blocks.0",)) if i % 3 else None,
            {"5": ImportedCheckpoint(f"{i:064x}", ((i, 7),), i % 2 == 0, "assumed", ("bf16",))} if i % 2 else {},
        )  # fmt: skip
        write_record(folder.run_path(spec.run_id), record)
    return folder


def test_every_field_of_every_record_comes_back(study: StudyFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = study.listing().records
    expected = tuple(read_record(path) for path in sorted(study.runs_path.iterdir()))
    assert listed == expected and (study.path / CATALOG_FILE).exists()
    defaults = RunRecord("", listed[0].spec)
    names = {each.name for each in fields(RunRecord)} - {"schema"}
    assert all(any(getattr(each, name) != getattr(defaults, name) for each in listed) for name in names - {"spec"})
    monkeypatch.setattr(catalog_module, "_read", lambda path: pytest.fail(f"read {path} again"))
    assert StudyFolder(study.path).listing().records == expected


def test_what_has_changed_is_read_again_and_what_is_gone_is_gone(study: StudyFolder) -> None:
    first, second, *_ = study.listing().records
    write_record(study.run_path(first.run_id), first.with_(reason="new"))
    shutil.rmtree(study.run_path(second.run_id))
    for folder in (study, StudyFolder(study.path)):
        listing = folder.listing()
        assert listing.records[0].reason == "new" and len(listing.records) == 29
    (study.run_path(first.run_id) / "run.json").write_text("{")
    assert [each.run_id for each in StudyFolder(study.path).listing().damaged] == [first.run_id]


@pytest.mark.parametrize(
    "content",
    ["", "nonsense", sealed_comment("{}"), sealed_comment('{"schema": 2, "specs": [], "entries": [[1]]}'), "changed"],
)
def test_a_catalog_that_is_not_one_is_made_again(study: StudyFolder, content: str) -> None:
    expected = study.listing()
    path = study.path / CATALOG_FILE
    whole = path.read_text()
    path.write_text(whole.replace("reason 3", "reason 4") if content == "changed" else content)
    assert StudyFolder(study.path).listing() == expected
    assert path.read_text() == whole


def test_the_catalog_of_a_study_that_cannot_be_written_lies_in_the_cache(
    study: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot_write_the_study(path: Path, content: str) -> bool:
        return study.path not in path.parents and write_hint(path, content)

    monkeypatch.setattr(catalog_module, "write_hint", cannot_write_the_study)
    expected = study.listing()
    assert not (study.path / CATALOG_FILE).exists()
    monkeypatch.setattr(catalog_module, "_read", lambda path: pytest.fail("read again"))
    assert Catalog(study.path).entries().keys() == {record.run_id for record in expected.records}


def test_a_copied_study_does_not_take_over_the_catalog(study: StudyFolder, tmp_path: Path) -> None:
    study.listing()
    copied = tmp_path / "copy"
    shutil.copytree(study.path, copied)
    run_id = study.listing().records[0].run_id
    path = copied / "runs" / run_id
    write_record(path, read_record(path).with_(reason="other"))
    original = (study.runs_path / run_id / "run.json").stat()
    os.utime(path / "run.json", ns=(original.st_atime_ns, original.st_mtime_ns))
    assert StudyFolder(copied).listing().records[0].reason == "other"
