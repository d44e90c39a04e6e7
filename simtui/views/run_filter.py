"""Owns the language of the filter of runs: words that must all hold, or what is wrong with them; draws nothing.

    full                       backbone, method, dataset, state, paradigm or seed contains it, in whatever letters
    method:full,linear         that field contains one of these; a seed is one of them
    backbone="a name"          that field is it, as a whole
    -method:scratch            not
    acc>0.8  cka_feat<=0.5     a figure of the run; what is equal is equal in the three decimals that are shown

A run without the figure does not match. What is still being typed is told from what is wrong.
"""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass

from simtui.views.run_facts import BACKBONE, EPOCH, METHOD, SEED, STATE, WORD_FIELDS, Facts, KnownRuns, plain

EXAMPLE = "full acc>0.8 -state:failed"
_Test = Callable[[Facts], bool]
_SHOWN_DECIMALS = 3
_LARGEST_FIELD = 40  # characters of a wrong word that a message repeats
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "=": lambda value, wanted: round(value, _SHOWN_DECIMALS) == round(wanted, _SHOWN_DECIMALS),
    "!=": lambda value, wanted: round(value, _SHOWN_DECIMALS) != round(wanted, _SHOWN_DECIMALS),
}
_WHOLE = ("=", "==", "!=")
_OPERATOR = r">=|<=|!=|==|=|>|<"
_TERM = re.compile(rf"(-?)([^\W\d]\w*)(:|{_OPERATOR})(.*)", re.DOTALL)
_VALUE = re.compile(r'\s*("[^"]*"|[^,"]*)\s*(?:,|$)')
_EXAMPLES = {METHOD: "full", STATE: "done", SEED: "0", EPOCH: "5", "ece": "0.1"}


@dataclass(frozen=True)
class Filter:
    """Which runs are shown: those for which all tests hold."""

    text: str = ""
    tests: tuple[_Test, ...] = ()

    def holds(self, run: Facts) -> bool:
        """Whether a run is shown."""
        return all(test(run) for test in self.tests)


@dataclass(frozen=True)
class Problem:
    """Why a text is no filter, with what mends it, in one line; `is_unfinished` where more typing may mend it."""

    says: str
    is_unfinished: bool = False


def read_filter(text: str, known: KnownRuns) -> Filter | Problem:
    """The filter that is written, or the first thing wrong with it."""
    if text.count('"') % 2:
        return Problem('close the quote: backbone="a name"', is_unfinished=True)
    words = _words(text)
    tests: list[_Test] = []
    for word in words:
        is_last = word is words[-1] and not text[-1:].isspace()
        found = _test_of(word, known, is_last)
        if isinstance(found, Problem):
            return found
        tests.append(found)
    return Filter(text.strip(), tuple(tests))


def in_force(text: str, last: str, known: KnownRuns) -> str:
    """The filter while a text is typed: the text itself, or the last one where it cannot be read.

    Where that last one ends in the first letters of the word that cannot be read, it is used without them: `a` and `ac`
    say nothing of a run when `acc>` is on its way.
    """
    found = read_filter(text, known)
    if isinstance(found, Filter):
        return found.text
    *before, word = _words(text)
    *last_before, last_word = _words(last) or [""]
    is_beginning = last_before == before and _TERM.fullmatch(last_word) is None and word.startswith(last_word)
    return " ".join(before) if is_beginning else last


def exactly(field: str, name: str) -> str:
    """The word that stands for the runs with this name as a whole."""
    return f"{field}={_quoted(name)}"


def _quoted(name: str) -> str:
    """In quotes where it needs them."""
    word = plain(name)
    return word if re.fullmatch(r"[^\s,<>=!]+", word) else f'"{word}"'


def _words(text: str) -> list[str]:
    """Split at spaces, but not in quotes nor around an operator: `acc > 0.8` is one word."""
    parts = re.split(r'("[^"]*")', text)
    parts[::2] = [re.sub(rf"\s*({_OPERATOR})\s*", r"\1", part) for part in parts[::2]]
    return re.findall(r'(?:[^\s"]|"[^"]*")+', "".join(parts))


