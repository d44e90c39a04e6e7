"""What the views of an analysis of all runs share: which similarity, layer and groups they look at, and their frame."""

from __future__ import annotations

from engine.analysis.options import BY, MEAN_OF_LAYERS
from engine.analysis.study_data import StudyData
from engine.errors import SimtuiError
from simtui.analyses import Found
from simtui.safe_text import safe
from simtui.screens.view import ViewScreen
from simtui.selection import Selection, after
from simtui.views.parts import WARN, Span, wrapped

# A filter on figures would move the best run, which accuracy divergence is measured from, and cut short distributions.
_NOT_FILTERED = "Of all runs, unfiltered."


def unfiltered(summary: str, selection: Selection) -> str:
    """The summary of an analysis, which is of all runs, and says so where those of the runs view are filtered."""
    return f"{_NOT_FILTERED} {summary}" if selection.run_filter else summary


class AnalysisScreen(ViewScreen):
    """A view of all runs; a subclass draws what the engine found (`show_found`)."""

    def show_found(self, found: Found) -> str | None:
        """Fills the widgets from what the engine found; as `show_data`."""
        raise NotImplementedError

    def show_data(self) -> str | None:
        """What the engine found, or why it found nothing."""
        found = self.simtui.found(self.slot)
        if found is None:
            return None if self.has_shown else self.nothing("reading …")
        self.has_shown = False
        if isinstance(found.value, SimtuiError):
            return self.failed(found.value)
        if not found.data.runs and found.data.unreadable:
            return self.failed(found.data.unreadable[0].error)
        summary = self.show_found(found)
        self.has_shown = bool(summary)
        return summary and unfiltered(summary, self.simtui.selection)

    has_shown = False

    def show_warnings(self, warnings: tuple[str, ...]) -> None:
        """The lines without which the figures could mislead; at most two."""
        lines = [line for each in warnings for line in wrapped(f"! {safe(each)}", self.size.width - 2, 2, WARN)][:3]
        self.lines("warning").set_class(bool(lines), "-shown")
        self.lines("warning").styles.height = max(len(lines), 1)
        self.lines("warning").show([(Span(" "), *each) for each in lines])

    @property
    def data(self) -> StudyData | None:
        """The data behind what is shown."""
        found = self.simtui.found(self.slot)
        return found.data if found else None

    def action_step_layer(self, step: int) -> None:
        """The next layer; before the first one stands the mean of all."""
        if self.data and self.data.layers:
            layers = [MEAN_OF_LAYERS, *self.data.layers]
            self.simtui.select(layer=after(layers, self.simtui.selection.layer, step))

    def action_pooling(self) -> None:
        """The next pooling."""
        self._step_key("pooling")

    def action_measure(self) -> None:
        """The next measure."""
        self._step_key("measure")

    def action_probe(self) -> None:
        """The images of the other domain."""
        known = self._step_key("probe")
        if len(known) == 1:
            self.simtui.notify("this study compares no origin images: set probe.origin_n", markup=False)

    def action_group(self) -> None:
        """Other groups of runs."""
        self.simtui.select(by=after(BY, self.simtui.selection.by))

    def _step_key(self, field: str) -> list[str]:
        known = list(dict.fromkeys(str(getattr(key, field)) for key in self.data.keys)) if self.data else []
        if known:
            self.simtui.select(**{field: after(known, str(getattr(self.simtui.key, field)))})
        return known
