"""Reads a pickled checkpoint and writes its tensors: `python -m engine.foreign.convert_child DIGESTS TARGET FILE …`.

The one place that calls `torch.load`, with `weights_only=True`, which was bypassed before (CVE-2025-32434,
CVE-2026-24747): so this process has little memory, and ends when anything in it tries to start a process, load a
library, remove a file or open a connection. Classes that a checkpoint names beside its tensors are never imported:
those of settings and plain numbers become empty stand-ins, all others are refused.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import resource
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from engine.foreign.convert import _MEMORY_EXIT, _PROBLEM_EXIT, _SAVE_AGAIN, FACTS

_SPARE_BYTES = 1 << 30
_CPU_S = 1800
_MAX_DEPTH = 8
_MAX_FACTS, _MAX_TEXT, _MAX_NUMBER = 200, 200, 1 << 53
_N_NAMES = 200  # classes that stand-ins take the place of
_TRAINING_STATE = re.compile(r"(optim|.*optimizer|.*scheduler|.*scaler|amp|loops|callbacks|.*rng).*", re.IGNORECASE)
_NUMBERS = re.compile(r"numpy\b.*|datetime\..*|pathlib\..*|decimal\.Decimal|fractions\.Fraction|uuid\.UUID")
_SETTINGS = re.compile(
    r"(argparse\.Namespace|types\.SimpleNamespace|collections\.defaultdict|__main__\..*|omegaconf\..*|yacs\..*|addict\..*"
    r"|ml_collections\..*|mmcv\..*|mmengine\..*|pytorch_lightning\..*|lightning\..*|lightning_fabric\..*|torchmetrics\..*"
    r"|transformers\..*config.*|transformers\.training_args.*|transformers\.trainer_utils\..*|typing\.Any"
    r"|builtins\.(int|float|str|bool|list|dict|tuple|frozenset|slice|range|bytes))"
)
_UNKNOWN = re.compile(r"GLOBAL (\S+) was not an allowed global")
_FORBIDDEN_EVENTS = (
    "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "subprocess.Popen", "pty.spawn",
    "socket.", "ctypes.dlopen", "os.remove", "os.rename", "os.rmdir", "os.chmod", "os.chown", "os.symlink", "os.link",
    "shutil.", "webbrowser.", "ftplib.", "urllib.",
)  # fmt: skip


class _ProblemError(Exception):
    """What the user is told of a file."""


class _Number:
    """Stands in for a number or a path of a library: keeps nothing."""

    def __new__(cls, *_arguments: object) -> _Number:
        return super().__new__(cls)

    def __setstate__(self, _state: object) -> None:
        """Forgets what it is given."""


class _Settings:
    """Stands in for a class of settings: what it would hold becomes a plain mapping."""

    def __new__(cls, *_arguments: object) -> Any:
        return OrderedDict()


def main(digests: str, target: Path, files: list[Path]) -> int:
    """Writes `target`; prints what is wrong with a file as JSON. Returns the exit code."""
    where = files[0]
    try:
        _limit(sum(path.stat().st_size for path in files))
        tensors: dict[str, Tensor] = {}
        facts: dict[str, int | float | str] = {}
        left_out: list[str] = []
        for path in files:
            where = path
            _collect(_load(path), "", tensors, facts, left_out)
        if not tensors:
            raise _ProblemError("holds no tensors by name; a whole model, or something else, was saved")
        said = {
            "sources": json.loads(digests),
            "facts": dict(list(facts.items())[:_MAX_FACTS]),
            "left_out": left_out[:_MAX_FACTS],
        }
        save_file(_storable(tensors), target, {FACTS: json.dumps(said)})
    except _ProblemError as problem:
        print(json.dumps({"where": str(where), "problem": str(problem), "fix": _SAVE_AGAIN}))
        return _PROBLEM_EXIT
    except MemoryError:
        return _MEMORY_EXIT
    except SafetensorError as error:
        sys.exit(str(error))
    return 0


def _limit(n_bytes: int) -> None:
    """What the libraries have mapped by now, the file once as it is and once more where it must be copied."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    address_space = pages * resource.getpagesize() + 3 * n_bytes + _SPARE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space))
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * n_bytes + (1 << 20),) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S, _CPU_S + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _forbid(event: str, _arguments: tuple[object, ...]) -> None:
    if event.startswith(_FORBIDDEN_EVENTS):
        os._exit(77)


