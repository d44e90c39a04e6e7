"""Shows the app in a browser: who may connect, and that no app outlives the server; knows nothing of what is shown.

textual-serve brings the terminal in the browser and the processes behind it. Its own page takes a font from the
internet and its server answers whoever asks; here the page takes nothing from outside, and the server answers on
127.0.0.1 alone, to a browser that was given the address with the secret in it, and to no page of another site.
"""

from __future__ import annotations

import asyncio
import asyncio.subprocess
import os
import secrets
import shlex
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from html import escape
from pathlib import Path
from string import Template

from engine.errors import MachineError
from simtui.safe_text import safe

try:
    from aiohttp import web
    from textual_serve.app_service import AppService
    from textual_serve.download_manager import DownloadManager
    from textual_serve.server import Server, to_int
except ImportError as error:
    raise MachineError("simtui serve", "needs textual-serve", 'pip install "simtui[serve]"') from error

_ADDRESS = "127.0.0.1"
# With its port, as a browser sends it; a name that a stranger lets point to 127.0.0.1 is not among them.
_HOST_NAMES = (_ADDRESS, "localhost")
_PATIENCE_S = 5.0
_PAGE, _SCRIPT = (Path(__file__).with_name(name) for name in ("serving.html", "serving.js"))
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "clipboard-read=()",
    "Referrer-Policy": "no-referrer",  # the address is the secret
    "X-Content-Type-Options": "nosniff",
}
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def serve(studies: Sequence[Path], port: int, say: Callable[[str], None]) -> None:
    """Serves the app until it is stopped by ctrl+c or a signal; then every app that it has started is ended.

    Args:
        studies: study folders.
        port: of 127.0.0.1.
        say: is told, when browsers can connect, how.
    Raises:
        MachineError: the port cannot be had.
    """
    with _listening(port) as listener:
        asyncio.run(_serve_on(listener, AppServer(app_command(studies), studies[0].resolve().name), say))


def app_command(studies: Sequence[Path]) -> str:
    """The shell command of one app: this Python's simtui; `exec`, so that a signal reaches it and not a shell.

    -P: no module comes from the working folder.
    """
    paths = [str(path.resolve()) for path in studies]
    return "exec " + shlex.join([sys.executable, "-P", "-m", "simtui", "open", *paths])


def _listening(port: int) -> socket.socket:
    try:
        return socket.create_server((_ADDRESS, port))
    except OSError as error:
        problem = f"cannot be listened on ({os.strerror(error.errno or 0)})"
        raise MachineError(f"port {port}", problem, f"choose another: --port {port + 1}") from error


async def _serve_on(listener: socket.socket, server: AppServer, say: Callable[[str], None]) -> None:
    stopped, loop = asyncio.Event(), asyncio.get_running_loop()
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if each != signal.SIGHUP or signal.getsignal(each) != signal.SIG_IGN:  # nohup means to stay
            loop.add_signal_handler(each, stopped.set)
    # No log of requests: it would hold the secret.
    runner = web.AppRunner(server.web_app(), access_log=None, shutdown_timeout=2 * _PATIENCE_S)
    await runner.setup()
    try:
        await web.SockSite(runner, listener).start()
        port = listener.getsockname()[1]
        # Not "localhost": that may be ::1, where on a shared machine somebody else may listen for the secret.
        say(f"simtui is at  http://{_ADDRESS}:{port}{server.path}/")
        say(f"from another machine, first:  ssh -L {port}:{_ADDRESS}:{port} HOST")
        say("Keep the address to yourself: whoever has it acts as you. ctrl+c ends it.")
        await stopped.wait()
    finally:
        await runner.cleanup()


class _ServedApp(AppService):
    """The process of one app behind one browser tab."""

    def __init__(self, command: str, websocket: web.WebSocketResponse, hang_up: Callable[[], None]) -> None:
        super().__init__(
            command,
            write_bytes=websocket.send_bytes,
            write_str=websocket.send_str,
            close=partial(_close, websocket),
            download_manager=DownloadManager(),
        )
        self._hang_up = hang_up

    def _build_environment(self, width: int = 80, height: int = 24) -> dict[str, str]:
        """What the server's own terminal can do says nothing about the browser's."""
        environment = super()._build_environment(width, height)
        for name in ("TMUX", "STY"):
            environment.pop(name, None)
        return environment | {"TERM": "xterm-256color", "COLORTERM": "truecolor", "PYTHONIOENCODING": "utf-8"}

    async def run(self) -> None:
        """Passes on what the app writes; when it is over, for whatever reason, the tab is told."""
        await super().run()
        with suppress(ConnectionError):
            await self.remote_close()

    async def stop(self) -> None:
        """Asks the app to end, then makes it: one that waits for a browser that is gone reads no request."""
        if (process := self._process) is None:
            return
        asked = asyncio.create_task(self._ask_to_end(process))
        await asyncio.wait([asked], timeout=_PATIENCE_S)
        if not asked.done():
            if process.returncode is None:
                process.kill()
            self._hang_up()  # a browser that takes nothing more would keep the writer waiting
        await asked

    async def _ask_to_end(self, process: asyncio.subprocess.Process) -> None:
        await super().stop()
        await process.wait()


