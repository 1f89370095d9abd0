"""What goes through others while two players have no link, and over their link when it comes, keeps its order."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from psyne_mesh import Message
from psyne_mesh.mesh.profile import Profile
from psyne_mesh.testing import Quality, open_world
from psyne_mesh.testing.network import VirtualHost


class Numbered(Message):
    number: int


@pytest.mark.parametrize("to_one", [True, False])
@pytest.mark.parametrize("detour_s", [0.01, 0.3])
async def test_order_between_the_link_and_the_way_through_others(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, detour_s: float, to_one: bool
) -> None:
    """The way through others is the slower one: what goes over the link meanwhile could arrive first. No tunnel, as with a
    browser: it would hide the change."""
    make = Profile.make

    def of_a_browser(*arguments: Any) -> Profile:
        return msgspec.structs.replace(make(*arguments), no_tunnel=True)

    monkeypatch.setattr(Profile, "make", of_a_browser)
    got: list[int] = []
    had_link: list[bool] = []
    async with open_world(seed=1) as world, trio.open_nursery() as nursery:
        ada = await world.join("lobby", "ada")
        await world.join("lobby", "cid")
        host = world.net.host
        apart = ExitStack()

        def host_apart(name: str, **options: Any) -> VirtualHost:
            made = host(name, **options)
            apart.enter_context(world.net.cut(("ada", name), (name, "ada")))
            return made

        monkeypatch.setattr(world.net, "host", host_apart)
        bob = await world.join("lobby", "bob")
        for name in ("ada", "bob"):
            world.net.set_quality(name, "cid", Quality(latency_s=detour_s))
        while bob.me not in ada.peers:
            await trio.sleep(0.1)
        numbers = ada.channel("numbers", Numbered)

        async def read() -> None:
            async for _, message in bob.channel("numbers", Numbered):
                got.append(message.number)

        async def meet_and_part() -> None:
            await trio.sleep(8)
            apart.close()
            await trio.sleep(12)
            with world.net.cut(("ada", "bob"), ("bob", "ada")):
                await trio.sleep(15)

        nursery.start_soon(read)
        nursery.start_soon(meet_and_part)
        sent = 0
        with trio.move_on_after(50):
            while True:
                await numbers.send(Numbered(sent), to=ada.peers[bob.me] if to_one else None)
                sent += 1
                has_link = ada.peers[bob.me].connected
                if not had_link or had_link[-1] != has_link:
                    had_link.append(has_link)
                await trio.sleep(1 / 30)
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    assert got == list(range(sent))
    assert had_link[:2] == [False, True]
