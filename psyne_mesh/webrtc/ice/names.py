"""The `.local` names that browsers show in the place of addresses (draft-ietf-mmusic-mdns-ice-candidates)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aioice import mdns


class NameResolver:
    """Asks by multicast DNS. One for each asyncio loop: aioice's own is one for a thread, and breaks in the second loop.

    1. `resolve`, in the loop, as often as needed: the first opens the socket. 2. `close`, in the loop.
    """

    def __init__(self) -> None:
        self._opening: asyncio.Task[mdns.MDnsProtocol] | None = None

    async def resolve(self, name: str) -> str | None:
        """Its address, or `None` when nobody answers within a second. Raises `OSError` where there is no multicast."""
        if self._opening is None:
            from aioice import mdns  # with dnspython

            self._opening = asyncio.ensure_future(mdns.create_mdns_protocol())
        protocol = await asyncio.shield(self._opening)  # others wait for the same socket
        return await protocol.resolve(name)

    async def close(self) -> None:
        if self._opening is None:
            return
        try:
            protocol = await self._opening
        except OSError:
            return  # it never opened
        await protocol.close()
