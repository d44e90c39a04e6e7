"""Says what is wrong with a study file in the words of someone who edits it; knows no setting by name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

from pydantic import ValidationError

from engine.errors import StudyError

Sections = Mapping[str, Any]
"""The name of each section of the file -> its dataclass; "" -> that of the whole file."""

# What pydantic puts into the place of an error for the branch of a union or the items of a tuple.
_BRANCHES = ("tuple", "literal[", "str", "constrained-str")


def explained(error: ValidationError, text: str, path: Path, sections: Sections) -> StudyError:
    """The first problem that pydantic found, in the words of someone who edits the file."""
    problem = error.errors()[0]
    steps = [step for step in problem["loc"] if not (isinstance(step, str) and step.startswith(_BRANCHES))]
    line = _line_of(text, steps)
    where = f"{path.name} line {line}" if line else path.name
    key = str(steps[-1]) if steps else ""
    dotted = ".".join(str(step) for step in steps)
    if problem["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        known = [each.name for each in fields(_section_of(steps[:-1], sections))]
        near = difflib.get_close_matches(key, known, 1)
        hint = f'; did you mean "{near[0]}"?' if near else f"; known here: {', '.join(known)}"
        return StudyError(where, f'unknown key "{key}"{hint}', "correct or remove the key")
    if problem["type"] == "missing" or problem["type"] == "missing_argument":
        return StudyError(
            path.name, f'"{dotted}" is missing', f"add {dotted} to the study file; the README has a complete example"
        )
    seen = problem.get("input")
    shown = f'"{seen}"' if isinstance(seen, str) else repr(seen)
    return StudyError(where, f"{dotted} = {shown}: {_need(problem, steps, sections)}", "correct the value")


def _need(problem: Any, steps: list[Any], sections: Sections) -> str:
    """What would have been right: `need an integer from 1`."""
    context = problem.get("ctx", {})
    match problem["type"]:
        case "int_type" | "int_parsing" | "int_from_float":
            return "need an integer" + _range_of(steps, sections)
        case "float_type":
            return "need a number" + _range_of(steps, sections)
        case "greater_than_equal":
            return f"need a number from {context['ge']}"
        case "greater_than":
            return f"need a number above {context['gt']:g}"
        case "less_than_equal":
            return f"need a number up to {context['le']}"
        case "less_than":
            return f"need a number below {context['lt']:g}"
        case "literal_error":
            near = difflib.get_close_matches(
                str(problem.get("input")), re.findall(r"'([^']+)'", context["expected"]), 1
            )
            hint = f'; did you mean "{near[0]}"?' if near else ""
            return f"need one of {context['expected']}{hint}"
        case "string_type":
            return "need a text in quotes"
        case "string_too_short":
            return "need at least one character"
        case "too_short":
            return "need at least one"
        case _:
            return str(problem["msg"]).replace("Input should be", "need").replace("valid ", "")


def _range_of(steps: list[Any], sections: Sections) -> str:
    """The bounds of a setting in words, from its declaration: ` from 1 up to 64`."""
    hint = get_type_hints(_section_of(steps[:-1], sections), include_extras=True).get(str(steps[-1]))
    words = ""
    for annotated in (hint, *get_args(hint)):
        for declared in getattr(annotated, "__metadata__", ()):
            for bound in declared.metadata:
                words += f" from {bound.ge}" if hasattr(bound, "ge") else ""
                words += f" up to {bound.le}" if hasattr(bound, "le") else ""
    return words


def _section_of(steps: list[Any], sections: Sections) -> Any:
    """The innermost section that the steps lead into."""
    names = [step for step in steps if isinstance(step, str)]
    inwards = (".".join(names[:n]) for n in range(len(names), 0, -1))
    return next((sections[name] for name in inwards if name in sections), sections[""])


def _line_of(text: str, steps: list[Any]) -> int | None:
    """The line of a key: the parser keeps no positions, so it is looked for below its section's header."""
    lines = text.splitlines()
    first = 0
    names = [step for step in steps if isinstance(step, str)]
    if len(names) > 2 and any(re.match(rf"\s*\[\s*{names[0]}\.{re.escape(names[1])}\s*\]", line) for line in lines):
        names = [".".join(names[:2]), *names[2:]]  # a section within a section
    if len(names) > 1:
        headers = [i for i, line in enumerate(lines) if re.match(rf"\s*\[+\s*{re.escape(names[0])}\b", line)]
        nth = next((step for step in steps if isinstance(step, int)), 0) if names[0] == "backbone" else 0
        if nth >= len(headers):
            return None
        first = headers[nth]
    key = names[1] if len(names) > 1 else names[0] if names else ""
    for i in range(first, len(lines)):
        if re.match(rf'\s*\[*\s*"?{re.escape(key)}"?\s*[=\]]', lines[i]):
            return i + 1
    return None
