"""The app: holds what all views share, switches between them, and passes on what the reader finds."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar

from textual import work
from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.screen import Screen
from textual.timer import Timer

from engine.analysis.estimators import pooling_of
from engine.analysis.options import TableOptions
from engine.errors import SimtuiError
from engine.runs.results import SimilarityKey
from simtui.actions import (
    ATTENTION,
    CORRELATION,
    DISTRIBUTIONS,
    FORGETTING,
    GROUPED,
    JOBS,
    MAP,
    PINNED,
    RUNS,
    SPACE,
    TRAJECTORIES,
    actions_of,
)
from simtui.analyses import ANALYSES, Found
from simtui.exporting import copied_text, name_of, save_copied, save_table
from simtui.keymap import Keymap, rekeyed
from simtui.lookalikes import use_lookalikes
from simtui.palette import is_colorless
from simtui.picture import save_picture
from simtui.reader import (
    Answer,
    AttentionQuestion,
    Broken,
    JobsQuestion,
    News,
    Question,
    Reader,
    RunQuestion,
    Snapshot,
    StudyQuestion,
)
from simtui.recent import remember
from simtui.remembered import Memory, Place
from simtui.safe_text import safe
from simtui.screens.attention import AttentionScreen
from simtui.screens.commands import Commands
from simtui.screens.correlation import CorrelationScreen
from simtui.screens.curves import TrajectoriesScreen
from simtui.screens.distributions import DistributionsScreen
from simtui.screens.forgetting import ForgettingScreen
from simtui.screens.help import HelpScreen
from simtui.screens.jobs import JobsScreen
from simtui.screens.layer_map import MapScreen
from simtui.screens.over import OverScreen, lay_over
from simtui.screens.runs import RunsScreen
from simtui.screens.space import SpaceScreen
from simtui.screens.view import ViewScreen
from simtui.selection import Selection
from simtui.terminal_output import crop_dirty_regions
from simtui.themes import DARK, THEMES, next_theme
from simtui.views.parts import ROLES

_REMEMBER_AFTER_S = 1.0
_NEW_STUDY = "new study"  # the name of its screen
_SCREENS: dict[str, type[ViewScreen]] = {
    RUNS: RunsScreen,
    MAP: MapScreen,
    TRAJECTORIES: TrajectoriesScreen,
    SPACE: SpaceScreen,
    DISTRIBUTIONS: DistributionsScreen,
    CORRELATION: CorrelationScreen,
    FORGETTING: ForgettingScreen,
    ATTENTION: AttentionScreen,
    JOBS: JobsScreen,
}


def _slot_of(question: Question) -> str:
    """Which view asks a question."""
    if isinstance(question, StudyQuestion):
        return question.view
    if isinstance(question, JobsQuestion):
        return JOBS
    return question.slot if isinstance(question, RunQuestion) else ATTENTION


class ReaderNews(Message):
    """Something that the reader has found."""

    def __init__(self, news: News) -> None:
        super().__init__()
        self.news = news


class SimtuiApp(App[None]):
    """Shows one of several studies.

    Args:
        studies: study folders; the first is shown, a key turns to the next.
        memory: where theme, view and selection are found at the start and kept; None: nowhere.
        keymap: the user's own keys.
        first_view: the view to begin with; None: that in which the study was left.
        images: begins with a new study of these images, "" for none yet; None: begins with a view.
    """

    CSS_PATH = Path(__file__).with_name("app.tcss")
    TITLE = "simtui"
    ENABLE_COMMAND_PALETTE = True
    COMPONENT_CLASSES: ClassVar[set[str]] = {f"role--{role}" for role in ROLES}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+q", "quit", show=False, priority=True),
        Binding("ctrl+p", "command_palette", show=False, priority=True, id="command-palette"),
        Binding("ctrl+l", "redraw", show=False, priority=True, id="redraw"),
    ]

    def __init__(
        self,
        studies: Sequence[Path],
        poll_s: float = 1.0,
        memory: Memory | None = None,
        keymap: Keymap | None = None,
        images: str | None = None,
        first_view: str | None = None,
    ) -> None:
        super().__init__()
        crop_dirty_regions()
        use_lookalikes()
        for theme in THEMES.values():
            self.register_theme(theme)
        self.theme = memory.theme if memory else DARK.name
        self.actions = rekeyed(keymap or {})
        self.set_keymap({name: ",".join(keys) for name, keys in (keymap or {}).items()})
        self._memory, self._images = memory, images
        self._remember_timer: Timer | None = None
        self.snapshot: Snapshot | None = None
        encoding = sys.__stderr__.encoding if sys.__stderr__ else "utf-8"
        self.is_colorless = is_colorless(os.environ, encoding, self.console.color_system)
        self._studies, self._study_index = tuple(studies), 0
        self._answers: dict[str, Answer] = {}
        self._reader = Reader(self._studies, lambda news: self.post_message(ReaderNews(news)), poll_s)
        self._known_keys: tuple[SimilarityKey, ...] = ()
        self._view, self.selection = RUNS, Selection()
        self._return()
        self._view = first_view or self._view

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
        self.push_screen(self._view)
        self._reader.start()
        self._leave_when_told()
        if self._images is not None:
            self.action_new_study()

    def _leave_when_told(self) -> None:
        """A `kill` leaves the terminal as it was; a second one ends a process that does not answer the first."""
        if self.is_headless:
            return
        loop = asyncio.get_running_loop()

        def leave(number: int, _frame: FrameType | None) -> None:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            loop.call_soon_threadsafe(partial(self.exit, return_code=128 + number))

        signal.signal(signal.SIGTERM, leave)

    def on_unmount(self) -> None:
        """Ends the reader, and keeps where the user was."""
        self._reader.stop()
        self._remember()

    def select(self, **changes: Any) -> None:
        """Looks at something else; the view in front follows."""
        self.selection = replace(self.selection, **changes)
        self.show()

    def show(self) -> None:
        """Asks the reader for what the view in front needs, and brings it up to date with what is there."""
        view = self.get_screen(self._view)
        wanted = view.slot if isinstance(view, ViewScreen) else ""
        for slot in (MAP, PINNED, ATTENTION, JOBS, *ANALYSES):
            is_wanted = slot == wanted or (slot, wanted) == (PINNED, MAP)
            self._reader.watch(slot, self._question(slot) if is_wanted else None)
        questions = map(self._question, (MAP, *ANALYSES))
        self._reader.expect([each for each in questions if each is not None])
        if isinstance(self.screen, ViewScreen):
            self.screen.show()
        self._remember_soon()

    def shown_run_id(self) -> str | None:
        """The selected run, or the first."""
        if self.selection.run_id or self.snapshot is None:
            return self.selection.run_id
        run_ids = [each.run_id for each in self.snapshot.records] + [each.run_id for each in self.snapshot.damaged]
        return run_ids[0] if run_ids else None

    @property
    def chosen(self) -> Selection:
        """The selection, with the pooling that all runs have where none was selected."""
        if self.selection.pooling or self.snapshot is None:
            return self.selection
        return replace(self.selection, pooling=pooling_of(self.snapshot.records))

    @property
    def key(self) -> SimilarityKey:
        """The similarity that is analysed: of those that there are, the nearest to the selected one."""
        return self.chosen.key_among(self._known_keys)

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
        """Brings a view to the front, and takes away what lies over the one before."""
        self._view = view
        for _ in self.screen_stack[2:]:  # the first is Textual's own, the second a view
            self.pop_screen()
        self.switch_screen(view)
        self.show()

    def action_export(self) -> None:
        """Writes what is on the screen as CSV."""
        screen = self.screen
        table = screen.table() if isinstance(screen, ViewScreen) else None
        if table is None or self.snapshot is None or not isinstance(screen, ViewScreen):
            self.notify("there is nothing to export here", severity="warning", markup=False)
            return
        self.in_background(partial(save_table, table, screen.table_options(), self.snapshot))
        if note := screen.export_note():
            self.notify(note, markup=False)

    def action_copy(self) -> None:
        """Copies the view's table to the clipboard of the terminal, and into a file: not every terminal has one."""
        table = self.screen.table() if isinstance(self.screen, ViewScreen) else None
        if table is None:
            self.notify("there is nothing to copy here", severity="warning", markup=False)
            return
        text = copied_text(table)
        if text is not None:
            self.copy_to_clipboard(text)
        self.in_background(partial(save_copied, table, is_copied=text is not None))

    def action_picture(self) -> None:
        """Saves the screen as SVG and PNG."""
        screen = self.screen
        name = f"{self.snapshot.name if self.snapshot else self.TITLE}-{self._view}"
        if self.snapshot and isinstance(screen, ViewScreen) and (table := screen.table()):
            name = name_of(self.snapshot.name, table, screen.table_options())
        title = "".join(self.study_title)
        self.in_background(partial(save_picture, self.export_screenshot(title=title), name))

    def action_theme(self) -> None:
        """The next theme."""
        self.theme = next_theme(self.theme)
        self.notify(f"theme: {self.theme}", timeout=2, markup=False)
        self._remember_soon()

    def action_help(self) -> None:
        """Says what the view shows and which keys it has."""
        lay_over(self.get_screen(self._view), HelpScreen(self._view, self.actions))

    def action_command_palette(self) -> None:
        """Offers all actions by name."""
        if not isinstance(self.screen, OverScreen):
            lay_over(self.screen, Commands())

    def action_redraw(self) -> None:
        """Draws the whole terminal anew: another program may have written on it."""
        self.refresh()

    def action_next_study(self) -> None:
        """Turns to the next of several studies."""
        if len(self._studies) == 1:
            self.notify("only one study is open; start `simtui STUDY STUDY …` for more", markup=False)
            return
        view = self._view
        self._turn_to((self._study_index + 1) % len(self._studies))
        self.action_view(view)

    def action_new_study(self) -> None:
        """Opens the screen of a new study, as it was left."""
        if not self.is_screen_installed(_NEW_STUDY):
            from simtui.screens.new_study import NewStudyScreen  # loads what reads images

            self.install_screen(NewStudyScreen(self._images or ""), _NEW_STUDY)
        if self.screen is self.get_screen(self._view):
            self.push_screen(_NEW_STUDY)

    def open_study(self, path: Path) -> None:
        """Turns to a study that has just been started, and to its progress."""
        if path not in self._studies:
            self._studies = (*self._studies, path)
            self._reader.add(path)
        self._turn_to(self._studies.index(path))
        remember(path)
        self.action_view(JOBS)

    def _turn_to(self, index: int) -> None:
        self._remember()
        self._study_index = index
        self.snapshot, self._answers, self._known_keys = None, {}, ()
        self._reader.open(index)
        self._return()

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """The command palette lists the actions of the view in front."""
        if not isinstance(screen, ViewScreen):
            return
        if self._view != RUNS:
            yield SystemCommand("New study", "set up and start a new study", self.action_new_study)
        for action in actions_of(self._view, self.actions):
            if action.name != "app.command_palette":
                run = partial(self.call_later, screen.run_action, action.name)
                yield SystemCommand(action.says[0].upper() + action.says[1:], f"key: {action.shown}", run)

    def on_reader_news(self, message: ReaderNews) -> None:
        """Takes what the reader has found, unless it belongs to what nobody looks at any more."""
        if not self.is_running:  # the views are gone already
            return
        news = message.news
        if isinstance(news, Broken):
            raise news.error
        if isinstance(news, Snapshot):
            if news.path != self._studies[self._study_index]:
                return
            if self.snapshot is None and not news.has_run(self.selection.run_id):
                self.selection = replace(self.selection, run_id=None)  # remembered, and removed since
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
        if slot == JOBS:
            return JobsQuestion(self.selection.job)
        run_id = self.selection.pinned if slot == PINNED else self.shown_run_id()
        if run_id is None:
            return None
        return AttentionQuestion(run_id) if slot == ATTENTION else RunQuestion(run_id, slot)

    def _return(self) -> None:
        """Goes where the user was in this study, if that is known."""
        place = self._memory.place(self._studies[self._study_index]) if self._memory else Place()
        self._view, self.selection = place.view, place.selection

    def _remember_soon(self) -> None:
        """A moment after the last change: a lost connection ends the app without a word."""
        if self._memory and self._remember_timer is None:
            self._remember_timer = self.set_timer(_REMEMBER_AFTER_S, self._remember_aside)

    def _remember_aside(self) -> None:
        """On a thread: the disk may take longer than a frame."""
        self._remember_timer = None
        self.run_worker(self._remembering(), thread=True)

    def _remember(self) -> None:
        self._remembering()()

    def _remembering(self) -> Callable[[], None]:
        """What writes down where the user is now, wherever that is when it is done."""
        if self._memory is None:
            return lambda: None
        place = Place(self._view, self.selection)
        return partial(self._memory.keep, self.theme, self._studies[self._study_index], place)

    def tell_error(self, error: SimtuiError) -> None:
        """Says what failed, and its fix, beside what is on the screen."""
        said = "\n".join(safe(line) for line in str(error).splitlines())
        self.notify(said, severity="error", timeout=10, markup=False)

    @work(thread=True)
    def in_background(self, job: Callable[[], str]) -> None:
        """Does what may wait for a disk on a thread of its own, so that the keys go on, and says how it went.

        Args:
            job: returns what to say; an expected failure is shown as such.
        """
        try:
            said = job()
        except SimtuiError as error:
            self.call_from_thread(self.tell_error, error)
        else:
            self.call_from_thread(self.notify, safe(said), markup=False)
