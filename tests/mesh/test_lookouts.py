"""Two halves of a room that nothing else brings together find each other by what signaling lists."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from psyne_mesh.gossip.config import GossipConfig
from psyne_mesh.testing import Quality, open_world

HALVES = ("ada", "bob"), ("cid", "dan")


async def test_halves_of_a_room_find_each_other_by_what_signaling_lists(autojump_clock: MockClock) -> None:
    quiet = GossipConfig(max_players=16, knock_factor=0.0)  # nobody knocks on doors
    with trio.fail_after(600):
        async with open_world(3, Quality(latency_s=0.02)) as world:
            rooms = {name: await world.join("game", name, gossip=quiet) for half in HALVES for name in half}
            while any(len(room.peers) < 3 for room in rooms.values()):
                await trio.sleep(0.1)
            await trio.sleep(10)  # until each has met each over a link
            with world.net.partition(*HALVES, signaling=False):
                while any(len(room.peers) > 1 for room in rooms.values()):
                    await trio.sleep(0.1)
                for room in rooms.values():  # nor does a link that sleeps wake up
                    for other in rooms.values():
                        link = room._core.link(other.me)
                        if link is not None and link.entry.is_asleep:
                            link.close("timeout")
                await trio.sleep(60)
            healed_at = trio.current_time()
            while any(len(room.peers) < 3 for room in rooms.values()):
                await trio.sleep(0.1)
            assert trio.current_time() - healed_at <= 45  # half a minute between two looks, and a dial
