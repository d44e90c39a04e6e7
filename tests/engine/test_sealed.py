"""Small files that prove themselves: JSON, the frozen study file, and the header of a checkpoint."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from engine.checkpoint_seal import CheckpointError, check_checkpoint, header_facts, seal_checkpoint
from engine.errors import DamagedError
from engine.finetune.checkpoints import Checkpoints, ResumePoint
from engine.sealed import is_changed, read_sealed_json, sealed_comment, write_sealed_json
from engine.study import freeze_study, load_study


def test_an_object_reads_back_and_no_flipped_bit_does(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    value = {"schema": 3, "name": "M\u00fcller \udc80", "figures": [0.1, 1e-300, None]}
    write_sealed_json(path, value)
    assert read_sealed_json(path, "again") == value
    whole = path.read_bytes()
    for bit in range(8 * len(whole)):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bytes(changed))
        with pytest.raises(DamagedError, match="fix: again"):
            read_sealed_json(path, "again")


@pytest.mark.parametrize(
    ("content", "problem"),
    [("[1]", "holds a list; need an object"), ("{}", "has no digest"), ('{"schema": 2}', "has no digest"),
     ('{"schema": true}', "has no digest"), ("{", "not readable as JSON"), ("[" * 100_000, "not readable as JSON")],
)  # fmt: skip
def test_what_has_no_digest_is_read_only_where_it_is_older(tmp_path: Path, content: str, problem: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DamagedError, match=problem):
        read_sealed_json(tmp_path / "a.json", "again", sealed_since=2)
    (tmp_path / "a.json").write_text('{"schema": 1}')
    assert read_sealed_json(tmp_path / "a.json", "again", sealed_since=2) == {"schema": 1}


def test_a_frozen_study_that_was_changed_is_refused_until_its_first_line_goes(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text('[study]\nname="s"\n[data]\npath="d"\n[[backbone]]\nname="bundled:supervised"\n')
    frozen = freeze_study(load_study(path))
    path.write_text(frozen)
    assert load_study(path).finetune.epochs == 20
    changed = frozen.replace("epochs = 20", "epochs = 21")
    path.write_text(changed)
    with pytest.raises(DamagedError, match="changed since it was frozen"):
        load_study(path)
    path.write_text(changed.partition("\n")[2])
    assert load_study(path).finetune.epochs == 21


def test_a_comment_that_is_no_seal_is_none() -> None:
    assert not is_changed(sealed_comment("text").encode())
    assert is_changed(sealed_comment("text").encode() + b"!")
    assert is_changed(b"# frozen by simtui; sha256 of what follows: lost\ntext")
    assert not is_changed(b"# my study\n")


def test_every_bit_of_a_checkpoint_is_covered(tmp_path: Path) -> None:
    Checkpoints(tmp_path).save_resume_point(ResumePoint(3, {"w": torch.arange(4.0)}))
    path = tmp_path / "checkpoints" / "last" / "epoch-003.safetensors"
    check_checkpoint(path)
    assert header_facts(path)["epoch"] == "3"
    whole = path.read_bytes()
    for bit in range(8 * len(whole)):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bytes(changed))
        with pytest.raises(CheckpointError):
            check_checkpoint(path)


def test_what_is_no_checkpoint_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    for content in (b"", b"1234", os.urandom(64), b"\x02\0\0\0\0\0\0\0{}"):
        path.write_bytes(content)
        for read in (check_checkpoint, seal_checkpoint, header_facts):
            with pytest.raises(CheckpointError):
                read(path)
