"""Prints what this terminal and this machine can do, and how to mend what is missing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

from engine.jobs.launch import survives_as_service
from simtui.safe_text import safe

_ENOUGH_BYTES = 5e9


def report() -> int:
    """Prints one line a check; returns 0, or 4 where something that studies need is broken."""
    console = Console()
    rows = [*_terminal(console), _disk(), _after_logout(), *_libraries()]
    for name, works, words in rows:
        mark = Text("ok  ", style="green") if works else Text("FAIL", style="bold red")
        first = words.replace("\n", " ")
        console.print(Text.assemble(mark, " ", (f"{name:<18}", "bold"), safe(first)), soft_wrap=True)
    return 0 if all(works for _, works, _ in rows) else 4


def _terminal(console: Console) -> list[tuple[str, bool, str]]:
    if not sys.stdout.isatty():
        return [
            ("terminal", True, "standard output is not a terminal: the app needs one, every other command does not")
        ]
    width, height = console.size
    words = f"{width} × {height}, TERM={os.environ.get('TERM', 'not set')}, {console.color_system or 'no colours'}"
    fits = width >= 60 and height >= 20
    rows = [("terminal", fits, words if fits else f"{words}: the app needs 60 × 20; enlarge the window")]
    clipboard = "by OSC 52"
    if os.environ.get("TMUX"):
        clipboard += '; inside tmux it needs "set -g set-clipboard on" in ~/.tmux.conf'
    return [*rows, ("clipboard", True, clipboard)]


def _disk() -> tuple[str, bool, str]:
    free = shutil.disk_usage(Path.cwd()).free
    words = f"{free / 1e9:.1f} GB free in the current folder"
    return (
        "disk",
        free > _ENOUGH_BYTES,
        words if free > _ENOUGH_BYTES else f"{words}: a study of ViT-B takes more; make room",
    )


def _after_logout() -> tuple[str, bool, str]:
    if survives_as_service():
        return "after logging out", True, "studies go on as services of systemd"
    words = "studies go on in sessions of their own"
    if shutil.which("loginctl"):
        words += '; where the machine ends those too (KillUserProcesses), "loginctl enable-linger" keeps them'
    return "after logging out", True, words


def _libraries() -> list[tuple[str, bool, str]]:
    """Asked of a child process: this one never loads torch."""
    child = subprocess.run([sys.executable, "-m", "engine.jobs.doctor"], capture_output=True, text=True, check=False)
    try:
        return [
            (str(name), bool(works), str(words)) for name, works, words in json.loads(child.stdout.splitlines()[-1])
        ]
    except (ValueError, IndexError):
        return [("libraries", False, f"the check itself failed: {child.stderr.strip()[-300:]}")]
