"""Pickles as torch and timm write them, and such as would do harm."""

from __future__ import annotations

import argparse
import os
import pickle
import subprocess
import sys
import threading
import zipfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from engine.errors import MachineError, WeightsError
from engine.foreign.convert import convert

HARM = "harm-was-done"


class RunsCode:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {HARM}",)


def save(path: Path, value: Any, **how: Any) -> Path:
    torch.save(value, path, **how)
    return path


def test_training_checkpoint(tmp_path: Path) -> None:
    model = torch.nn.Linear(3, 2)
    optimiser = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    settings = argparse.Namespace(model="vit", where=[Path("/x")])
    value = {
        "state_dict": model.state_dict(), "epoch": 3, "arch": "vit", "metric": np.float64(0.5), "args": settings,
        "optimizer": optimiser.state_dict(), "by_name": defaultdict(list, {"a": torch.ones(1)}),
    }  # fmt: skip
    path = save(tmp_path / "checkpoint-3.pth.tar", value)
    before = path.read_bytes()
    made = convert([path], tmp_path / "new" / "w.safetensors")
    found = load_file(made.path)
    assert set(found) == {"state_dict.weight", "state_dict.bias", "by_name.a"}
    assert torch.equal(found["state_dict.weight"], model.weight)
    assert (made.facts["epoch"], made.facts["arch"], made.left_out) == (3, "vit", ("optimizer",))
    assert path.read_bytes() == before
    stamp = made.path.stat().st_mtime_ns
    assert convert([path], made.path) == made
    assert made.path.stat().st_mtime_ns == stamp  # the same files are not converted twice
    save(path, {"w": torch.ones(1)})
    assert set(load_file(convert([path], made.path).path)) == {"w"}


@pytest.mark.parametrize("as_archive", [True, False])
def test_values_survive_whatever_their_form(tmp_path: Path, as_archive: bool) -> None:
    w = torch.randn(4, 4)
    given = {
        "a": w,
        "same": w,
        "turned": w.t(),
        "part": w[1:],
        "half": w.half(),
        "bf16": w.bfloat16(),
        "n": torch.tensor(3),
    }
    path = save(tmp_path / "w.pth", given, _use_new_zipfile_serialization=as_archive)
    found = load_file(convert([path], tmp_path / "w.safetensors").path)
    assert set(found) == set(given)
    assert all(torch.equal(found[name], value) and found[name].dtype == value.dtype for name, value in given.items())


def test_shards(tmp_path: Path) -> None:
    paths = [save(tmp_path / f"{name}.bin", {name: torch.ones(2)}) for name in "ab"]
    assert set(load_file(convert(paths, tmp_path / "w.safetensors").path)) == {"a", "b"}
    with pytest.raises(WeightsError, match="two tensors are named a"):
        convert([paths[0], paths[0]], tmp_path / "w.safetensors")


def _cut(path: Path) -> None:
    save(path, {"a": torch.ones(1000)})
    path.write_bytes(path.read_bytes()[:-200])


def _flipped(path: Path) -> None:
    content = bytearray(save(path, {"a": torch.zeros(10_000)}).read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _bomb(path: Path) -> None:
    """100 MB of zeros in some 100 kB."""
    whole = save(path.with_suffix(".whole"), {"a": torch.zeros(25_000_000)})
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for entry in source.infolist():
            packed.writestr(entry.filename, source.read(entry))


def _whole_model(path: Path) -> None:
    save(path, torch.nn.Linear(2, 2))


def _program(path: Path) -> None:
    """What torch.jit.save leaves, as far as torch.load tells it."""
    save(path, {"a": torch.ones(1)})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{path.stem}/constants.pkl", b"")


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda path: save(path, {"a": RunsCode(), "w": torch.ones(1)}), "does more than hold tensors .*posix.system"),
        (lambda path: path.write_bytes(pickle.dumps({"a": RunsCode()}, 2)), "does more than hold tensors"),
        (lambda path: path.write_bytes(pickle.dumps(RunsCode(), 5)), "does more than hold tensors|not readable"),
        (lambda path: save(path, {"a": threading.Thread}), "needs threading.Thread, which is neither tensors nor"),
        (_whole_model, "holds a whole model .it names torch.nn.modules.linear.Linear"),
        (_program, "is a TorchScript program, not weights"),
        (_bomb, "is a compressed archive"),
        (_flipped, "is damaged: .* is not what was written"),
        (_cut, "is cut short, or damaged"),
        (lambda path: path.write_bytes(b""), "file is empty"),
        (lambda path: path.write_text("no pickle"), "not readable as a checkpoint of torch|does more than"),
        (lambda path: save(path, {"a": torch.ones(1).expand(10**12)}), "claims 1000000000000 values and stores fewer"),
        (lambda path: save(path, {"epoch": 3}), "holds no tensors by name"),
        (lambda path: save(path, [torch.ones(1)]), "holds no tensors by name"),
        (lambda path: None, "no such file"),
    ],
)  # fmt: skip
def test_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], Any], problem: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    make(tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=problem) as caught:
        convert([tmp_path / "w.pth"], tmp_path / "out" / "w.safetensors")
    assert caught.value.where == str(tmp_path / "w.pth")
    assert not (tmp_path / HARM).exists()
    assert not list(tmp_path.glob("out/*"))


def test_memory_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long list takes some hundred times the bytes that describe it."""
    path = tmp_path / "w.pth"
    path.write_bytes(b"\x80\x02" + b"]" * 40_000_000 + b".")
    with pytest.raises((WeightsError, MachineError), match=r"more memory|ended with code"):
        convert([path], tmp_path / "w.safetensors")


def test_stopped_and_too_slow(tmp_path: Path) -> None:
    path = save(tmp_path / "w.pth", {"a": torch.ones(1)})
    stop = threading.Event()
    stop.set()
    with pytest.raises(MachineError, match="was not waited for"):
        convert([path], tmp_path / "w.safetensors", stop=stop)
    with pytest.raises(MachineError, match="takes longer than 0 s"):
        convert([path], tmp_path / "w.safetensors", timeout_s=0.0)
    assert [each.name for each in tmp_path.iterdir()] == ["w.pth"]


def test_the_child_may_start_nothing(tmp_path: Path) -> None:
    """Even where a pickle got its code to run."""
    code = (
        "import os, sys; from engine.foreign.convert_child import _forbid; sys.addaudithook(_forbid); "
        f"os.system('touch {HARM}')"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment)
    assert done.returncode == 77
    assert not (tmp_path / HARM).exists()


def test_the_parent_loads_no_torch() -> None:
    code = "import sys, engine.foreign.convert, engine.foreign.find; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
