"""The app in real terminals: under a pseudo terminal, in tmux, and over SSH from an sshd of the test's own."""

from __future__ import annotations

import getpass
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil
import pytest

from tests.benchmarks.pty_session import PtySession
from tests.simtui.test_hostile_names import _hostile_study

TIMEOUT_S = 60.0
PAINTED = rb"runs \("
APP = [sys.executable, "-m", "simtui"]
TMUX = shutil.which("tmux")
SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
# What the app may send: moves, looks, modes, keyboard protocol, questions; title, mouse pointer, character sets.
KNOWN = re.compile(rb"\x1b\[[0-9;?<>=]*\$?[A-Za-z]|\x1b\]0;[^\x07\x1b]*\x07|\x1b\]22;[a-z]*\x07|\x1b[=>78]|\x1b\([B0]")
COLORS = re.compile(rb"\x1b\[(?:[\d;]*;)?(?:[34]8;|3[0-7]|4[0-7]|9[0-7]|10[0-7])[\d;]*m")
_LEFT_BEHIND = (b"\x1b[?1049h", b"\x1b[?1000h", b"\x1b[?1003h", b"\x1b[?1006h", b"\x1b[?2004h", b"\x1b[?25l")


@pytest.fixture(autouse=True)
def _nothing_is_remembered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of a test before, which view was in front."""
    for name in ("XDG_STATE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))


def _opened(study: Path, size: tuple[int, int] = (100, 30), **environment: str | None) -> PtySession:
    return PtySession([*APP, str(study)], size=size, environment={"TEXTUAL_LOG": None, **environment})


def _left(session: PtySession) -> bytes:
    """Leaves with q; everything that was ever sent. Right behind an escape q is another key, so it comes again."""
    _until(lambda: _is_gone(session))
    assert session.exit_status == 0
    return session.seen


def _is_gone(session: PtySession) -> bool:
    session.send(b"q")
    session.drain(1.0)
    return session.has_ended()


# --- a pseudo terminal ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(120, 40), (60, 20)])
def test_no_name_reaches_the_terminal_raw(tmp_path: Path, size: tuple[int, int]) -> None:
    with _opened(_hostile_study(tmp_path / "s"), size) as session:
        session.wait_for(PAINTED, TIMEOUT_S)
        for key in b"Gg2ln3jd4t5t678?":
            session.press(bytes([key]), 0.15)
        session.press(b"\x1b", 0.3)
        _left(session)
        text = KNOWN.sub(b"", session.seen)
        raw = {char for char in text.decode() if not char.isprintable()}
        assert raw <= {"\r", "\n"}, sorted(raw)
        assert b"\x1b]0;owned" not in session.seen
        assert "\u202e".encode() not in session.seen
        assert b"x \x1b[31m" not in session.seen and b"[@click=app.quit]x" in text


@pytest.mark.parametrize(
    ("environment", "has_colors"),
    [
        ({"TERM": "xterm-256color"}, True),
        ({"TERM": "xterm"}, True),
        ({"TERM": "xterm-256color", "NO_COLOR": "1"}, False),
        ({"TERM": "dumb", "NO_COLOR": "1"}, False),
        ({"TERM": "dumb"}, False),
        ({"TERM": "xterm-256color", "LANG": "C", "LC_ALL": "C"}, True),
        ({"TERM": "xterm", "LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, True),
    ],
    ids=lambda each: " ".join(f"{k}={v}" for k, v in each.items()) if isinstance(each, dict) else "",
)
def test_any_terminal_will_do(study: Path, environment: Mapping[str, str], has_colors: bool) -> None:
    with _opened(study, **environment) as session:
        session.wait_for(PAINTED, TIMEOUT_S)
        for key in (b"2", b"3", b"8", b"1"):
            session.press(key, 0.3)
        _left(session)
        assert bool(COLORS.search(session.seen)) == has_colors
        if environment["TERM"] == "xterm":
            assert not re.search(rb"\x1b\[[\d;]*[34]8;", session.seen), "16 colours are all that it has"


def test_the_size_of_the_terminal_counts_whatever_the_environment_says(study: Path) -> None:
    with _opened(study, size=(20, 5), COLUMNS="120", LINES="40") as session:
        session.wait_for(b"needs", TIMEOUT_S)
        session.resize(100, 30)
        session.wait_for(PAINTED, TIMEOUT_S)
        _left(session)


def test_a_window_of_any_size_and_back(study: Path) -> None:
    with _opened(study) as session:
        session.wait_for(PAINTED, TIMEOUT_S)
        for size in ((20, 5), (1, 1), (300, 90), (60, 20)):
            session.resize(*size)
            session.settle(0.3)
        session.resize(100, 30)
        session.wait_for(PAINTED, TIMEOUT_S)
        left = _left(session)
        for mode in _LEFT_BEHIND:
            assert left.count(mode) <= left.count(mode[:-1] + (b"l" if mode.endswith(b"h") else b"h")), mode


@pytest.mark.parametrize("end", [lambda s: os.kill(s.pid, signal.SIGHUP), PtySession.hang_up], ids=["HUP", "closed"])
def test_it_ends_with_its_terminal(study: Path, end: Callable[[PtySession], object]) -> None:
    with _opened(study) as session:
        session.wait_for(PAINTED, TIMEOUT_S)
        end(session)
        _until(lambda: session.exit_status is not None or session.has_ended())


def test_another_program_in_between_leaves_nothing_behind(study: Path) -> None:
    """Stopped and continued: the terminal has shown something else, so all of it is sent again."""
    with _opened(study) as session:
        session.wait_for(PAINTED, TIMEOUT_S)
        session.settle()
        os.kill(session.pid, signal.SIGTSTP)
        _until(lambda: psutil.Process(session.pid).status() == psutil.STATUS_STOPPED)
        session.settle()
        os.kill(session.pid, signal.SIGCONT)
        session.wait_for(PAINTED, TIMEOUT_S)
        _left(session)


def _until(is_so: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + TIMEOUT_S
    while not is_so():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def test_a_kill_leaves_the_terminal_as_it_was(study: Path) -> None:
    with _opened(study) as session:
        session.wait_for(PAINTED, TIMEOUT_S)
        os.kill(session.pid, signal.SIGTERM)
        _until(lambda: (session.drain(0.2), session.has_ended())[1])
        assert session.exit_status == 128 + signal.SIGTERM
        assert b"\x1b[?1049l" in session.seen


# --- tmux -----------------------------------------------------------------------------------------------------------


class Tmux:
    """A tmux server of the test's own with one window."""

    def __init__(self, folder: Path, command: str, size: tuple[int, int] = (100, 30)) -> None:
        self._socket = folder / "tmux"
        self.call("-f", "/dev/null", "new-session", "-d", "-x", str(size[0]), "-y", str(size[1]), command)
        self.call("set", "-g", "remain-on-exit", "off")

    def call(self, *arguments: str) -> str:
        """A tmux command; what it prints."""
        environment = {name: value for name, value in os.environ.items() if name not in ("TMUX", "COLORTERM")}
        done = subprocess.run(
            [str(TMUX), "-S", str(self._socket), *arguments], env=environment, capture_output=True, text=True,
            timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
        return done.stdout

    def screen(self) -> str:
        """What is on the screen, with its looks."""
        return self.call("capture-pane", "-p", "-e")

    def ask(self, what: str) -> str:
        """A variable of the pane."""
        return self.call("display-message", "-p", f"#{{{what}}}").strip()

    def until(self, text: str) -> None:
        """Waits until something is on the screen."""
        deadline_s = time.monotonic() + TIMEOUT_S
        while text not in self.call("capture-pane", "-p"):
            assert time.monotonic() < deadline_s, f"no {text!r} on\n{self.screen()}"
            time.sleep(0.1)

    def settled(self) -> str:
        """The screen, once nothing is read any more and it has stayed as it is for a second."""
        deadline_s, same_since_s, now = time.monotonic() + TIMEOUT_S, time.monotonic(), self.screen()
        while time.monotonic() < deadline_s and time.monotonic() - same_since_s < 1.0:
            time.sleep(0.1)
            before, now = now, self.screen()
            if now != before or "reading …" in now:
                same_since_s = time.monotonic()
        return now


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Tmux]:
    """A shell in tmux, in which the app is started."""
    if TMUX is None:
        pytest.skip("there is no tmux")
    tmux = Tmux(tmp_path, "PS1='$ ' exec sh")
    try:
        yield tmux
    finally:
        tmux.call("kill-server")


