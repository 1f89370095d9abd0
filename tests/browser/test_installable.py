"""The lobby in a real browser: Chromium would install it, and it opens without a server and says so."""

from __future__ import annotations

import pytest
import trio

from psyne_mesh.signaling.server import open_server
from tests.browser.chromium import open_chromium, open_tab
from tests.interop.browser_peer import find_browser

pytestmark = [
    pytest.mark.slow,
    pytest.mark.interop,
    pytest.mark.skipif(find_browser("chromium") is None, reason="chromium is not installed: .ci/install-browsers"),
]


async def test_it_is_installable_and_opens_offline() -> None:
    with trio.fail_after(120):
        async with open_chromium() as home:
            async with open_server(port=0) as server:
                url = "http" + server.url.removeprefix("ws") + "/app/"
                async with open_tab(home, url) as tab:
                    await tab.call("Page.enable")
                    await tab.until("navigator.serviceWorker.ready.then(() => document.readyState === 'complete')")
                    errors = await tab.call("Page.getInstallabilityErrors")
                    # Nobody may install anything in a private window; the criteria are the others.
                    assert [each["errorId"] for each in errors["installabilityErrors"]] in ([], ["in-incognito"])
                    manifest = await tab.call("Page.getAppManifest")
                    assert not manifest["errors"]
                    await tab.until("caches.keys().then((names) => names.length > 0)")
                    assert await tab.value("document.querySelector('button').disabled") is False
            # The server is gone; and the network, as the browser sees it.
            async with open_tab(home, "about:blank") as tab:
                await tab.call("Network.enable")
                await tab.call(
                    "Network.emulateNetworkConditions",
                    offline=True,
                    latency=0,
                    downloadThroughput=-1,
                    uploadThroughput=-1,
                )
                await tab.call("Page.navigate", url=url + "?room=den")
                said = await tab.until("document.querySelector('#status')?.textContent")
                assert "You are offline" in said
                assert await tab.value("document.querySelector('#room').value") == "den"
                assert await tab.value("document.querySelector('button').disabled") is True
