"""The commands as a user types them: what they print, what they refuse, and with which exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from engine.jobs.launch import make_study_folder
from engine.runs.record import RunRecord, write_record
from engine.study import freeze_study, load_study, run_specs
from tests.engine.analysis.test_tables import folder  # noqa: F401
from tests.studies import write_study


def simtui(*arguments: object, **settings: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "simtui", *map(str, arguments)]
    environment = {**os.environ, **settings}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, env=environment, timeout=300
    )


def test_help_has_examples_for_every_command() -> None:
    assert "simtui demo" in simtui("--help").stdout
    for command in ("run", "status", "stop", "export", "verify", "clean", "demo", "doctor"):
        done = simtui(command, "--help")
        assert (done.returncode, "Examples:" in done.stdout) == (0, True), command


def test_what_is_wrong_is_said_in_two_lines_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text('[study]\nname = "x"\nkepe = "all"\n')
    for arguments, code, words in (
        (("run", tmp_path / "none.toml"), 2, "no such study file"),
        (("run", tmp_path / "bad.toml"), 2, 'bad.toml line 3: unknown key "kepe"; did you mean "keep"?'),
        (("status", tmp_path), 2, "not a study folder"),
        (("export", tmp_path, "runs"), 2, "not a study folder"),
        (("nonsense",), 2, "No such command"),
        ((tmp_path,), 2, "not a study folder"),
    ):
        done = simtui(*arguments)
        assert (done.returncode, words in done.stderr, "Traceback" in done.stderr) == (code, True, False), done.stderr


def test_without_a_terminal_the_app_says_what_to_use_instead(folder: object, tmp_path: Path) -> None:  # noqa: F811
    done = simtui(tmp_path)
    assert done.returncode == 2
    assert 'needs a terminal; use "simtui export"' in done.stderr


def test_export_prints_or_writes_csv_and_keeps_notes_apart(folder: object, tmp_path: Path) -> None:  # noqa: F811
    printed = simtui("export", tmp_path, "forgetting")
    assert printed.returncode == 0
    assert printed.stdout.startswith("backbone,paradigm,method,n_seeds,")
    assert "k-NN" in printed.stderr
    target = tmp_path / "new" / "t.csv"
    assert simtui("export", tmp_path, "forgetting", "-o", target).returncode == 0
    assert target.read_text() == printed.stdout
    assert simtui("export", tmp_path, "heatmap", "--run", "full_seed00", "--epoch", 7).returncode == 2


def test_an_export_that_is_killed_leaves_the_old_file(folder: object, tmp_path: Path) -> None:  # noqa: F811
    target = tmp_path / "t.csv"
    target.write_text("old")
    for step in ("begin", "written", "synced"):
        done = simtui("export", tmp_path, "forgetting", "-o", target, SIMTUI_FAULT=f"*/t.csv:{step}")
        assert (done.returncode, target.read_text()) == (-9, "old")
    assert simtui("export", tmp_path, "forgetting", "-o", target, SIMTUI_FAULT="*/t.csv:renamed").returncode == -9
    assert target.read_text() == simtui("export", tmp_path, "forgetting").stdout


def test_verify_names_what_is_damaged_and_exits_with_3(folder: object, tmp_path: Path) -> None:  # noqa: F811
    path = next(tmp_path.glob("runs/*/run.json"))
    path.write_text(path.read_text().replace("done", "gone"))
    done = simtui("verify", tmp_path)
    assert done.returncode == 3
    assert f"{path.relative_to(tmp_path)}: " in done.stdout and "digest does not match" in done.stdout
    assert f"fix: rm -r {path.parent} && simtui run {tmp_path}" in done.stdout


def test_clean_asks_lists_and_knows_its_kinds(folder: object, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "runs" / "x.tmp-1").write_text("left over")
    refused = simtui("clean", tmp_path, "--also", "imges")
    assert refused.returncode == 2 and "choose from: leftovers" in refused.stderr
    asked = simtui("clean", tmp_path)
    assert asked.returncode == 130 and "leftovers" in asked.stdout and (tmp_path / "runs" / "x.tmp-1").exists()
    assert simtui("clean", tmp_path, "--yes").stdout.splitlines()[-1].startswith("Freed ")
    assert simtui("clean", tmp_path, "--yes").stdout == "Nothing can be freed.\n"


def test_the_folder_of_a_study_file_is_not_taken_for_a_study(tmp_path: Path) -> None:
    request = write_study(tmp_path)
    for command in ("status", "verify", "clean", "stop", "run"):
        done = simtui(command, tmp_path)
        assert done.returncode == 2 and "no study has been run in it" in done.stderr, command
        assert f'fix: start it: "simtui run {request}"' in done.stderr
    (tmp_path / "studies" / "tiny" / "runs").mkdir(parents=True)
    assert f"fix: give {tmp_path / 'studies' / 'tiny'}" in simtui("verify", tmp_path).stderr


def test_a_frozen_study_that_was_changed_is_not_started(folder: object, tmp_path: Path) -> None:  # noqa: F811
    path = tmp_path / "study.toml"
    path.write_text(freeze_study(load_study(path)).replace("epochs = ", "epochs = 1"))
    done = simtui("run", tmp_path)
    assert done.returncode == 3 and "changed since it was frozen" in done.stderr and not done.stdout
    assert simtui("verify", tmp_path).returncode == 3


def test_what_stops_a_study_at_its_start_is_said_at_once(tmp_path: Path) -> None:
    request = write_study(tmp_path, methods=["linear"])
    out = tmp_path / "out"
    make_study_folder(load_study(request), out)
    run_id = run_specs(load_study(request))[0].run_id
    other = replace(run_specs(load_study(request))[0], probe_n=5)
    write_record(out / "runs" / run_id, RunRecord(run_id, other))
    done = simtui("run", request, "--out", out)
    assert done.returncode == 2 and "probe_n: is 6, but the run was started with 5" in done.stderr


def test_an_executor_is_kept_in_the_study_folder_and_can_be_another_later(tmp_path: Path) -> None:
    request, out = write_study(tmp_path, methods=["linear"]), tmp_path / "out"
    done = simtui("run", request, "--out", out, "--executor", "slurm", "--wait", PATH="/nowhere")  # without sbatch
    assert done.returncode == 4 and 'executor.kind = "slurm"' in done.stderr and "fix: " in done.stderr
    assert load_study(out / "study.toml").executor.kind == "slurm"
    done = simtui("run", out, "--executor", "local", "--wait")
    assert done.returncode == 0 and "1 of 1 runs done" in done.stderr
    assert load_study(out / "study.toml").executor.kind == "local"


def test_devices_per_run_are_kept_in_the_study_folder_and_can_be_others_later(tmp_path: Path) -> None:
    request, out = write_study(tmp_path, methods=["full"]), tmp_path / "out"
    request.write_text(request.read_text() + '[executor]\nkind = "slurm"\ngpus = 4\n')
    done = simtui("run", request, "--out", out, "--devices-per-run", "2")
    assert done.returncode == 2 and "executor.gpus = 4 is what slurm gives each run" in done.stderr
    assert not out.exists()
    for words in ([request, "--out", out, "--devices-per-run", "4"], [out, "--devices-per-run", "1"]):
        done = simtui("run", *words, "--wait", PATH="/nowhere")  # without sbatch
        assert done.returncode == 4
        assert load_study(out / "study.toml").machine.devices_per_run == int(words[-1])


def test_status_shows_every_run(folder: object, tmp_path: Path) -> None:  # noqa: F811
    done = simtui("status", tmp_path, COLUMNS="160")
    assert "3 of 4 runs done, not running" in done.stdout
    assert done.stdout.count("bundled-supervised_") == 4


def test_stop_of_a_study_that_does_not_run_says_so(folder: object, tmp_path: Path) -> None:  # noqa: F811
    assert "It is not running." in simtui("stop", tmp_path).stdout


@pytest.mark.parametrize("failure", ["images", "weights"])
def test_a_study_that_cannot_start_says_why_and_nothing_is_lost(tmp_path: Path, failure: str) -> None:
    study = write_study(tmp_path)
    if failure == "images":
        (tmp_path / "images").rename(tmp_path / "elsewhere")
    else:
        (tmp_path / "w.safetensors").write_bytes(b"\x80\x04")
    done = simtui("run", study, "--out", tmp_path / "out", "--wait")
    assert done.returncode in (2, 3), done.stderr
    assert "fix: " in done.stderr and "Traceback" not in done.stderr
    assert failure[:5] in done.stderr or "w.safetensors" in done.stderr


def test_a_folder_that_holds_something_else_is_not_touched(tmp_path: Path) -> None:
    study = write_study(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years")
    done = simtui("run", study, "--out", tmp_path / "out")
    assert (done.returncode, "exists and is not a study folder" in done.stderr) == (2, True)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.tex"]


def test_an_option_that_a_table_does_not_go_by_is_refused(study: Path) -> None:
    done = simtui("export", study, "space", "--run", "full", "--eta", "0.5")
    assert done.returncode == 2
    assert "--run: does not apply to the table space" in done.stderr
    assert "fix: leave it out; it takes --layer, --pooling" in done.stderr
