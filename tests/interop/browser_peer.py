"""A headless browser in a process of its own: `browser_peer.py chromium|firefox [--pages DIR] [FLAG...]`.

Serves `js/page.html`, or the index.html of that directory, on loopback and opens it in the browser. Its WebSocket
gets each line of stdin, and what it says goes to stdout; no driver is needed. The browser and its profile are gone when
stdin ends.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import IO, NoReturn

import trio

from psyne_mesh.signaling.dialing import WebSocketClosed
from psyne_mesh.signaling.front_door import Page, Request, receive_guest
from psyne_mesh.signaling.websocket import WebSocket, accept_websocket

_PAGES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/peer.js": ("peer.js", "text/javascript; charset=utf-8"),
}
_TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8"}
_REPLY_MAX_BYTES = 2**20
_GO_AWAY = '["goAway"]'

PROGRAMS = {"chromium": ("chromium", "chromium-browser", "google-chrome"), "firefox": ("firefox-esr", "firefox")}

_CHROMIUM_FLAGS = (
    "--headless=new", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-default-apps", "--disable-extensions",
    "--disable-crash-reporter", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--allow-loopback-in-peer-connection",
)  # fmt: skip

# Nothing of it looks for the internet; ICE may use loopback, which is all that some machines have.
_FIREFOX_PREFERENCES = """
user_pref("app.normandy.enabled", false);
user_pref("app.update.enabled", false);
user_pref("browser.aboutwelcome.enabled", false);
user_pref("browser.newtabpage.enabled", false);
user_pref("browser.safebrowsing.downloads.remote.enabled", false);
user_pref("browser.safebrowsing.malware.enabled", false);
user_pref("browser.safebrowsing.phishing.enabled", false);
user_pref("browser.shell.checkDefaultBrowser", false);
user_pref("browser.startup.page", 0);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("extensions.update.enabled", false);
user_pref("media.gmp-manager.updateEnabled", false);
user_pref("media.peerconnection.ice.loopback", true);
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
user_pref("network.dns.native-is-localhost", true);
user_pref("network.prefetch-next", false);
user_pref("services.settings.server", "data:,#remote-settings-dummy/v1");
user_pref("toolkit.telemetry.enabled", false);
user_pref("toolkit.telemetry.reportingpolicy.firstRun", false);
"""


# Pages that meet each other on a machine without multicast cannot look up each other's mDNS names.
_SHOWN = {
    "chromium": (["--disable-features=WebRtcHideLocalIpsWithMdns"], ""),
    "firefox": ([], 'user_pref("media.peerconnection.ice.obfuscate_host_addresses", false);\n'),
}


def find_browser(name: str) -> str | None:
    """Its program, or `None` when this machine has none."""
    return next((path for path in map(shutil.which, PROGRAMS[name]) if path), None)


def command_line(name: str, program: list[str], profile: Path, url: str, *, shown: bool = False) -> list[str]:
    """shown: it does not hide its addresses."""
    flags, preference = _SHOWN[name] if shown else ([], "")
    if name == "chromium":
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # its sandbox refuses root
        return [*program, *_CHROMIUM_FLAGS, *flags, *sandbox, f"--user-data-dir={profile}", url]
    (profile / "user.js").write_text(_FIREFOX_PREFERENCES + preference, encoding="ascii")
    return [*program, "--headless", "--no-remote", "--profile", str(profile), url]


@asynccontextmanager
async def running(command: list[str], home: Path) -> AsyncIterator[None]:
    """The browser and all its processes; `trio.BrokenResourceError` when it ends before the block does."""
    environment = os.environ | {"HOME": str(home), "MOZ_CRASHREPORTER_DISABLE": "1", "XDG_RUNTIME_DIR": str(home)}
    with tempfile.TemporaryFile() as log:
        process = await trio.lowlevel.open_process(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=environment
        )
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_ends_too_early, process, log)
                yield
                nursery.cancel_scope.cancel()
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # its children too; the profile is thrown away
            with trio.CancelScope(shield=True):
                await process.wait()


async def _ends_too_early(process: trio.Process, log: IO[bytes]) -> NoReturn:
    status = await process.wait()
    log.seek(0)
    said = log.read()[-2000:].decode(errors="replace")
    raise trio.BrokenResourceError(f"the browser ended with status {status} and said: {said}")


def page(request: Request, directory: Path, pages: dict[str, tuple[str, str]]) -> Page | None:
    if request.wants_websocket:
        return None
    name, content_type = pages.get(request.target, ("", ""))
    if not name:
        return Page(404, b"", "text/plain")
    return Page(200, (directory / name).read_bytes(), content_type)


def pages_in(directory: Path) -> dict[str, tuple[str, str]]:
    found = {f"/{path.name}": (path.name, _TYPES[path.suffix]) for path in directory.iterdir() if path.suffix in _TYPES}
    return found | {"/": found["/index.html"]}


async def read_stdin(lines: trio.MemorySendChannel[str]) -> None:
    stdin, buffer = trio.lowlevel.FdStream(os.dup(0)), b""
    async with stdin, lines:
        while more := await stdin.receive_some():
            buffer += more
            *whole, buffer = buffer.split(b"\n")
            for line in whole:
                await lines.send(line.decode())


async def serve(
    listener: trio.SocketListener, lines: trio.MemoryReceiveChannel[str], look_up: Callable[[Request], Page | None]
) -> None:
    """Pages for whoever asks; a WebSocket gets the lines."""

    async def handle(stream: trio.SocketStream) -> None:
        upgraded = await receive_guest(stream, look_up)
        if upgraded is None:
            await stream.aclose()
            return
        async with accept_websocket(upgraded, max_message_bytes=_REPLY_MAX_BYTES, timeout_s=10) as websocket:
            await relay(websocket, lines)

    await trio.serve_listeners(handle, [listener])


async def relay(websocket: WebSocket, lines: trio.MemoryReceiveChannel[str]) -> None:
    """Until the page is gone: the browser then goes, too, unless that was asked for."""
    line = ""
    try:
        async for line in lines:
            await websocket.send(line)
            print(await websocket.receive(), flush=True)
    except WebSocketClosed as error:
        if line == _GO_AWAY:
            await trio.sleep_forever()  # as a browser whose tab is closed stays
        sys.exit(f"the page is gone: {error}")


async def main(*arguments: str) -> None:
    name, *flags = arguments
    look_up = partial(page, directory=Path(__file__).parent / "js", pages=_PAGES)
    serves_pages = flags[:1] == ["--pages"]
    if serves_pages:
        directory, flags = Path(flags[1]), flags[2:]
        look_up = partial(page, directory=directory, pages=pages_in(directory))
    program = find_browser(name)
    if program is None:
        sys.exit(f"{name} is not installed")
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}/"
    home = Path(tempfile.mkdtemp(prefix="psyne-browser-"))
    to_page, lines = trio.open_memory_channel[str](0)
    try:
        (home / "profile").mkdir()
        command = command_line(name, [program, *flags], home / "profile", url, shown=serves_pages)
        async with running(command, home), trio.open_nursery() as nursery:
            nursery.start_soon(serve, listener, lines, look_up)
            await read_stdin(to_page)
            nursery.cancel_scope.cancel()
    finally:
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
