"""The command palette: Textual's own, mended where it breaks (seen in 8.2.8)."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.command import CommandList, CommandPalette

from simtui.screens.over import OverScreen


class Commands(CommandPalette, OverScreen[None]):
    """All actions by name. Its list is never so narrow that no character fits: `app.tcss`."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("pageup", "page('page_up')", show=False),
        Binding("pagedown", "page('page_down')", show=False),
    ]

    def action_page(self, which: str) -> None:
        """A page up or down; before the list has a place, `OptionList._move_page` breaks: it has no lines yet."""
        if self.query_one(CommandList).scrollable_content_region:
            self._action_command_list(which)
