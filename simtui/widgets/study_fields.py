"""The fields of a new study from top to bottom, with their labels; knows nothing of what is filled in."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.widget import Widget
from textual.widgets import Input

from engine.study import FinetuneSection
from simtui.views.parts import DIM, Span
from simtui.widgets.choices import Choices
from simtui.widgets.lines import Lines
from simtui.widgets.path_input import PathInput

_BETWEEN = {"epochs": "epochs", "batch": "batch size", "folder": "in", "weights": "weights"}


class StudyFields(Vertical):
    """Under them, what stands in the way of the start, and a panel about the field that has the keys."""

    def compose(self) -> ComposeResult:
        """A row a field."""
        for which in ("images", "origin"):
            yield _row(which, PathInput(id=which, suffixes=(".npz",) if which == "images" else ()))
            yield Lines(id=f"{which}-state", classes="state")
        yield _row("backbones", Choices(id="backbones"))
        weights = PathInput(id="weights", placeholder="optional: a file", suffixes=(".safetensors",))
        yield _row("other", _input("add", placeholder="timm:… or open_clip:…"), weights)
        yield _row("methods", Choices(id="methods", is_row=True))
        settings = {
            "seeds": FinetuneSection.seeds,
            "epochs": FinetuneSection.epochs,
            "batch": FinetuneSection.batch_size,
        }
        yield _row("seeds", *(_input(name, str(value)) for name, value in settings.items()))
        yield _row("name", _input("name"), PathInput(id="folder"))
        yield Choices(id="buttons", is_row=True)
        yield Lines(id="message")
        yield Lines(id="panel")

    def on_mount(self) -> None:
        """Writes the labels."""
        for label in self.query(".label, .between").results(Lines):
            name = (label.id or "").removesuffix("-label").removeprefix("row-")
            label.show([(Span(_BETWEEN[name] if label.has_class("between") else name, DIM),)])


def _input(name: str, value: str = "", placeholder: str = "") -> Input:
    return Input(value, id=name, placeholder=placeholder, compact=True, select_on_focus=False)


def _row(name: str, *fields: Widget) -> Horizontal:
    """The label of the row, then its fields; those after the first have labels of their own."""
    widgets: list[Widget] = [Lines(id=f"row-{name}-label", classes="label")]
    for i, field in enumerate(fields):
        widgets += [Lines(id=f"{field.id}-label", classes="between"), field] if i else [field]
    return Horizontal(*widgets, classes="row")
