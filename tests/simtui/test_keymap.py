"""Keys of a user's own: read, laid over the table, shown where they are shown, and refused where they cannot work."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from textual.command import CommandPalette

from engine.errors import StudyError
from simtui.actions import ACTIONS, MAP, footer_of
from simtui.app import SimtuiApp
from simtui.cli import commands
from simtui.keymap import EXAMPLE, read_keys, rekeyed
from simtui.screens.help import help_lines
from tests.simtui.driving import app_of, press, until, written


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_no_file_means_the_default_keys(tmp_path: Path) -> None:
    assert read_keys(tmp_path / "none.toml") == {}
    assert rekeyed({}) == ACTIONS


def test_keys_are_written_as_on_the_keyboard(tmp_path: Path) -> None:
    text = '[keys]\nstep-epoch-on = ["]", "ctrl+n", ">"]\nquit = "Q"\nstep-layer-back = ","\nopen-map = "f5"\n'
    assert read_keys(_written(tmp_path / "keys.toml", text)) == {
        "step-epoch-on": ("right_square_bracket", "ctrl+n", "greater_than_sign"),
        "quit": ("Q",), "step-layer-back": ("comma",), "open-map": ("f5",),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[keys]\nstep-epok-on = 'x'", 'is no action\n.*did you mean "step-epoch-on"'),
        ("[keys]\nzzzz = 'x'", "is no action\n.*simtui keys"),
        ("[keys]\nquit = 'super'", "is no key"),
        ("[keys]\nquit = []", "is no key"),
        ("[keys]\nquit = 3", "is no key"),
        ("[keys]\nquit = 'meta+x'", "is no key"),
        ("[keys]\nquit = '\\u0007'", "is no key|cannot be read"),
        ("[keys]\nstep-epoch-on = 'p'", "is also pooling in Map"),
        ("keys = 3", "one section"),
        ("[keys]\n[more]\n", "one section"),
        ("[keys", "cannot be read"),
        (EXAMPLE.replace("f5", "f6"), "is also step-epoch-(on|back) in Map"),
    ],
)
def test_what_cannot_work_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(StudyError, match=f"(?s){problem}"):
        read_keys(_written(tmp_path / "keys.toml", text))


def test_the_command_lists_every_action_and_says_where_the_file_belongs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    said = CliRunner().invoke(commands, ["keys"]).output
    assert all(f"{action.id} " in said for action in ACTIONS)
    path = tmp_path / "simtui" / "keys.toml"
    assert f"{path} is not there yet" in said
    path.parent.mkdir()
    path.write_text(said.partition("hold:\n\n")[2])  # the example that it prints works
    said = CliRunner().invoke(commands, ["keys"]).output
    assert f"{path} holds yours" in said and "] f6" in said


async def test_the_command_palette_can_have_another_key(study: Path) -> None:
    app = SimtuiApp([study], poll_s=0.05, keymap={"command-palette": ("f2",)})
    async with app.run_test() as pilot:
        await until(pilot, lambda: app.snapshot is not None)
        await pilot.press("ctrl+p")
        assert not isinstance(app.screen, CommandPalette)
        await pilot.press("f2")
        assert isinstance(app.screen, CommandPalette)


def test_two_actions_may_swap_their_keys(tmp_path: Path) -> None:
    keymap = read_keys(_written(tmp_path / "keys.toml", '[keys]\nmeasure = "p"\npooling = "m"\n'))
    assert keymap == {"measure": ("p",), "pooling": ("m",)}


async def test_a_key_of_ones_own_does_what_the_old_one_did(study: Path) -> None:
    keymap = {"step-epoch-back": ("b",), "measure": ("p",), "pooling": ("m",)}
    app = SimtuiApp([study], poll_s=0.05, keymap=keymap)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await until(pilot, lambda: app.snapshot is not None)
        await press(pilot, "2", "b")
        assert app_of(pilot).selection.epoch == 3
        await press(pilot, "left_square_bracket")  # which does nothing any more
        assert app_of(pilot).selection.epoch == 3
        await press(pilot, "m")
        assert app_of(pilot).selection.pooling == "feat"
        assert "b ] epoch" in written(pilot)


def test_footer_and_help_show_the_keys_that_work() -> None:
    actions = rekeyed({"step-epoch-back": ("b",), "help": ("f1",)})
    assert ("b ]", "epoch") in footer_of(MAP, actions)
    text = "\n".join("".join(span.text for span in line) for line in help_lines(MAP, actions))
    assert "        b  one epoch back" in text and "f1  this help" in text