def _start(shell: Tmux, study: Path) -> None:
    shell.call("send-keys", "-l", f"cd {shlex.quote(str(Path.cwd()))}; echo before; {shlex.join([*APP, str(study)])}")
    shell.call("send-keys", "Enter")
    shell.until("runs (")


def test_tmux_is_left_as_it_was(shell: Tmux, study: Path) -> None:
    _start(shell, study)
    shell.call("send-keys", "2", "Right", "Down")
    shell.until("pre-trained")
    shell.call("resize-window", "-x", "20", "-y", "5")
    shell.until("needs")
    shell.call("resize-window", "-x", "100", "-y", "30")
    shell.until("pre-trained")
    shell.call("send-keys", "q")
    _until(lambda: shell.ask("alternate_on") == "0")
    shell.call("send-keys", "-l", "echo code $?")
    shell.call("send-keys", "Enter")
    shell.until("code 0")
    assert "before" in shell.screen(), "the main screen is back"
    modes = {name: shell.ask(name) for name in ("alternate_on", "cursor_flag", "mouse_any_flag", "mouse_sgr_flag")}
    assert modes == {"alternate_on": "0", "cursor_flag": "1", "mouse_any_flag": "0", "mouse_sgr_flag": "0"}


def test_changes_leave_on_the_screen_what_a_whole_repaint_shows(shell: Tmux, study: Path) -> None:
    """Only cells that change are sent: after any steps the screen must be what it would be when drawn anew."""
    _start(shell, study)
    for keys in (
        ("Down", "Down", "PageDown", "Up"), ("2", "Right", "Down", "Down", "[", "["), ("p", "n", "m", "Left"),
        ("3", "j", "v", "[", "d"), ("4", "Right", "]", "}"), ("7", "Down"), ("5", "j"), ("1", "G"),
    ):  # fmt: skip
        for key in keys:
            shell.call("send-keys", key)
            time.sleep(0.05)
        stepped = shell.settled()
        shell.call("resize-window", "-x", "90")
        shell.settled()
        shell.call("resize-window", "-x", "100")
        assert shell.settled() == stepped, keys


