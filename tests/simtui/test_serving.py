"""`simtui serve`: who is refused, that the app is drawn and takes keys in a browser, and that nothing stays behind."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import psutil
import pytest
from PIL import Image

from simtui.palette import scale_color
from simtui.serving import app_command
from tests.simtui.studies import similarity, study_of, write_study

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
HOSTILE = """it's "a"; touch pwned $(touch pwned) `touch pwned` <b>&"""
UPGRADE = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
           "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}  # fmt: skip
PATIENCE_S = 60.0


@dataclass(frozen=True)
class Served:
    """A server that is running."""

    process: subprocess.Popen[str]
    said: list[str]
    port: int
    address: str

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def apps(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(PATIENCE_S)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def serving(study: Path, cwd: Path) -> Iterator[Served]:
    port = free_port()
    command = [sys.executable, "-m", "simtui", "serve", str(study), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=cwd) as process:
        assert process.stdout is not None
        try:
            said = [process.stdout.readline() for _ in range(3)]
            address = re.search(r"http://\S+", "".join(said))
            assert address is not None, said
            yield Served(process, said, port, address[0])
        finally:
            process.kill()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A study whose path a shell must never read."""
    folder = tmp_path_factory.mktemp("serving")
    study = write_study(folder / HOSTILE, study_of(("bundled:supervised",), seeds=2, epochs=2))
    with serving(study, folder) as server:
        yield server
        assert server.stop() == 130
    assert [each.name for each in folder.iterdir()] == [HOSTILE]


@asynccontextmanager
async def tab(server: Served, origin: str = "") -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """What a browser tab does: a connection to an app of its own."""
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{server.address}ws?width=120&height=40", origin=origin or server.root) as socket,
    ):
        await socket.send_json(["stdin", "1"])  # the app opens with the view that was last in front
        yield socket


async def seen(socket: aiohttp.ClientWebSocketResponse, text: str) -> str:
    """All that the app writes until it has written a text."""
    written = ""
    async with asyncio.timeout(PATIENCE_S):
        while text not in re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", written):
            message = await socket.receive()
            assert message.type in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT), (message, written)
            if message.type == aiohttp.WSMsgType.BINARY:
                written += message.data.decode()
    return written


async def over(socket: aiohttp.ClientWebSocketResponse) -> None:
    """Reads until the server closes the connection."""
    assert [each async for each in socket if each.type == aiohttp.WSMsgType.ERROR] == []


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not is_so():
            await asyncio.sleep(0.05)


def test_the_command_is_this_python_and_a_shell_reads_nothing_of_a_path(tmp_path: Path) -> None:
    paths = [tmp_path / HOSTILE, tmp_path / "two\nlines"]
    words = shlex.split(app_command([Path(os.path.relpath(each)) for each in paths]))
    assert words == ["exec", sys.executable, "-P", "-m", "simtui", "open", *map(str, paths)]


def test_it_says_where_it_is_and_listens_on_127_0_0_1_only(served: Served) -> None:
    assert re.fullmatch(rf"simtui is at  {served.root}/[\w-]{{43}}/\n", served.said[0])
    assert served.said[1].endswith(f"ssh -L {served.port}:127.0.0.1:{served.port} HOST\n")
    listening = psutil.Process(served.process.pid).net_connections()
    assert {each.laddr for each in listening if each.status == psutil.CONN_LISTEN} == {("127.0.0.1", served.port)}


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("{secret}/", {"Host": "evil.example:{port}"}),
        ("{secret}/", {"Host": "127.0.0.1.evil.example:{port}"}),
        ("{secret}/", {"Host": "[::1]:{port}"}),
        ("{secret}/", {"Origin": "http://evil.example"}),
        ("{secret}/", {"Origin": "null"}),
        ("{secret}/ws", UPGRADE),
        ("{secret}/ws", {**UPGRADE, "Origin": "http://evil.example"}),
        ("{secret}/ws", {**UPGRADE, "Origin": "http://127.0.0.1:1"}),
        ("{secret}/ws", {**UPGRADE, "Origin": "http://evil.example:{port}", "Host": "evil.example:{port}"}),
        ("/", {}),
        ("/ws", {**UPGRADE, "Origin": "{root}"}),
        ("/static/js/textual.js", {}),
        ("/" + 43 * "x" + "/", {}),
        ("/" + 43 * "x" + "/ws", {**UPGRADE, "Origin": "{root}"}),
        ("/%ff%00/", {}),
        ("/download/key", {}),
    ],
)
async def test_who_is_refused(served: Served, path: str, headers: dict[str, str]) -> None:
    secret = served.address.removeprefix(served.root).rstrip("/")
    names = {"port": served.port, "root": served.root, "secret": secret}
    sent = {name: value.format(**names) for name, value in headers.items()}
    async with aiohttp.ClientSession() as session, session.get(served.root + path.format(**names), headers=sent) as got:
        assert got.status == 403
        assert secret not in await got.text()


async def test_the_page_and_all_that_it_is_made_of_come_from_this_server(served: Served) -> None:
    async with aiohttp.ClientSession() as session:
        async with session.get(served.address) as got:
            page, policy = await got.text(), got.headers["Content-Security-Policy"]
            assert got.headers["Referrer-Policy"] == "no-referrer"
        parts = re.findall(r'(?:src|href)="([^"]+)"|url\("([^"]+)"\)', page)
        paths = sorted({"".join(each) for each in parts} - {"data:,"})
        assert len(paths) == 5
        for path in paths:
            async with session.get(served.address + path) as got:
                assert (got.status, await got.read() != b"") == (200, True), path
    assert re.findall(r"\w+://[^/]*", page) == [f"ws://127.0.0.1:{served.port}"]
    assert re.findall(r"\w+://[^/; ]*", policy) == [f"ws://127.0.0.1:{served.port}"]
    assert policy.startswith("default-src 'none'; script-src 'self';")
    assert "<title>it&#x27;s &quot;a&quot;; touch pwned $(touch pwned) `touch pwned` &lt;b&gt;&amp; · simtui" in page


async def test_with_the_whole_address_the_app_is_there_in_all_colours_and_takes_keys(served: Served) -> None:
    async with tab(served) as socket:
        drawn = await seen(socket, "6 runs (1 backbone")
        assert "48;2;86;180;233" in drawn  # the accent itself, not its neighbour among 256
        await socket.send_json(["stdin", "2"])
        await seen(socket, "CLS similarity to the pre-trained model")
    await until(lambda: not served.apps())


async def test_it_answers_under_the_name_localhost_and_behind_another_port(served: Served) -> None:
    """As it looks at the near end of ssh -L."""
    async with aiohttp.ClientSession() as session:
        headers = {"Host": "localhost:9999"}
        async with session.get(served.address, headers=headers) as got:
            assert "ws://localhost:9999/" in await got.text()
        async with session.ws_connect(f"{served.address}ws", headers=headers, origin="http://localhost:9999") as socket:
            await socket.send_json(["stdin", "1"])
            await seen(socket, "6 runs (1 backbone")


async def test_ctrl_c_ends_the_server_and_every_app_even_one_that_does_not_answer(study: Path, tmp_path: Path) -> None:
    with serving(study, tmp_path) as server:
        async with tab(server) as first, tab(server) as second:
            await asyncio.gather(seen(first, "12 runs ("), seen(second, "12 runs ("))
            apps = server.apps()
            assert len(apps) == 2
            apps[0].suspend()
            server.process.send_signal(signal.SIGINT)
            async with asyncio.timeout(PATIENCE_S):
                await asyncio.gather(over(first), over(second))
            assert await asyncio.to_thread(server.process.wait, PATIENCE_S) == 130
            assert not any(each.is_running() for each in apps)


async def test_an_app_does_not_outlive_a_server_that_is_killed(study: Path, tmp_path: Path) -> None:
    with serving(study, tmp_path) as server:
        async with tab(server) as socket:
            await seen(socket, "12 runs (")
            apps = server.apps()
            assert len(apps) == 1
            server.process.kill()
            await until(lambda: not any(each.is_running() and each.status() != "zombie" for each in apps))


async def test_an_app_that_cannot_start_says_why_in_the_terminal(small_study: Path, tmp_path: Path) -> None:
    with serving(small_study, tmp_path) as server:
        shutil.rmtree(small_study)
        async with tab(server) as socket, asyncio.timeout(PATIENCE_S):
            assert [each async for each in socket if each.type == aiohttp.WSMsgType.BINARY] == []
        server.stop()
        assert server.process.stdout is not None
        assert "not a study folder" in server.process.stdout.read()


def simtui(*arguments: object, code: str = "") -> tuple[int, str, str]:
    start = ["-c", code] if code else ["-m", "simtui"]
    done = subprocess.run(
        [sys.executable, *start, *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True, text=True,
        check=False, timeout=PATIENCE_S,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_what_is_no_study_is_refused_as_without_a_browser(tmp_path: Path) -> None:
    refused = simtui("serve", tmp_path)
    assert refused == simtui("open", tmp_path)
    assert (refused[0], "not a study folder" in refused[2]) == (2, True)


def test_a_port_in_use_and_a_missing_extra_are_said_with_a_fix(study: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert simtui("serve", study, "--port", port) == (
            4, "", f"simtui: port {port}: cannot be listened on (Address already in use)\n"
            f"  fix: choose another: --port {port + 1}\n",
        )  # fmt: skip
    code = "import sys; sys.modules['textual_serve'] = None; from simtui.cli import main; main()"
    assert simtui("serve", study, code=code) == (
        4, "", 'simtui: simtui serve: needs textual-serve\n  fix: pip install "simtui[serve]"\n',
    )  # fmt: skip


def test_no_option_opens_it_to_other_machines(study: Path) -> None:
    code, _, said = simtui("serve", study, "--host", "0.0.0.0")
    assert (code, "No such option" in said) == (2, True)


class Browser:
    """A page of headless Chromium, by its debugging protocol; keeps every event."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket, self._n_calls = socket, 0
        self.events: list[dict[str, Any]] = []

    async def call(self, method: str, **parameters: object) -> dict[str, Any]:
        self._n_calls += 1
        await self._socket.send_json({"id": self._n_calls, "method": method, "params": parameters})
        while True:
            message = json.loads((await self._socket.receive(PATIENCE_S)).data)
            if message.get("id") == self._n_calls:
                return dict(message.get("result", {}))
            self.events.append(message)

    def of(self, method: str) -> list[dict[str, Any]]:
        return [each["params"] for each in self.events if each["method"] == method]

    async def press(self, key: str) -> None:
        await self.call("Input.dispatchKeyEvent", type="keyDown", text=key, key=key)
        await self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    async def pixels(self) -> np.ndarray:
        """What it shows; one black pixel while it turns to another page."""
        shot = await self.call("Page.captureScreenshot", format="png")
        if "data" not in shot:
            return np.zeros((1, 1, 3), np.uint8)
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB"))

    async def shows(self, is_so: Callable[[np.ndarray], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not is_so(await self.pixels()):
                await asyncio.sleep(0.2)


@asynccontextmanager
async def browser(profile: Path) -> AsyncIterator[Browser]:
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-background-networking", "--window-size=1280,800"]
    command += [f"--user-data-dir={profile}", "--remote-debugging-port=0", "about:blank"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            found = profile / "DevToolsActivePort"
            await until(lambda: found.is_file() and "\n" in found.read_text())
            address = f"http://127.0.0.1:{found.read_text().split()[0]}/json"
            async with aiohttp.ClientSession() as session:
                async with session.get(address) as got:
                    page = next(each for each in await got.json() if each["type"] == "page")
                async with session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                    yield Browser(socket)
        finally:
            process.terminate()


def share_of(color: str) -> Callable[[np.ndarray], float]:
    rgb = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return lambda pixels: float((np.abs(pixels.astype(int) - rgb).max(axis=-1) <= 2).mean())


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
async def test_a_browser_draws_the_runs_and_then_the_map(served: Served, tmp_path: Path) -> None:
    accent = share_of("#56b4e9")
    cell = share_of(scale_color(similarity("full", seed=0, epoch=2, i=0, j=0)))
    async with browser(tmp_path / "profile") as page:
        for domain in ("Network", "Page", "Runtime", "Log"):
            await page.call(f"{domain}.enable")
        await page.call("Page.navigate", url=served.address)
        await page.shows(lambda pixels: accent(pixels) > 0.001)
        await page.press("1")  # without a click: the terminal has the focus
        await page.shows(lambda pixels: cell(pixels) < 0.001 < accent(pixels))
        await page.press("2")
        await page.shows(lambda pixels: cell(pixels) > 0.004)
        asked = [each["request"]["url"] for each in page.of("Network.requestWillBeSent")]
        frames = [each["response"] for each in page.of("Network.webSocketFrameReceived")]
    assert len(asked) == 6
    assert all(each.startswith(served.address) for each in asked), asked
    assert page.of("Runtime.exceptionThrown") == []
    assert [each for each in page.of("Log.entryAdded") if each["entry"]["level"] == "error"] == []
    written = b"".join(base64.b64decode(each["payloadData"]) for each in frames if each["opcode"] == 2).decode()
    assert "6 runs (1 backbone" in re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", written)
