"""Owns in which order rows stand: a column, a direction, and what follows from keys and clicks; knows no table."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from simtui.views.parts import Column

T = TypeVar("T")
Value = str | int | float | None
ASCENDING, DESCENDING = "▲", "▼"


@dataclass(frozen=True)
class Order:
    """Sorted by the column of that title; without one, rows stand in the order of the study."""

    column: str = ""
    is_descending: bool = False

    @property
    def mark(self) -> str:
        """What stands beside the title."""
        return DESCENDING if self.is_descending else ASCENDING

    def stepped(self, titles: Sequence[str], step: int) -> Order:
        """By the next of these columns; after the last comes the order of the study again."""
        places = ["", *titles]
        place = places.index(self.column) if self.column in places else 0
        column = places[(place + step) % len(places)]
        return Order(column, self.is_descending and column != "")

    def reversed(self) -> Order:
        """The other direction; the order of the study has none."""
        return replace(self, is_descending=not self.is_descending) if self.column else self

    def chosen(self, column: str) -> Order:
        """By this column; the other way round where it is chosen again."""
        return self.reversed() if column == self.column else Order(column)


STUDY_ORDER = Order()


def in_order(items: Sequence[T], value: Callable[[T], Value], is_descending: bool) -> tuple[T, ...]:
    """Items by their full values; ties keep their order, and what has no value comes last in either direction."""
    valued = [(value(item), item) for item in items]
    there = [pair for pair in valued if not is_missing(pair[0])]
    there.sort(key=lambda pair: pair[0], reverse=is_descending)  # type: ignore[arg-type, return-value]
    return (*(item for _, item in there), *(item for found, item in valued if is_missing(found)))


def is_missing(value: Value) -> bool:
    """Whether there is no figure: none was measured, or it is not a number."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def marked(columns: Sequence[Column], order: Order) -> tuple[Column, ...]:
    """The columns with the mark of the order at its title."""
    return tuple(replace(each, mark=order.mark) if each.title == order.column else each for each in columns)
