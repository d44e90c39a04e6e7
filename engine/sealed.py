"""Owns small text files that prove themselves: their first line holds the SHA-256 of all that follows.

A single flipped bit, a lost end or a change by hand shows before anything of the file is believed.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from engine.errors import DamagedError
from engine.files import atomic_write, read_small

_JSON_HEAD = re.compile(rb'\{"sha256": "([0-9a-f]{64})",')
_COMMENT_WORDS = b"# frozen by simtui; sha256 of what follows: "
_COMMENT_HEAD = re.compile(_COMMENT_WORDS + rb"([0-9a-f]{64})\n")


def write_sealed_json(path: Path, value: dict[str, Any]) -> None:
    """Writes a JSON object, whole, with its digest as the first key; ASCII, so that any file name survives."""
    rest = json.dumps(value, indent=1, allow_nan=False)[1:] + "\n"
    atomic_write(path, f'{{"sha256": "{_sha256(rest.encode())}",{rest}')


def read_sealed_json(path: Path, remake: str, *, sealed_since: int = 0) -> dict[str, Any]:
    """Reads what `write_sealed_json` wrote.

    Args:
        remake: what the user does if the file is damaged, for the error.
        sealed_since: the schema from which files have a digest; older ones are read without.
    Raises:
        DamagedError: missing, changed since it was written, or not a JSON object.
    """
    try:
        content = read_small(path)
        head = _JSON_HEAD.match(content)
        if head and _sha256(content[head.end() :]) != head[1].decode():
            raise DamagedError(str(path), "its digest does not match: changed since it was written", remake)
        value = json.loads(content)
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedError(str(path), f"not readable as JSON ({error})", remake) from error
    if not isinstance(value, dict):
        raise DamagedError(str(path), f"holds a {type(value).__name__}; need an object", remake)
    if head is None and not _is_older(value.get("schema"), sealed_since):
        raise DamagedError(str(path), "has no digest", remake)
    value.pop("sha256", None)
    return value


def sealed_comment(text: str) -> str:
    """The text behind a comment line (`#`) with its digest."""
    return f"{_COMMENT_WORDS.decode()}{_sha256(text.encode())}\n{text}"


def is_changed(content: bytes) -> bool:
    """Whether content that begins with `sealed_comment`'s line is no longer what it was; without one, it never is."""
    head = _COMMENT_HEAD.match(content)
    if head is None:
        # That line itself, changed: either its words or its digits are still whole.
        first = content.partition(b"\n")[0]
        return first.startswith(_COMMENT_WORDS) or re.search(rb"[0-9a-f]{64}$", first) is not None
    return _sha256(content[head.end() :]) != head[1].decode()


def _is_older(schema: object, sealed_since: int) -> bool:
    return isinstance(schema, int) and not isinstance(schema, bool) and schema < sealed_since


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
