"""The screen of a new study, filled in by keys: what it says, what it writes, what it starts."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from PIL import Image
from textual.pilot import Pilot
from textual.widgets import Input

from engine.backbones.bundled import bundled_weights_path
from engine.data.synthetic import dermoscopy
from engine.errors import MachineError, SimtuiError, StudyError
from engine.jobs import launch
from engine.runs.study_folder import StudyFolder
from engine.study import load_study
from simtui import completion
from simtui.app import SimtuiApp
from simtui.child import Child
from simtui.cli import commands
from simtui.screens.new_study import NewStudyScreen
from simtui.screens.study_file import StudyFileScreen
from simtui.views.new_study import duration, file_lines
from simtui.widgets.choices import Choices
from simtui.widgets.drawn import Drawn
from simtui.widgets.lines import Lines
from tests.simtui.driving import app_of, opened, text_of, until, view_of, written


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real dataset in ISIC2018's layout; not to be written to."""
    path = tmp_path_factory.mktemp("images") / "derm"
    dermoscopy.generate(path, 100)
    return path


@asynccontextmanager
async def filling(study: Path, images: str = "", size: tuple[int, int] = (80, 24)) -> AsyncIterator[Pilot[None]]:
    """The screen over a study, with this in its first field."""
    app = SimtuiApp([study], poll_s=0.05, images=images)
    async with app.run_test(size=size, notifications=True) as pilot:
        await until(pilot, lambda: isinstance(app.screen, NewStudyScreen) and app.screen.focused)
        yield pilot


def screen_of(pilot: Pilot[None]) -> NewStudyScreen:
    assert isinstance(pilot.app.screen, NewStudyScreen)
    return pilot.app.screen


async def focus(pilot: Pilot[None], name: str) -> None:
    screen_of(pilot).query_one(f"#{name}").focus()
    await pilot.pause()


async def fill(pilot: Pilot[None], name: str, text: str) -> None:
    screen_of(pilot).query_one(f"#{name}", Input).value = text
    await pilot.pause()


async def looked_at(pilot: Pilot[None], which: str = "images") -> None:
    await until(pilot, lambda: screen_of(pilot).form.look(which).path, 20)
    await until(pilot, lambda: not screen_of(pilot).form.look(which).is_under_way, 60)


async def press_button(pilot: Pilot[None], name: str) -> None:
    await focus(pilot, "buttons")
    buttons = screen_of(pilot).query_one("#buttons", Choices)
    for _ in range(5):
        await pilot.press("left")
    while buttons.key != name:
        await pilot.press("right")
    await pilot.press("enter")
    await pilot.pause()


