"""The ground of every widget here: styled spans become strips, one line at a time; nothing parses markup.

What a role looks like is said in app.tcss, under `.role--<role>`, once for the whole app: component styles of each
widget would be as many more nodes for Textual to keep and to style.
"""

from __future__ import annotations

from collections.abc import Iterable

from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip
from textual.widget import Widget

from simtui.palette import on_light
from simtui.views.parts import Span


class Drawn(Widget):
    """Draws lines of spans, on its own background."""

    ALLOW_SELECT = False

    def __init__(self, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._looks: dict[tuple[str, str, str], Style] = {}
        self._ground: Style | None = None

    def notify_style_update(self) -> None:
        """A new theme: what was drawn in the old one is forgotten."""
        self._looks.clear()
        self._ground = None
        super().notify_style_update()

    @property
    def ground(self) -> Style:
        """What is where nothing is written; kept, because Textual works it out anew each time."""
        if self._ground is None:
            self._ground = self.rich_style
        return self._ground

    def look(self, role: str, color: str = "", ground: str = "") -> Style:
        """The style of a role, with its own colour or ground (`#rrggbb`) where one is given."""
        key = (role, color, ground)
        if key not in self._looks:
            style = self._role_style(role)
            color = color if self.app.current_theme.dark else on_light(color)
            self._looks[key] = style + Style(color=color or None, bgcolor=ground or None)
        return self._looks[key]

    def strip_of(self, spans: Iterable[Span], width: int) -> Strip:
        """A line of spans, cut or filled to `width`."""
        segments = [Segment(span.text, self.look(span.role, span.color)) for span in spans]
        return Strip(segments).adjust_cell_length(width, self.ground).simplify()

    def _role_style(self, role: str) -> Style:
        styles = self.app.get_component_styles(f"role--{role}")
        _, under = self.background_colors
        ground = under + styles.background
        color = ground.get_contrast_text(styles.color.a) if styles.auto_color else styles.color
        return Style.from_color((ground + color).rich_color, ground.rich_color) + styles.text_style
