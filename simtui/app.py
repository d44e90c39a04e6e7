"""The app: holds what all views share, switches between them, and passes on what the reader finds."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from textual import work
from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.screen import Screen
from textual.theme import Theme

from engine.analysis.options import TableOptions
from engine.analysis.table import Table
from engine.errors import SimtuiError
from engine.runs.results import SimilarityKey
from engine.runs.study_folder import StudyFolder
from engine.sources import write_sources
from simtui.actions import (
    ATTENTION,
    CORRELATION,
    DISTRIBUTIONS,
    FORGETTING,
    GROUPED,
    MAP,
    RUNS,
    SPACE,
    TRAJECTORIES,
    actions_of,
)
from simtui.analyses import ANALYSES, Found
from simtui.exporting import export_csv, name_of
from simtui.lookalikes import use_lookalikes
from simtui.palette import is_colorless
from simtui.reader import (
    Answer,
    AttentionQuestion,
    Broken,
    News,
    Question,
    Reader,
    RunQuestion,
    Snapshot,
    StudyQuestion,
)
from simtui.safe_text import safe
from simtui.screens.attention import AttentionScreen
from simtui.screens.correlation import CorrelationScreen
from simtui.screens.curves import TrajectoriesScreen
from simtui.screens.distributions import DistributionsScreen
from simtui.screens.forgetting import ForgettingScreen
from simtui.screens.help import HelpScreen
from simtui.screens.layer_map import MapScreen
from simtui.screens.runs import RunsScreen
from simtui.screens.space import SpaceScreen
from simtui.screens.view import ViewScreen
from simtui.selection import Selection
from simtui.terminal_output import crop_dirty_regions

_DARK = Theme(
    name="simtui",
    primary="#56b4e9",
    accent="#56b4e9",
    success="#5fbf8f",
    warning="#e6a23c",
    error="#ef6b6b",
    foreground="#d7dce5",
    # Nearly grey: a bluish dark has no neighbour among 256 colours but black.
    background="#121417",
    surface="#1f2227",
    panel="#2a2e35",
    dark=True,
)
_SCREENS: dict[str, type[ViewScreen]] = {
    RUNS: RunsScreen,
    MAP: MapScreen,
    TRAJECTORIES: TrajectoriesScreen,
    SPACE: SpaceScreen,
    DISTRIBUTIONS: DistributionsScreen,
    CORRELATION: CorrelationScreen,
    FORGETTING: ForgettingScreen,
    ATTENTION: AttentionScreen,
}


def _slot_of(question: Question) -> str:
    """Which view asks a question."""
    if isinstance(question, StudyQuestion):
        return question.view
    return MAP if isinstance(question, RunQuestion) else ATTENTION


class ReaderNews(Message):
    """Something that the reader has found."""

    def __init__(self, news: News) -> None:
        super().__init__()
        self.news = news


class SimtuiApp(App[None]):
    """Shows one of several studies.

    Args:
        studies: study folders; the first is shown, a key turns to the next.
    """

    CSS_PATH = Path(__file__).with_name("app.tcss")
    TITLE = "simtui"
    ENABLE_COMMAND_PALETTE = True
    COMMAND_PALETTE_BINDING = "ctrl+p"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("ctrl+q", "quit", show=False, priority=True)]

    def __init__(self, studies: Sequence[Path], poll_s: float = 1.0) -> None:
        super().__init__()
        crop_dirty_regions()
        use_lookalikes()
        self.register_theme(_DARK)
        self.theme = "simtui"
        self.selection = Selection()
        self.snapshot: Snapshot | None = None
        self.is_colorless = is_colorless(os.environ, sys.__stderr__.encoding if sys.__stderr__ else "utf-8")
        self._studies, self._study_index = tuple(studies), 0
        self._answers: dict[str, Answer] = {}
        self._reader = Reader(self._studies, lambda news: self.post_message(ReaderNews(news)), poll_s)
        self._known_keys: tuple[SimilarityKey, ...] = ()
        self._view = RUNS

    @property
    def is_256(self) -> bool:
        """Whether the terminal has 256 colours and no more, as it is over SSH."""
        return self.console.color_system not in (None, "truecolor")

    @property
    def study_title(self) -> tuple[str, str]:
        """The study's name, and what must stay when the name is cut: which of several it is, that it is synthetic."""
        name = self.snapshot.name if self.snapshot else self._studies[self._study_index].name
        place = f" ({self._study_index + 1}/{len(self._studies)})" if len(self._studies) > 1 else ""
        is_synthetic = self.snapshot is not None and any(each.is_synthetic for each in self.snapshot.records)
        return safe(name), place + (" · synthetic" if is_synthetic else "")

    def on_mount(self) -> None:
        """Opens the first view; what it shows comes from the reader."""
        for view, screen in _SCREENS.items():
            self.install_screen(screen(), view)
        self.push_screen(RUNS)
        self._reader.start()

    def on_unmount(self) -> None:
        """Ends the reader."""
        self._reader.stop()

    def select(self, **changes: Any) -> None:
        """Looks at something else; the view in front follows."""
        self.selection = replace(self.selection, **changes)
        self.show()

    def show(self) -> None:
        """Asks the reader for what the view in front needs, and brings it up to date with what is there."""
        view = self.get_screen(self._view)
        wanted = view.slot if isinstance(view, ViewScreen) else ""
        for slot in (MAP, ATTENTION, *ANALYSES):
            self._reader.watch(slot, self._question(slot) if slot == wanted else None)
        if isinstance(self.screen, ViewScreen):
            self.screen.show()

    def shown_run_id(self) -> str | None:
        """The selected run, or the first."""
        if self.selection.run_id or self.snapshot is None:
            return self.selection.run_id
        run_ids = [each.run_id for each in self.snapshot.records] + [each.run_id for each in self.snapshot.damaged]
        return run_ids[0] if run_ids else None

    @property
    def key(self) -> SimilarityKey:
        """The similarity that is analysed: of those that there are, the nearest to the selected one."""
        return self.selection.key_among(self._known_keys)

    def options(self, slot: str) -> TableOptions:
        """What an analysis is asked for; where groups cannot be chosen, they are not those of another view."""
        chosen = self.selection.options(self.key)
        return chosen if slot in GROUPED else replace(chosen, by=TableOptions.by)

    def answer(self, slot: str) -> Answer | None:
        """The answer to what a view asks now; None while it is on its way."""
        found = self._answers.get(slot)
        return found if found and found.question == self._question(slot) else None

    def found(self, view: str) -> Found | None:
        """What the analysis of a view has found; None while it is on its way."""
        answer = self.answer(view)
        return answer.value if answer and isinstance(answer.value, Found) else None

    def action_view(self, view: str) -> None:
        """Brings a view to the front."""
        self._view = view
        self.switch_screen(view)
        self.show()

    def action_export(self) -> None:
        """Writes what is on the screen as CSV."""
        screen = self.screen
        table = screen.table() if isinstance(screen, ViewScreen) else None
        if table is None or self.snapshot is None or not isinstance(screen, ViewScreen):
            self.notify("there is nothing to export here", severity="warning", markup=False)
            return
        self._export(table, screen.table_options(), self.snapshot)

    def action_help(self) -> None:
        """Says what the view shows and which keys it has."""
        self.push_screen(HelpScreen(self._view))

    def action_next_study(self) -> None:
        """Turns to the next of several studies."""
        if len(self._studies) == 1:
            self.notify("only one study is open; start `simtui STUDY STUDY …` for more", markup=False)
            return
        self._study_index = (self._study_index + 1) % len(self._studies)
        self.selection, self.snapshot, self._answers, self._known_keys = Selection(), None, {}, ()
        self._reader.open(self._study_index)
        self.show()

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """The command palette lists the actions of the view in front."""
        for action in actions_of(self._view):
            if action.name != "app.command_palette":
                run = partial(self.call_later, screen.run_action, action.name)
                yield SystemCommand(action.says[0].upper() + action.says[1:], f"key: {action.shown}", run)

    def on_reader_news(self, message: ReaderNews) -> None:
        """Takes what the reader has found, unless it belongs to what nobody looks at any more."""
        news = message.news
        if isinstance(news, Broken):
            raise news.error
        if isinstance(news, Snapshot):
            if news.path != self._studies[self._study_index]:
                return
            self.snapshot = news
        else:
            slot = _slot_of(news.question)
            if news.question != self._question(slot):
                return
            self._answers[slot] = news
            if isinstance(news.value, Found):
                self._known_keys = news.value.data.keys
        self.show()

    def _question(self, slot: str) -> Question | None:
        if slot in ANALYSES:
            return StudyQuestion(slot, self.options(slot))
        run_id = self.shown_run_id()
        if run_id is None:
            return None
        return AttentionQuestion(run_id) if slot == ATTENTION else RunQuestion(run_id)

    @work(thread=True)
    def _export(self, table: Table, options: TableOptions, snapshot: Snapshot) -> None:
        """On a thread of its own: waiting for the disk must not stop the keys."""
        try:
            path = export_csv(table, name_of(snapshot.name, table, options), (Path.cwd(), Path.home()))
            write_sources(path, StudyFolder(snapshot.path), table, options)
        except SimtuiError as error:
            self.call_from_thread(
                self.notify,
                "\n".join(safe(line) for line in str(error).splitlines()),
                severity="error",
                timeout=10,
                markup=False,
            )
        else:
            self.call_from_thread(self.notify, f"wrote {safe(path)}", markup=False)
