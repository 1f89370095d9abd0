"""A headless Chromium that takes commands of its DevTools protocol, for what no page can ask: installability, no network."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
import trio_websocket

from tests.interop.browser_peer import _CHROMIUM_FLAGS, find_browser, running

START_S = 60.0


class Devtools:
    """`await tab.call("Page.navigate", url=...)`, and `await tab.value("document.title")`."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._number = 0

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        await self._connection.send_message(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            said = json.loads(await self._connection.get_message())
            if said.get("id") == self._number:
                assert "error" not in said, said["error"]
                result: dict[str, Any] = said["result"]
                return result

    async def value(self, expression: str) -> Any:
        """Of JavaScript in the page; a promise is waited for."""
        said = await self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in said, said["exceptionDetails"]
        return said["result"].get("value")

    async def until(self, expression: str) -> Any:
        """Until it is true; the caller bounds the time."""
        while True:
            try:
                if found := await self.value(expression):
                    return found
            except AssertionError:
                pass  # the page is between two documents
            await trio.sleep(0.05)


@asynccontextmanager
async def open_chromium(*flags: str) -> AsyncIterator[Path]:
    """Its home, for `open_tab`."""
    program = find_browser("chromium")
    assert program is not None
    home = Path(tempfile.mkdtemp(prefix="psyne-chromium-"))
    try:
        command = [program, *_CHROMIUM_FLAGS, "--no-sandbox", "--remote-debugging-port=0", "--remote-allow-origins=*",
                   f"--user-data-dir={home / 'profile'}", *flags, "about:blank"]  # fmt: skip
        async with running(command, home):
            with trio.fail_after(START_S):
                while not (home / "profile" / "DevToolsActivePort").exists():
                    await trio.sleep(0.05)
            yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


@asynccontextmanager
async def open_tab(home: Path, url: str) -> AsyncIterator[Devtools]:
    port, path = (home / "profile" / "DevToolsActivePort").read_text(encoding="ascii").split()
    async with trio_websocket.open_websocket_url(f"ws://127.0.0.1:{port}{path}", max_message_size=2**26) as browser:
        target = await Devtools(browser).call("Target.createTarget", url=url)
    page = f"ws://127.0.0.1:{port}/devtools/page/{target['targetId']}"
    async with trio_websocket.open_websocket_url(page, max_message_size=2**26) as connection:
        yield Devtools(connection)
