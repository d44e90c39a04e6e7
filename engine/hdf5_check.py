"""Reads HDF5 files of others to their end and says what is wrong with each.

`python -m engine.hdf5_check BYTES SECONDS FILE …`

Runs in a process of its own with little memory (`engine.vetting`): a file that crashes its reader crashes this one.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

from engine.errors import DamagedError
from engine.hdf5 import open_unvetted


def problem_of(path: Path) -> str:
    """What is wrong with a file; empty where every array and text can be read."""
    try:
        with open_unvetted(path, "") as file:
            file.read_everything()
    except DamagedError as error:
        return f"{error.where.removeprefix(str(path)).lstrip(':')} {error.problem}".strip()
    except MemoryError:
        return "needs more memory than its size explains: refused"
    except RecursionError:
        return "is nested too deeply: refused"
    return ""


def main(arguments: list[str]) -> int:
    """Takes no more than so much memory and time; prints one JSON line before each file and one after it."""
    memory_bytes, limit_s = int(arguments[0]), int(arguments[1])
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (limit_s, limit_s + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for argument in arguments[2:]:
        print(json.dumps({"path": argument, "problem": "begun"}), flush=True)
        print(json.dumps({"path": argument, "problem": problem_of(Path(argument))}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