class TestFields:
    async def test_n_opens_it_and_escape_leaves_it_with_what_was_typed(self, study: Path) -> None:
        async with opened(study) as pilot:
            await pilot.press("n")
            await until(pilot, lambda: isinstance(pilot.app.screen, NewStudyScreen))
            assert "images: no folder yet" in text_of(pilot, "message") and "fix:" in text_of(pilot, "message")
            await focus(pilot, "seeds")
            await pilot.press("backspace", "7")
            await pilot.press("escape")
            assert view_of(pilot).VIEW == "runs"
            await pilot.press("n")
            await pilot.pause()
            assert screen_of(pilot).form.seeds == "7"

    async def test_every_view_has_it_in_its_palette(self, study: Path) -> None:
        async with opened(study) as pilot:
            for view in ("1", "2", "5"):
                await pilot.press(view)
                titles = [each.title.lower() for each in app_of(pilot).get_system_commands(pilot.app.screen)]
                assert sum("new study" in title for title in titles) == 1

    async def test_a_real_dataset_is_said_and_counted(self, study: Path, images: Path) -> None:
        async with filling(study, str(images)) as pilot:
            await looked_at(pilot)
            assert "✓ isic2018 · 100 images · 7 classes · train" in text_of(pilot, "images-state")
            words = "one class an image · no groups named · 100 decoded to try"
            await until(pilot, lambda: words in text_of(pilot, "panel"))
            await focus(pilot, "backbones")
            await pilot.press("space", "down", "down", "space")
            await focus(pilot, "methods")
            await pilot.press("right", "right", "space")
            form = screen_of(pilot).form
            assert [each.facts.name for each in form.chosen] == ["bundled:supervised", "bundled:self-supervised"]
            assert form.methods == ("full", "linear") and form.draft().n_runs == 2 * 2 * 5
            assert "20 runs" in text_of(pilot, "title")
            await until(pilot, lambda: "20 runs" in text_of(pilot, "panel"))
            panel = text_of(pilot, "panel")
            assert "20 runs = 2 backbones × 2 methods × 5 seeds" in panel
            assert "disk about" in panel and "free there" in panel and "time not measured yet: t" in panel
            assert "ready study file" in text_of(pilot, "message") and "derm.toml" in text_of(pilot, "message")

    async def test_a_folder_that_is_no_dataset_says_why_and_what_mends_it(self, study: Path, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        async with filling(study, str(tmp_path / "empty")) as pilot:
            await looked_at(pilot)
            assert "✗" in text_of(pilot, "images-state")
            await until(pilot, lambda: "fix:" in text_of(pilot, "panel"))
            await focus(pilot, "backbones")
            await pilot.press("space")
            await press_button(pilot, "start")
            assert "empty" in text_of(pilot, "message") and not list(Path.cwd().iterdir())

    async def test_numbers_and_names_that_the_loader_refuses_are_said(self, study: Path, images: Path) -> None:
        async with filling(study, str(images)) as pilot:
            await focus(pilot, "backbones")
            await pilot.press("space")
            await fill(pilot, "seeds", "many")
            assert 'seeds = "many": need an integer' in text_of(pilot, "message")
            await fill(pilot, "seeds", "2")
            await fill(pilot, "name", "../x")
            assert "cannot be the name of a folder" in text_of(pilot, "message")

    async def test_arrows_go_through_all_fields_and_back(self, study: Path) -> None:
        async with filling(study) as pilot:
            seen = []
            for _ in range(22):
                focused = pilot.app.screen.focused
                seen.append(focused.id if focused else "")
                await pilot.press("down")
            fields = ["images", "origin", "backbones", "add", "weights", "methods", "seeds", "epochs", "batch", "name"]
            assert list(dict.fromkeys(seen)) == [*fields, "folder", "buttons"]
            await focus(pilot, "methods")
            await pilot.press("up")
            assert pilot.app.screen.focused is not None and pilot.app.screen.focused.id == "weights"

    @pytest.mark.parametrize("size", [(60, 20), (80, 24), (120, 40), (160, 50)])
    async def test_everything_is_in_sight(self, study: Path, images: Path, size: tuple[int, int]) -> None:
        async with filling(study, str(images), size) as pilot:
            await looked_at(pilot)
            for name in ("images", "backbones", "methods", "folder", "buttons", "message", "footer"):
                region = pilot.app.screen.query_one(f"#{name}").region
                assert region.area and region.bottom <= size[1] and region.right <= size[0], name
            assert pilot.app.screen.query_one("#panel", Lines).region.height >= 1
            assert all(len(line) <= size[0] for line in written(pilot).splitlines())

    async def test_a_click_chooses(self, study: Path) -> None:
        async with filling(study) as pilot:
            await pilot.click("#backbones", offset=(3, 1))
            await pilot.click("#methods", offset=(3, 0))
            form = screen_of(pilot).form
            assert [each.facts.name for each in form.chosen] == ["bundled:image-text"]
            assert form.methods == ("linear", "scratch")

    @pytest.mark.parametrize("path", ["/", "~"])
    async def test_a_whole_machine_is_not_read(self, study: Path, path: str) -> None:
        async with filling(study) as pilot:
            await fill(pilot, "images", path)
            await until(pilot, lambda: "is more than a dataset" in text_of(pilot, "images-state"))

    def test_the_command_needs_a_terminal(self, images: Path) -> None:
        with pytest.raises(StudyError, match="needs a terminal"):
            commands.main(["new", str(images)], standalone_mode=False)


class TestPaths:
    async def test_tab_completes_and_shows_what_there_is(self, study: Path, tmp_path: Path) -> None:
        for name in ("data-one", "data-two", "other"):
            (tmp_path / "sets" / name).mkdir(parents=True)
        async with filling(study) as pilot:
            field = pilot.app.screen.query_one("#images", Input)
            await fill(pilot, "images", str(tmp_path / "se"))
            field.cursor_position = len(field.value)
            await pilot.press("tab")
            await until(pilot, lambda: field.value.endswith("/sets/"))
            await until(pilot, lambda: "data-one/ · data-two/ · other/" in text_of(pilot, "panel"))
            await pilot.press("d", "tab")
            await until(pilot, lambda: field.value.endswith("/data-"))
            await pilot.press("tab", "t", "tab")
            await until(pilot, lambda: field.value.endswith("/data-two/"))
            await until(pilot, lambda: not written(pilot).count("data-one/"))
            await pilot.press("tab")
            await until(pilot, lambda: pilot.app.screen.focused is not field)

    @pytest.mark.parametrize(
        "name", ["\x1b]0;title\x07", "a\nb", "\u202eabc", "back\\slash", "back\\x41", "[b]", "[@click=x]"]
    )
    def test_any_name_can_be_completed_typed_and_shown(self, name: str, tmp_path: Path) -> None:
        (tmp_path / "sets" / name).mkdir(parents=True)
        found = completion.candidates(f"{tmp_path}/sets/")
        assert found.completed.isprintable() and all(each.isprintable() for each in found.names)
        assert completion.absolute(found.completed) == str(tmp_path / "sets" / name)

    def test_names_that_are_not_utf8_too(self, tmp_path: Path) -> None:
        folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/sets/\xff"))
        folder.mkdir(parents=True)
        found = completion.candidates(f"{tmp_path}/sets/")
        assert found.completed.isprintable() and completion.absolute(found.completed) == str(folder)

    def test_files_of_the_suffix_come_hidden_ones_only_when_asked(self, tmp_path: Path) -> None:
        for name in (".hidden", "a.npz", "b.txt"):
            (tmp_path / name).touch()
        (tmp_path / ".config").mkdir()
        assert completion.candidates(f"{tmp_path}/", (".npz",)).names == ("a.npz", "work/")
        assert completion.candidates(f"{tmp_path}/.", (".npz",)).names == (".config/",)
        assert completion.candidates(f"{tmp_path}/none/x").names == ()
        assert completion.candidates("~").completed == "~/"
        assert completion.absolute("") == "" and completion.absolute("~") == str(Path.home())

    async def test_a_hostile_folder_never_reaches_the_terminal_raw(self, study: Path, tmp_path: Path) -> None:
        hostile = tmp_path / "x\x1b]0;owned\x07\u202e[/]"
        (hostile / "a\x1b[31m").mkdir(parents=True)  # the only class, which an error names
        Image.new("RGB", (8, 8)).save(hostile / "a\x1b[31m" / "only.png")
        async with filling(study, size=(130, 40)) as pilot:
            await fill(pilot, "images", str(hostile))  # as it is pasted
            await looked_at(pilot)
            await focus(pilot, "backbones")
            await pilot.press("space")
            await focus(pilot, "images")
            assert screen_of(pilot).form.draft().data == str(hostile)
            for widget in pilot.app.screen.query(Drawn):
                for y in range(widget.size.height):
                    assert widget.render_line(y).text.isprintable()
            assert pilot.app.screen.query_one("#images", Input).value.isprintable()
            assert "\\x1b" in written(pilot)


class TestBackbones:
    async def test_an_unknown_family_is_said_at_once(self, study: Path) -> None:
        async with filling(study) as pilot:
            await fill(pilot, "add", "tim:vit_base.x")
            await focus(pilot, "add")
            await pilot.press("enter")
            assert 'did you mean "timm"?' in text_of(pilot, "message")

    async def test_a_misspelt_name_gets_the_nearest_and_a_right_one_is_added(self, study: Path) -> None:
        async with filling(study, size=(100, 40)) as pilot:
            await fill(pilot, "add", "timm:vit_bas_patch16_224.augreg_in21k")
            await focus(pilot, "add")
            await pilot.press("enter")
            await until(pilot, lambda: "timm:vit_base_patch16_224.augreg_in21k" in text_of(pilot, "message"), 90)
            await fill(pilot, "add", "timm:vit_small_patch16_224.augreg_in21k")
            await focus(pilot, "add")
            await pilot.press("enter")
            await until(pilot, lambda: screen_of(pilot).form.chosen, 90)
            entry = screen_of(pilot).form.chosen[0]
            assert (entry.facts.name, entry.facts.n_features) == ("timm:vit_small_patch16_224.augreg_in21k", 384)
            assert "vit_small_patch16_224" in written(pilot) and not pilot.app.screen.query_one("#add", Input).value

    async def test_a_local_file_of_weights_takes_the_place_of_the_cache(self, study: Path, images: Path) -> None:
        path = bundled_weights_path("supervised")
        async with filling(study, str(images), (100, 40)) as pilot:
            await fill(pilot, "add", "bundled:supervised")
            await fill(pilot, "weights", str(path))
            await focus(pilot, "weights")
            await pilot.press("enter")
            await until(pilot, lambda: screen_of(pilot).form.chosen, 90)
            assert f'weights = "{path}"' in "\n".join(
                "".join(s.text for s in line) for line in _file_lines(pilot)
            )  # fmt: skip


def _file_lines(pilot: Pilot[None]) -> Any:
    return file_lines(screen_of(pilot).form, 1000)


class TestWhatItTakes:
    async def test_measuring_says_how_far_it_is_is_cancelled_and_gives_a_time(self, study: Path, images: Path) -> None:
        async with filling(study, str(images), (120, 40)) as pilot:
            await looked_at(pilot)
            await focus(pilot, "backbones")
            await pilot.press("space", "t")
            await until(pilot, lambda: "measuring bundled:supervised (1 of 1)" in text_of(pilot, "title"))
            assert "Cancel measuring" in text_of_buttons(pilot)
            await pilot.press("t")
            assert "time not measured" in text_of(pilot, "title") and not screen_of(pilot).form.speeds
            await pilot.press("t")
            await until(pilot, lambda: screen_of(pilot).form.speeds, 120)
            await focus(pilot, "methods")
            await until(pilot, lambda: "time about" in text_of(pilot, "panel"))
            assert "linear" in text_of(pilot, "panel")
            assert "Cancel" not in text_of_buttons(pilot)

    async def test_t_before_there_is_anything_to_measure_says_what_is_missing(self, study: Path) -> None:
        async with filling(study) as pilot:
            await focus(pilot, "methods")
            await pilot.press("t")
            assert "images: no folder yet" in text_of(pilot, "message")

    async def test_a_disk_that_is_too_small_is_said(
        self, study: Path, images: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Usage(NamedTuple):
            total: int
            used: int
            free: int

        monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9, 10**6))
        async with filling(study, str(images)) as pilot:
            await looked_at(pilot)
            await focus(pilot, "backbones")
            await pilot.press("space")
            await focus(pilot, "methods")
            await until(pilot, lambda: "1.0 MB free there: does not fit" in text_of(pilot, "panel"))

    @pytest.mark.parametrize(
        ("seconds", "words"),
        [(0.2, "under 1 s"), (45, "45 s"), (120, "2 min"), (7300, "2 h"), (7900, "2 h 10 min"), (1e6, "12 days"),
         (86_000, "24 h"), (35_900, "10 h")],
    )  # fmt: skip
    def test_times_are_short(self, seconds: float, words: str) -> None:
        assert duration(seconds) == words