class AppServer(Server):
    """Starts an app for every browser tab that has the secret.

    Args:
        command: the shell command of an app.
        title: of the browser's tab.
    """

    def __init__(self, command: str, title: str) -> None:
        super().__init__(command, host=_ADDRESS, title=title)
        self._secret = secrets.token_urlsafe(32)
        self._apps: set[_ServedApp] = set()

    @property
    def path(self) -> str:
        """Where everything lies: below the secret. A cookie would reach every port of this machine."""
        return f"/{self._secret}"

    def web_app(self) -> web.Application:
        """The page, what it is made of, and the connection to an app."""
        app = web.Application(middlewares=[self._guard])
        app.add_routes(
            [
                web.get(f"{self.path}/", self.handle_page),
                web.get(f"{self.path}/{_SCRIPT.name}", self.handle_script),
                web.get(f"{self.path}/ws", self.handle_websocket),
                web.static(f"{self.path}/static", self.statics_path),
            ]
        )
        app.on_response_prepare.append(_add_headers)
        app.on_shutdown.append(self.on_shutdown)
        return app

    async def handle_page(self, request: web.Request) -> web.Response:
        """The page: a terminal, and what is said before it is there and after it has ended."""
        address = f"ws://{request.host}{self.path}/ws"
        text = Template(_PAGE.read_text("utf-8")).substitute(title=escape(safe(self.title)), address=escape(address))
        return web.Response(text=text, content_type="text/html")

    async def handle_script(self, request: web.Request) -> web.FileResponse:
        """What the page adds to textual-serve's own script."""
        return web.FileResponse(_SCRIPT)

    async def handle_websocket(self, request: web.Request) -> web.WebSocketResponse:
        """Runs an app for as long as a browser tab is connected."""
        websocket = web.WebSocketResponse(heartbeat=15, timeout=_PATIENCE_S)
        await websocket.prepare(request)
        app = _ServedApp(self.command, websocket, partial(_hang_up, request))
        self._apps.add(app)
        try:
            await app.start(to_int(request.query.get("width", ""), 80), to_int(request.query.get("height", ""), 24))
            await self._process_messages(websocket, app)
        finally:
            await app.stop()
            self._apps.discard(app)
        return websocket

    async def on_shutdown(self, app: web.Application) -> None:
        """Ends the apps; their browser tabs say so."""
        await asyncio.gather(*(each.stop() for each in self._apps))

    @web.middleware
    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Refuses other users of this machine, who lack the secret, and pages of other sites, which a browser names."""
        origin, is_page = request.headers.get("Origin"), not request.path.endswith("/ws")
        is_same_site = origin == f"http://{request.host}" or (is_page and origin is None)
        given = request.path.split("/")[1]
        has_secret = secrets.compare_digest(given.encode("utf-8", "replace"), self._secret.encode())
        if not (request.host.partition(":")[0] in _HOST_NAMES and is_same_site and has_secret):
            raise web.HTTPForbidden(text="403: open the whole address that `simtui serve` has printed\n")
        return await handler(request)


async def _close(websocket: web.WebSocketResponse) -> None:
    await websocket.close()


def _hang_up(request: web.Request) -> None:
    if request.transport is not None:  # else the browser was first
        request.transport.abort()


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """No page of this server reaches or is shown inside another site, even where a name in a study tries."""
    own = f"'self' ws://{request.host}"
    policy = {
        "default-src": "'none'", "script-src": "'self'", "style-src": "'self' 'unsafe-inline'", "font-src": "'self'",
        "img-src": "'self' data:", "connect-src": own, "frame-ancestors": "'none'", "base-uri": "'none'",
        "form-action": "'none'",
    }  # fmt: skip
    response.headers.update(_HEADERS)
    response.headers["Content-Security-Policy"] = "; ".join(f"{key} {value}" for key, value in policy.items())
