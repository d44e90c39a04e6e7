"""`simtui data`: one screen, JSON, options, study files and exit codes; every name from outside through the gate."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.errors import StudyError
from simtui import cli
from simtui.dataset_options import options_of, window_of
from tests import studies
from tests.engine.data.making import make_folder_dataset, noise, write_lines

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def run_command(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["simtui", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    monkeypatch.setenv("COLUMNS", "80")
    return run_command


def test_one_screen(run: Run, tmp_path: Path) -> None:
    root = make_folder_dataset(tmp_path, {"naevus": 40, "mela\x1b[2Jnoma": 12})
    code, out, _ = run("data", root)
    lines = out.splitlines()
    assert code == 0 and len(lines) <= 24 and all(len(line) <= 80 for line in lines)
    assert lines[0] == "folder · one class an image · 52 images · 2 classes"
    assert "\x1b" not in out and r"mela\x1b[2Jnoma" in out
    row = next(line for line in lines if line.startswith("naevus"))
    assert row.split()[2:] == ["28", "6", "6"]
    assert "images  16 × 12 · RGB 52" in out and "10 MB at 224 pixels" in out
    assert "no patients or lesions are named" in out and lines[-1] == "ready: a study can start on it"


def test_what_stops_a_study_has_its_fix_and_exit_code_2(run: Run, tmp_path: Path) -> None:
    root = make_folder_dataset(tmp_path, {"a": 30, "b": 30})
    Image.fromarray((noise(1).astype(np.uint16) * 200)[..., 0]).save(root / "b" / "deep.png")
    code, out, _ = run("data", root)
    assert code == 2 and "✗ 16-bit image; set data.window" in out and "fix: " in out
    assert run("data", root, "--window", "0,51000")[0] == 0
    assert run("data", root, "--window", "auto")[0] == 0


def test_what_cannot_be_read_at_all_is_one_error(run: Run, tmp_path: Path) -> None:
    code, out, err = run("data", tmp_path / "nothing")
    assert code == 2 and out == "" and "no such folder\n  fix: " in err


def test_json(run: Run, tmp_path: Path) -> None:
    root = make_folder_dataset(tmp_path, {"a": 30, "b": 30})
    write_lines(root / "a" / "text.jpg", ["no image"])
    code, out, _ = run("data", root, "--json", "--images", "60", "--max-skipped", "0.2")
    found = json.loads(out)
    assert code == 0 and found["n_images"] == 61 and found["is_usable"] and found["n_of"]["b"]["train"] == 21
    assert found["cache_bytes"] == 61 * 256 * 256 * 3 and "thumbnails" not in found


def test_the_sections_of_a_study_file(run: Run, tmp_path: Path) -> None:
    study = studies.write_study(tmp_path)
    assert run("data", study)[1].startswith("folder · ")
    code, _, err = run("data", study, "--origin")
    if code:
        assert "has no [origin] section" in err


def test_options_of_the_command_come_before_those_of_the_file(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "study.toml",
        ['[study]', 'name = "x"', "[data]", 'path = "images"', 'group = "patient"', "window = [0, 255]", "[[backbone]]",
         'name = "bundled:supervised"'],
    )  # fmt: skip
    root, options = options_of(path, {"window": "auto", "label": ("a", "b"), "frame": None}, is_origin=False)
    assert root == tmp_path / "images"
    assert (options.group, options.window, options.label, options.frame) == ("patient", "auto", ("a", "b"), None)
    with pytest.raises(StudyError, match=r"has no \[origin\] section"):
        options_of(path, {}, is_origin=True)


@pytest.mark.parametrize("text", ["nonsense", "1", "5,1", "3,3", "1,2,3"])
def test_windows_that_are_none(text: str) -> None:
    with pytest.raises(StudyError, match="--window"):
        window_of(text)


def test_a_backbone_is_measured_here(run: Run, tmp_path: Path) -> None:
    root = make_folder_dataset(tmp_path, {"a": 30, "b": 30})
    code, out, _ = run("data", root, "--backbone", "bundled:supervised", "--json")
    found = json.loads(out)
    assert code == 0 and found["input_size"] == 64 and found["backbone"]["train_images_per_s"] > 0
    n = found["n_of_split"]
    speed = found["backbone"]
    looked_at = (n["val"] + n["test"]) / speed["evaluate_images_per_s"]
    assert found["epoch_s"] == pytest.approx(n["train"] / speed["train_images_per_s"] + looked_at)


def test_a_backbone_that_is_not_there_is_named(run: Run, tmp_path: Path) -> None:
    root = make_folder_dataset(tmp_path, {"a": 30, "b": 30})
    code, _, err = run("data", root, "--backbone", "bundled:supervisd")
    assert code == 2 and "supervisd" in err and "fix: " in err


def test_pictures_in_colour_and_without(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_folder_dataset(tmp_path, {"a": 30, "b": 30})
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    assert "▀" in run("data", root)[1]
    monkeypatch.setenv("NO_COLOR", "1")
    assert "▀" not in run("data", root)[1]


def test_a_refusal_as_json(run: Run, tmp_path: Path) -> None:
    code, out, err = run("data", tmp_path / "nothing", "--json")
    found = json.loads(out)
    assert code == 2 and not found["is_usable"] and found["error"]["problem"] == "no such folder" and "fix: " in err


def test_where_labels_come_from_and_which_window_is_used(run: Run, tmp_path: Path) -> None:
    for n in range(30):
        path = tmp_path / f"{n}.png"
        Image.fromarray((noise(n).astype(np.uint16) * 200)[..., 0]).save(path)
    write_lines(tmp_path / "t.csv", ["file,label", *(f"{n}.png,{'ab'[n % 2]}" for n in range(30))])
    out = run("data", tmp_path, "--window", "40,400")[1]
    assert 't.csv: images "file", labels "label"' in out and "black at 40, white at 400" in " ".join(out.split())


def test_long_errors_break_at_words_in_a_terminal(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.get_terminal_size", lambda *_: os.terminal_size((60, 24)))
    whole = run("data", make_folder_dataset(tmp_path / "a folder", {"one": 9}))[2]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with monkeypatch.context() as patched:
        patched.setattr(cli.click, "echo", lambda text, err=False: broken.append(text))
        broken: list[str] = []
        run("data", tmp_path / "a folder")
    assert max(map(len, whole.splitlines())) > 60
    assert all(len(line) <= 60 or " " not in line.strip() for line in broken[0].splitlines())
    assert " ".join(broken[0].split()) == " ".join(whole.split())