def _load(path: Path) -> Any:
    """What was pickled, with stand-ins for the classes of settings."""
    is_zip = _check_archive(path)
    stand_ins: list[Any] = []
    for _ in range(_N_NAMES):
        try:
            with torch.serialization.safe_globals(stand_ins):
                return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
        except pickle.UnpicklingError as error:
            stand_ins.append(_stand_in(str(error)))
        except (RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError, OSError) as error:
            if "memory" in str(error).lower():  # torch's own words for it
                raise MemoryError from error
            problem = f"not readable as a checkpoint of torch ({' '.join(str(error).split())[:160]})"
            raise _ProblemError(problem) from error
    raise _ProblemError(f"names more than {_N_NAMES} classes beside its tensors")


def _check_archive(path: Path) -> bool:
    """Whether it is an archive, as torch writes since 1.6; one that unpacks to more than it is, is refused."""
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return False
    try:
        with zipfile.ZipFile(path) as archive:
            if any(entry.filename.endswith("constants.pkl") for entry in archive.infolist()):
                raise _ProblemError("is a TorchScript program, not weights")
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise _ProblemError("is a compressed archive, which torch does not write")
            damaged = archive.testzip()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError) as error:
        raise _ProblemError(f"is cut short, or damaged ({error})") from error
    if damaged:
        raise _ProblemError(f"is damaged: {damaged[-80:]} is not what was written")
    return True


def _stand_in(message: str) -> tuple[type, str]:
    found = _UNKNOWN.search(message)
    if found is None:
        reason = re.search(r"(Trying to load unsupported GLOBAL \S+|Unsupported operand \d+)", message)
        detail = f" ({reason[1]})" if reason else f" ({' '.join(message.split())[-120:]})"
        raise _ProblemError(f"is a pickle that does more than hold tensors{detail}; refused")
    name = found[1] if "." in found[1] else f"builtins.{found[1]}"  # torch shortens these
    if _NUMBERS.fullmatch(name):
        return _Number, name
    if _SETTINGS.fullmatch(name):
        return _Settings, name
    if name.startswith(("torch.nn.", "timm.", "torchvision.", "transformers.", "open_clip.", "torch.jit.")):
        raise _ProblemError(f"holds a whole model (it names {name[:100]}) in place of its weights")
    raise _ProblemError(f"is a pickle that needs {name[:100]}, which is neither tensors nor settings; refused")


def _collect(
    value: Any,
    name: str,
    tensors: dict[str, Tensor],
    facts: dict[str, int | float | str],
    left_out: list[str],
    parents: tuple[int, ...] = (),
) -> None:
    """Sorts what was pickled into tensors, facts and what is neither."""
    if isinstance(value, dict):
        for key, each in value.items():
            if not isinstance(key, str | int):
                continue
            inner = f"{name}.{key}" if name else str(key)
            if len(parents) > _MAX_DEPTH or id(each) in parents or (not name and _TRAINING_STATE.fullmatch(str(key))):
                left_out.append(inner[:_MAX_TEXT])
            else:
                _collect(each, inner, tensors, facts, left_out, (*parents, id(value)))
    elif isinstance(value, Tensor):
        if value.layout is not torch.strided or value.is_quantized or value.is_meta or value.is_complex():
            left_out.append(name[:_MAX_TEXT])
            return
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise _ProblemError(f"{name[:100]} claims {value.numel()} values and stores fewer")
        if name in tensors:
            raise _ProblemError(f"two tensors are named {name[:100]}")
        tensors[name] = value.detach()
    elif isinstance(value, str):
        facts[name[:_MAX_TEXT]] = value[:_MAX_TEXT]
    elif isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _MAX_NUMBER:
        facts[name[:_MAX_TEXT]] = value


def _storable(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Each with values of its own, in one piece: the format holds no views."""
    seen: set[int] = set()
    stored = {}
    for name, tensor in tensors.items():
        whole = tensor.is_contiguous() and tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
        start = tensor.untyped_storage().data_ptr()
        stored[name] = tensor if whole and start not in seen else tensor.clone(memory_format=torch.contiguous_format)
        seen.add(start)
    return stored


if __name__ == "__main__":
    sys.addaudithook(_forbid)
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), [Path(each) for each in sys.argv[3:]]))