def test_closing_the_window_of_tmux_ends_the_app(shell: Tmux, study: Path) -> None:
    _start(shell, study)
    pid = int(shell.ask("pane_pid"))
    app = next(each for each in psutil.Process(pid).children(recursive=True) if "simtui" in each.cmdline())
    shell.call("kill-window")
    psutil.wait_procs([app], timeout=TIMEOUT_S)
    assert not app.is_running()


# --- SSH ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def ssh(tmp_path: Path) -> Iterator[list[str]]:
    """The command that logs in at an sshd of this test's own, which runs as this user."""
    if SSHD is None or not shutil.which("ssh") or not shutil.which("ssh-keygen"):
        pytest.skip("there is no sshd, ssh or ssh-keygen")
    folder = tmp_path / "ssh"
    folder.mkdir(mode=0o700)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    shutil.copy(folder / "user.pub", folder / "authorized_keys")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile {folder}/pid\nStrictModes no\n"
        f"AuthorizedKeysFile {folder}/authorized_keys\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        "UsePAM no\nPermitRootLogin prohibit-password\n"
    )
    server = subprocess.Popen([SSHD, "-D", "-e", "-f", folder / "config"], stderr=subprocess.PIPE, text=True)
    command = [
        "ssh", "-tt", "-p", str(port), "-i", f"{folder}/user", "-o", "StrictHostKeyChecking=no", "-o", "BatchMode=yes",
        "-o", f"UserKnownHostsFile={folder}/known", "-o", "IdentitiesOnly=yes", "-F", "/dev/null",
        f"{getpass.getuser()}@127.0.0.1",
    ]  # fmt: skip
    try:
        _skip_unless_it_lets_in(server, command)
        yield command
    finally:
        server.terminate()
        server.communicate(timeout=TIMEOUT_S)


def _skip_unless_it_lets_in(server: subprocess.Popen[str], command: list[str]) -> None:
    """Where this user may not run an sshd, or has no login shell, there is nothing to test."""
    for _ in range(20):
        if server.poll() is not None:
            pytest.skip(f"sshd does not start: {server.communicate()[1][-300:]}")  # as where /run/sshd is missing
        done = subprocess.run([*command, "true"], capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
        if done.returncode == 0:
            return
        time.sleep(0.25)
    pytest.skip(f"sshd does not let this user in: {done.stderr[-300:]}")


def test_over_ssh_it_opens_moves_and_leaves(ssh: list[str], study: Path) -> None:
    command = f"cd {shlex.quote(str(_SOURCES))} && unset COLORTERM && exec {shlex.join([*APP, str(study)])}"
    with PtySession([*ssh, command], size=(100, 30)) as session:
        session.wait_for(PAINTED, TIMEOUT_S)
        session.settle()
        session.send(b"2")
        session.wait_for(rb"pre-trained", TIMEOUT_S)
        session.settle()
        assert session.press(b"\x1b[C", 0.2).sent
        assert _left(session).count(b"\x1b[?1049l") == 1
        assert b"38;5;" in session.seen and b"38;2;" not in session.seen, "256 colours: SSH forwards no COLORTERM"


_SOURCES = Path(__file__).resolve().parents[2]
