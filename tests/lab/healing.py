"""Breaks in the middle of a game, and how long the players do without each other.

Players in a room, joined by the lab's signaling server, send numbered messages on a reliable and a fast channel every
20 ms. Something breaks; what counts is how long nothing came after traffic was possible again, and whether
anything reliable was lost or doubled. The players heal by themselves: nobody here tells them anything.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import attrs
import trio

from tests.lab.coturn import TurnOptions
from tests.lab.lab import Lab
from tests.lab.play import RemotePlayer, everybody_connected, open_players, servers
from tests.lab.topology import Site

INTERVAL_MS = 20.0
SETTLE_S = 3.0  # of traffic before the break: an upgrade of the path is over by then
LATE_S = 28.0  # and late in play: ICE has given up by then where it found no path
WATCH_S = 12.0  # after traffic is possible again
ALIVE_S = 0.5  # a channel that was silent for so long at the end has not healed
CONNECT_DEADLINE_S = 30.0
BULK_BYTES = 8_000
BULK_TAIL_S = 15.0  # half a megabyte waits, and a carrier takes a quarter of one a second
VPN_S = 4.0
REPLAYED_MS = 1000.0  # nothing unreliable is older: a position of before the break is worth nothing
Report = Mapping[str, Any]
HOMES = (Site("a", "port-restricted"), Site("b", "port-restricted"))
SYMMETRIC = (Site("a", "symmetric"), Site("b", "symmetric"))
OVER_A_PEER = (Site("a", "symmetric"), Site("b", "open"), Site("c", "symmetric"))
MOBILE = Site("mobile", "symmetric", players=())
OPEN_MOBILE = Site("mobile", "full-cone", players=())
FOUR = tuple(Site(name, kind) for name, kind in zip("abcd", ("port-restricted", "full-cone") * 2, strict=True))


@attrs.frozen(kw_only=True)
class Break:
    """lasts_s: how long traffic is impossible; None: the cause stays, but there is a way around it from the start.
    settle_s: of play before it. bulk: large messages are the reliable ones, as many as `send` takes.
    turn: whether the players know the TURN servers; as STUN servers they know them always."""

    name: str
    apply: Callable[[Lab], AbstractContextManager[None]]
    sites: tuple[Site, ...] = HOMES
    lasts_s: float | None = None
    settle_s: float = SETTLE_S
    turn_servers: tuple[str, ...] = ("turn",)
    turn: bool = True
    bulk: bool = False

    @property
    def players(self) -> tuple[str, ...]:
        return tuple(player for site in self.sites for player in site.inhabitants)


@contextmanager
def cut_in_two_without_servers(lab: Lab) -> Iterator[None]:
    """Nobody outside knows the players any more when the cut ends: the server that joined them stays dead."""
    assert lab.signaling is not None
    lab.signaling.kill()
    with lab.breaks.partitioned(["a", "b"], ["c", "d"], ["turn"]):
        yield


@contextmanager
def vpn_for_a_while(lab: Lab) -> Iterator[None]:
    with lab.breaks.tunnel_up("a", "mobile"):
        time.sleep(VPN_S)
    yield


@contextmanager
def moved_while_signaling_is_away(lab: Lab) -> Iterator[None]:
    """Whoever is still linked to both has to tell them."""
    with lab.breaks.signaling_killed(), lab.breaks.player_address_changed("a"):
        yield


BREAKS = (
    Break(name="NAT rebinding to new ports", apply=lambda lab: lab.breaks.nat_rebound("a")),
    Break(
        name="NAT rebinding, full cone",
        apply=lambda lab: lab.breaks.nat_rebound("a"),
        sites=(Site("a", "full-cone"), Site("b", "full-cone")),
    ),
    Break(name="new address of the home router", apply=lambda lab: lab.breaks.wan_address_changed("a")),
    Break(name="new address in the home network", apply=lambda lab: lab.breaks.player_address_changed("a")),
    Break(name="Wi-Fi to mobile", apply=lambda lab: lab.breaks.roamed("a", "mobile"), sites=(*HOMES, MOBILE)),
    Break(
        name="Wi-Fi to mobile, without TURN",
        apply=lambda lab: lab.breaks.roamed("a", "mobile"),
        sites=(*HOMES, OPEN_MOBILE),
        turn=False,
    ),
    Break(
        name="TURN server killed, another is there",
        apply=lambda lab: lab.breaks.turn_killed("turn"),
        sites=SYMMETRIC,
        turn_servers=("turn", "turn2"),
    ),
    Break(name="direct path cut, relay open", apply=lambda lab: lab.breaks.partitioned(["a"], ["b"])),
    Break(name="UDP blocked from now on", apply=lambda lab: lab.breaks.udp_blocked("a")),
    Break(name="signaling server killed", apply=lambda lab: lab.breaks.signaling_killed()),
    Break(name="silence of 3 s", apply=lambda lab: lab.breaks.silenced("a"), lasts_s=3),
    Break(name="silence of 20 s", apply=lambda lab: lab.breaks.silenced("a"), lasts_s=20),
    Break(
        name="silence of 20 s, relayed over TCP",
        apply=lambda lab: lab.breaks.silenced("a"),
        sites=(Site("a", "udp-blocked"), Site("b", "port-restricted")),
        lasts_s=20,
    ),
    Break(name="one direction dead, relay open", apply=lambda lab: lab.breaks.one_way("a", "b")),
    Break(name="30 % loss one way for 5 s", apply=lambda lab: lab.breaks.lossy("a", up=0.3), lasts_s=5),
    Break(
        name="all servers and b gone for 45 s",
        apply=lambda lab: lab.breaks.partitioned(["a"], ["b", "sig", "turn"]),
        lasts_s=45,
    ),
    Break(
        name="two and two cut apart for 45 s, signaling dead for ever",
        apply=cut_in_two_without_servers,
        sites=FOUR,
        lasts_s=45,
    ),
    *(
        Break(
            name=f"silence of {lasts_s} s late in play, signaling carries",
            apply=lambda lab: lab.breaks.silenced("a"),
            sites=SYMMETRIC,
            turn=False,
            settle_s=LATE_S,
            lasts_s=lasts_s,
        )
        for lasts_s in (3, 45)
    ),
    Break(
        name="new address late in play, signaling carries",
        apply=lambda lab: lab.breaks.player_address_changed("a"),
        sites=SYMMETRIC,
        turn=False,
        settle_s=LATE_S,
    ),
    Break(
        name="silence of 10 s late in play, a peer carries",
        apply=lambda lab: lab.breaks.silenced("a"),
        sites=OVER_A_PEER,
        turn=False,
        settle_s=LATE_S,
        lasts_s=10,
    ),
    Break(name="a VPN comes up", apply=lambda lab: lab.breaks.tunnel_up("a", "mobile"), sites=(*HOMES, OPEN_MOBILE)),
    Break(name="a VPN comes up and goes down again", apply=vpn_for_a_while, sites=(*HOMES, OPEN_MOBILE)),
    Break(
        name="NAT rebinding into a pool of four ports", apply=lambda lab: lab.breaks.nat_rebound("a", (20_000, 20_003))
    ),
    Break(name="new address while signaling is away", apply=moved_while_signaling_is_away, sites=FOUR[:3]),
    Break(name="silence of 8 s under bulk", apply=lambda lab: lab.breaks.silenced("a"), lasts_s=8, bulk=True),
    Break(
        name="silence of 10 s late in play under bulk, a peer carries",
        apply=lambda lab: lab.breaks.silenced("a"),
        sites=OVER_A_PEER,
        turn=False,
        settle_s=LATE_S,
        lasts_s=10,
        bulk=True,
    ),
    Break(name="MTU 1100, ICMP blocked, under bulk", apply=lambda lab: lab.breaks.mtu_fallen("a", 1100), bulk=True),
    Break(name="MTU 1100, ICMP blocked", apply=lambda lab: lab.breaks.mtu_fallen("a", 1100)),
    Break(
        name="MTU 1000, ICMP blocked, relayed over TCP",
        apply=lambda lab: lab.breaks.mtu_fallen("a", 1000),
        sites=(Site("a", "udp-blocked"), Site("b", "port-restricted")),
    ),
)


@attrs.frozen(kw_only=True)
class Healing:
    """outage_s: the longest silence on the fast channel of the slower side, less the time when nothing could pass."""

    name: str
    healed: bool
    outage_s: float
    missing: int  # reliable messages that were sent and had not come at the end
    doubled: int
    replayed_ms: float  # how old the oldest message was that the fast channel delivered
    path_before: str
    path_after: str
    events: tuple[str, ...]  # what the room of `a` told after the break

    @property
    def intact(self) -> bool:
        return self.healed and not self.missing and not self.doubled


async def run_break(broken: Break) -> Healing:
    """Builds the lab, plays, breaks, watches. Raises PlayerFailed or TooSlowError when the game does not even begin."""
    options = {name: TurnOptions() for name in broken.turn_servers}
    lab = await trio.to_thread.run_sync(lambda: Lab(broken.sites, turn_servers=options))
    try:
        url = await trio.to_thread.run_sync(lab.start_signaling)
        specs = {
            name: servers(lab, name, payload="room", turn=broken.turn) | {"name": name, "room": "lab", "signaling": url}
            for name in broken.players
        }
        async with open_players(lab, specs, payload="room") as players:
            return await _play(lab, broken, players)
    finally:
        lab.close()


async def _play(lab: Lab, broken: Break, players: Sequence[RemotePlayer]) -> Healing:
    with trio.fail_after(CONNECT_DEADLINE_S):
        for player in players:
            await player.tell(do="start")
        for player in players:
            await everybody_connected(player, set(broken.players) - {player.name})
    for player in players:
        if broken.bulk:
            await player.tell(do="traffic", interval_ms=INTERVAL_MS, channels=["fast"])
            await player.tell(do="bulk", message_bytes=BULK_BYTES)
        else:
            await player.tell(do="traffic", interval_ms=INTERVAL_MS)
    await trio.sleep(broken.settle_s)
    before, told = await _reports(players), len(players[0].events)
    block = broken.apply(lab)
    await trio.to_thread.run_sync(block.__enter__)
    try:
        if broken.lasts_s is None:
            await trio.sleep(WATCH_S)
        else:
            await trio.sleep(broken.lasts_s)
            await trio.to_thread.run_sync(lambda: block.__exit__(None, None, None))
            await trio.sleep(WATCH_S)
        during = await _reports(players)
        for player in players:
            await player.tell(do="stop")
        await trio.sleep(BULK_TAIL_S if broken.bulk else 2)  # what is reliable and under way may come still
        after = await _reports(players)
    finally:
        if broken.lasts_s is None:
            await trio.to_thread.run_sync(lambda: block.__exit__(None, None, None))
    return _judge(broken, before, during, after, players[0].events[told:])


def _judge(
    broken: Break,
    before: Sequence[Report],
    during: Sequence[Report],
    after: Sequence[Report],
    events: list[dict[str, Any]],
) -> Healing:
    """Over all directions between any two of the players."""
    fast = [_channel(during, one, other, "fast") for one, other in _directions(broken)]
    ends = [(one, _channel(after, one, other, "reliable")) for one, other in _directions(broken)]
    sent = {name: report["sent"]["reliable"] for name, report in zip(broken.players, after, strict=True)}
    silence_s = max(channel["silence_s"] for channel in fast)
    return Healing(
        name=broken.name,
        healed=all(channel["idle_s"] < ALIVE_S for channel in fast),
        outage_s=round(max(silence_s - (broken.lasts_s or 0), 0), 2),
        missing=sum(sent[sender] - channel["received"] for sender, channel in ends),
        doubled=sum(channel["doubled"] for _, channel in ends),
        replayed_ms=max(_channel(after, one, other, "fast")["latency_ms_max"] for one, other in _directions(broken)),
        path_before=_path(broken, before),
        path_after=_path(broken, after),
        events=tuple(name for name, _ in itertools.groupby(e["event"] for e in events if "event" in e)),
    )


def _directions(broken: Break) -> Iterator[tuple[str, str]]:
    return itertools.permutations(broken.players, 2)


async def _reports(players: Sequence[RemotePlayer]) -> list[Report]:
    return [await player.ask(do="report") for player in players]


def _channel(reports: Sequence[Report], sender: str, receiver: str, channel: str) -> dict[str, Any]:
    """What `receiver` got from `sender`; players are in the order of their names."""
    found: dict[str, Any] = reports["abcd".index(receiver)]["report"][sender][channel]
    return found


def _path(broken: Break, reports: Sequence[Report]) -> str:
    """Between the first player and the last: what each is to the other."""
    first, last = broken.players[0], broken.players[-1]
    ends = [reports[0]["peers"].get(last), reports[-1]["peers"].get(first)]
    return "-".join("none" if end is None else str(end["remote"]) for end in reversed(ends))
