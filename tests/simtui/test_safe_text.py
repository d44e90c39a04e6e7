"""The gate for strings from outside."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from simtui.safe_text import fitted, safe, short_names

HOSTILE = {
    "\x1b[31mred": "\\x1b[31mred",
    "a\x1b]0;title\x07b": "a\\x1b]0;title\\x07b",
    "two\nlines\tand tab": "two\\nlines\\tand tab",
    "evil\u202egnp.exe": "evil\\u202egnp.exe",
    "not utf-8 \udcff": "not utf-8 \\udcff",
    "[/] [@click=app.quit]x[/]": "[/] [@click=app.quit]x[/]",
    "\x9b31m": "\\x9b31m",
    "hérisson 漢字": "hérisson 漢字",
}


@pytest.mark.parametrize(("name", "shown"), HOSTILE.items())
def test_what_is_not_printable_is_shown_as_its_escape(name: str, shown: str) -> None:
    assert safe(name) == shown
    assert safe(name).isprintable()


@pytest.mark.parametrize("text", ["", "a", "block 1", "漢字漢字", "a very long name of a backbone"])
@pytest.mark.parametrize("width", [0, 1, 2, 3, 7, 40])
@pytest.mark.parametrize("align", ["left", "right", "center"])
def test_fitted_text_has_exactly_its_width(text: str, width: int, align: str) -> None:
    assert cell_len(fitted(text, width, align)) == width


def test_fitted_text_keeps_both_ends() -> None:
    assert fitted("vit_base_patch16_224.augreg", 11) == "vit_b…ugreg"
    assert fitted("ab", 4, "right") == "  ab"
    assert fitted("ab", 5, "center") == " ab  "


def test_names_lose_their_family_only_where_they_stay_different() -> None:
    assert short_names(["bundled:a", "timm:b"]) == {"bundled:a": "a", "timm:b": "b"}
    assert short_names(["timm:a", "open_clip:a"]) == {"timm:a": "timm:a", "open_clip:a": "open_clip:a"}
    assert short_names(["plain"]) == {"plain": "plain"}