def _test_of(word: str, known: KnownRuns, is_last: bool) -> _Test | Problem:
    parts = _TERM.fullmatch(word)
    if parts is None:
        return _bare(word, known, is_last)
    sign, name, sign_or_colon, value = parts.groups()
    field, is_not = name.casefold(), bool(sign)
    if field in WORD_FIELDS and (sign_or_colon == ":" or (sign_or_colon in _WHOLE and field != SEED)):
        return _on_word(field, sign_or_colon, value, is_not, known)
    if field in known.figures:
        return _on_figure(field, sign_or_colon, value, is_not, known)
    if field in WORD_FIELDS:
        return Problem(f"{field} is no figure: write {field}:{value or _example(field, known)}")
    if _is_in_some(word.removeprefix("-"), known):  # a name with a colon in it, such as timm:vit_base
        return _bare(word, known, is_last)
    return _unknown(name, sign_or_colon, value, known)


def _bare(word: str, known: KnownRuns, is_last: bool) -> _Test | Problem:
    wanted = word.removeprefix("-").replace('"', "").casefold()
    if not wanted:
        return Problem(f"after - comes what to leave out: -{METHOD}:scratch", is_unfinished=True)
    if is_last and not _is_in_some(wanted, known):
        field = next((name for name in (*WORD_FIELDS, *known.figures) if name.startswith(wanted)), None)
        if field:
            return Problem(f"go on: {_usage(field, known)}", is_unfinished=True)
    if word.startswith("-"):
        return lambda run: wanted not in run.text
    return lambda run: wanted in run.text


def _on_word(field: str, sign: str, value: str, is_not: bool, known: KnownRuns) -> _Test | Problem:
    wanted = [each.casefold() for each in _values(value)]
    if not wanted:
        return Problem(f"which {field}? such as {_usage(field, known)}", is_unfinished=True)
    is_whole = sign != ":" or field == SEED
    is_not ^= sign == "!="

    def test(run: Facts) -> bool:
        word = run.words.get(field)
        if word is None:
            return False
        found = word in wanted if is_whole else any(each in word for each in wanted)
        return found != is_not

    return test


def _on_figure(field: str, sign: str, value: str, is_not: bool, known: KnownRuns) -> _Test | Problem:
    sign = "=" if sign == "==" else sign
    number = _number(value)
    if sign == ":":
        return Problem(f"{field} is a figure: write {field}>{value if number is not None else 0.8}", not value)
    if number is None:
        example = f"{field}{sign}{_example(field, known)}"
        return Problem(f"a number comes after {field}{sign}, such as {example}", value in ("", "-", ".", "+"))
    if is_not:
        return Problem(f"no - before a figure: turn the sign, as in {field}<={value}")
    metric, compare = known.figures[field], _COMPARE[sign]

    def test(run: Facts) -> bool:
        found = run.figure(metric)
        return found is not None and compare(found, number)

    return test


def _values(text: str) -> list[str]:
    """What commas separate, quotes aside; empty ones do not count."""
    found = (match.group(1).strip().strip('"') for match in _VALUE.finditer(text))
    return [each for each in found if each]


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _is_in_some(word: str, known: KnownRuns) -> bool:
    return any(word.casefold() in run.text for run in known.runs)


def _unknown(name: str, sign: str, value: str, known: KnownRuns) -> Problem:
    """The nearest field, asked what was asked, or some that there are."""
    shown = name if len(name) <= _LARGEST_FIELD else f"{name[:_LARGEST_FIELD]}…"
    near = difflib.get_close_matches(name.casefold(), [*WORD_FIELDS, *known.figures], 1, cutoff=0.5)
    if near:
        is_word, is_colon = near[0] in WORD_FIELDS, sign == ":"
        asked = f"{near[0]}{sign}{value}" if value and is_word == is_colon else _usage(near[0], known)
        return Problem(f"no field {shown}; did you mean {asked[:_LARGEST_FIELD]}?")
    return Problem(f"no field {shown}; try {next(iter(known.figures))}, ece, knn, {METHOD}, {BACKBONE} …")


def _usage(field: str, known: KnownRuns) -> str:
    is_word = field in WORD_FIELDS
    return f"{field}{':' if is_word else '>'}{_example(field, known)}"


def _example(field: str, known: KnownRuns) -> str:
    """A value that the field could have in this study."""
    if field in WORD_FIELDS:
        words = (run.words.get(field) for run in known.runs)
        name = next((word for word in words if word), "") or _EXAMPLES.get(field, "name")
        return _EXAMPLES.get(field) or name.rpartition(":")[2]
    return _EXAMPLES.get(field, "0.8")