def text_of_buttons(pilot: Pilot[None]) -> str:
    return pilot.app.screen.query_one("#buttons", Choices).render_line(0).text


class TestTheEnd:
    async def test_the_preview_is_the_file_that_is_written(self, study: Path, images: Path) -> None:
        async with filling(study, str(images)) as pilot:
            await focus(pilot, "backbones")
            await pilot.press("space")
            shown = ["".join(span.text for span in line) for line in _file_lines(pilot)]
            await press_button(pilot, "preview")
            await until(pilot, lambda: isinstance(pilot.app.screen, StudyFileScreen))
            assert 'name = "bundled:supervised"' in pilot.app.screen.query_one("#lines", Lines).text
            await pilot.press("j", "k", "escape")
            await press_button(pilot, "write")
            path = Path.cwd() / "derm.toml"
            await until(pilot, path.exists)
            assert path.read_text().splitlines() == shown
            assert load_study(path).data.path == str(images)
            await until(pilot, lambda: any("simtui run" in str(each.message) for each in pilot.app._notifications))

    async def test_a_file_of_that_name_is_not_written_over(self, study: Path, images: Path) -> None:
        (Path.cwd() / "mine.toml").write_text("# mine\n")
        async with filling(study, str(images)) as pilot:
            await focus(pilot, "backbones")
            await pilot.press("space")
            await fill(pilot, "name", "mine")
            await press_button(pilot, "write")
            assert "is there already and says something else" in text_of(pilot, "message")
            assert (Path.cwd() / "mine.toml").read_text() == "# mine\n"

    async def test_start_runs_a_tiny_study_and_shows_it(self, study: Path, images: Path) -> None:
        async with filling(study, str(images)) as pilot:
            await looked_at(pilot)
            await focus(pilot, "backbones")
            await pilot.press("space")
            await focus(pilot, "methods")
            await pilot.press("space", "right", "right", "space")
            await fill(pilot, "seeds", "1")
            await fill(pilot, "epochs", "1")
            await fill(pilot, "name", "tiny")
            assert screen_of(pilot).form.draft().n_runs == 1
            await press_button(pilot, "start")
            path = Path.cwd() / "studies" / "tiny"
            await until(pilot, lambda: not isinstance(pilot.app.screen, NewStudyScreen), 30)
            await until(pilot, lambda: app_of(pilot).snapshot is not None and app_of(pilot).snapshot.path == path, 10)
            assert view_of(pilot).VIEW == "jobs"
            folder = StudyFolder(path)
            await until(pilot, lambda: [each.state for each in folder.listing().records] == ["done"], 90)
            await pilot.press("1")
            await until(pilot, lambda: "linear" in written(pilot) and "✓ done" in written(pilot))
            assert app_of(pilot).snapshot.name == "tiny"
            assert (Path.cwd() / "tiny.toml").exists()
            await until(pilot, lambda: folder.running_by() is None, 30)
        for process in launch._left_alone:
            process.wait()


class TestChild:
    def test_an_error_and_a_crash(self) -> None:
        with pytest.raises(MachineError, match="ended with code"):
            Child("x", ["no_such_module_at_all"]).answer()
        with pytest.raises(SimtuiError, match="bundled"):
            Child("x", ["engine.jobs.describe", "bundled:nothing"]).answer()

    def test_one_that_is_ended_gives_no_answer(self) -> None:
        child = Child("x", ["engine.jobs.describe", "bundled:supervised"])
        child.end()
        assert child.answer() is None
