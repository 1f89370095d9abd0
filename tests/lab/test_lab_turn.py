"""TURN as services offer it: credentials of every kind, allocations that outlive their lifetimes, and a full house."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from typing import Any

import pytest
import trio

from tests.lab import Lab, Site, TurnOptions
from tests.lab.play import everybody_connected, open_players, servers, signaling

pytestmark = pytest.mark.lab

SECRET = "shared-in-the-lab"
PAIR = (Site("a", "symmetric"), Site("b", "symmetric"))
ALLOCATED = "ALLOCATE processed, success"
PHASE_S = 15.0  # a pair that cannot connect says so by then


def rest_credential(expires_in_s: float) -> dict[str, str]:
    """As a game's server makes it for a player (draft-uberti-behave-turn-rest-00)."""
    username = f"{int(time.time() + expires_in_s)}:player"
    digest = hmac.new(SECRET.encode(), username.encode(), hashlib.sha1).digest()
    return {"username": username, "credential": base64.b64encode(digest).decode()}


async def connect(options: TurnOptions, **credential: str) -> tuple[dict[str, Any], float]:
    """How two players who need a relay fare, and after how many seconds."""
    with Lab(PAIR, turn_servers={"turn": options}) as lab:
        specs = {
            name: {
                **servers(lab, name, payload="psyne", turn=True),
                **credential,
                "offerer": name == "a",
                "deadline_s": 12,
            }
            for name in ("a", "b")
        }
        async with open_players(lab, specs) as (a, b), signaling(a, b):
            began = trio.current_time()
            for player in (a, b):
                await player.tell(do="start")
            with trio.fail_after(30):
                return await a.wait_for("open", "failed"), trio.current_time() - began


async def test_a_credential_of_limited_time_works_while_it_lasts() -> None:
    outcome, _ = await connect(TurnOptions(shared_secret=SECRET), **rest_credential(600))
    assert outcome["event"] == "open", outcome


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "credential", "words"),
    [
        (TurnOptions(), {"credential": "wrong"}, "refuses the user name 'player' or its credential (401"),
        (TurnOptions(shared_secret=SECRET), rest_credential(-3600), "time-limited credential has expired"),
    ],
    ids=["wrong", "expired"],
)
async def test_a_bad_credential_is_named_in_time(options: TurnOptions, credential: dict[str, str], words: str) -> None:
    """No way is left to this pair: it fails with its phase and with what to do about it."""
    outcome, took_s = await connect(options, **credential)
    print(f"failed after {took_s:.1f} s: {outcome['error']}")
    assert outcome["event"] == "failed"
    assert outcome["phase"] == "ice"
    assert words in outcome["error"]
    assert took_s <= PHASE_S


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_an_allocation_outlives_the_lifetimes_of_the_server() -> None:
    """The server grants 12 s at a time: it has to be renewed, again and again."""
    options = TurnOptions(extra=("--max-allocate-lifetime=12",))
    with Lab(PAIR, turn_servers={"turn": options}) as lab:
        specs = {
            name: {**servers(lab, name, payload="psyne", turn=True), "offerer": name == "a"} for name in ("a", "b")
        }
        async with open_players(lab, specs) as (a, b), signaling(a, b):
            for player in (a, b):
                await player.tell(do="start")
            with trio.fail_after(30):
                for player in (a, b):
                    assert (await player.wait_for("open", "failed"))["event"] == "open"
            for player in (a, b):
                await player.tell(do="traffic", interval_ms=50)
            await trio.sleep(45)
            for player in (a, b):
                report = (await player.ask(do="report"))["report"]
                assert report["fast"]["silence_s"] < 1, report


@pytest.mark.slow
async def test_a_player_who_cannot_be_reached_at_all_is_named_in_time() -> None:
    """In a room, with every rung of the ladder closed: signaling knows the player, whose network is gone."""
    with Lab([Site("a"), Site("b")]) as lab:
        url = await trio.to_thread.run_sync(lab.start_signaling)
        specs = {
            name: {
                **servers(lab, name, payload="room", turn=True),
                "name": name,
                "room": "lab",
                "signaling": url,
                "deadline_s": 12,
            }
            for name in ("a", "b")
        }
        async with open_players(lab, specs, payload="room") as (a, b):
            await b.tell(do="start")
            with trio.fail_after(20):
                await b.wait_for("joined")
            with lab.breaks.silenced("b"):
                await a.tell(do="start")
                with trio.fail_after(30):
                    joined = await a.wait_for("joined")
                    outcome = await a.wait_for("PeerUnreachable")
    took_s = outcome["t"] - joined["t"]
    print(f"unreachable after {took_s:.1f} s: {outcome['error']}")
    assert took_s <= PHASE_S
    assert "could not connect" in outcome["error"]


def is_relayed(path: dict[str, Any] | None) -> bool:
    """Over the relay of either side: which one is a matter of luck."""
    return path is not None and "relay" in (path["local"], path["remote"])


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_a_server_that_begins_anew_serves_its_players_again() -> None:
    """It answers Binding requests as before, but has forgotten the allocations. Signaling carries until there are new ones."""
    with Lab(PAIR) as lab:
        url = await trio.to_thread.run_sync(lab.start_signaling)
        specs = {
            name: {
                **servers(lab, name, payload="room", turn=True),
                "turn": lab.turn_uris(name, ["udp"]),
                "name": name,
                "room": "lab",
                "signaling": url,
            }
            for name in ("a", "b")
        }
        async with open_players(lab, specs, payload="room") as (a, b):
            with trio.fail_after(30):
                for player in (a, b):
                    await player.tell(do="start")
                await everybody_connected(a, {"b"})
                await everybody_connected(b, {"a"})
            for player in (a, b):
                await player.tell(do="traffic", interval_ms=50)
            await trio.sleep(3)
            before = (await a.ask(do="report"))["peers"]["b"]
            known = lab.coturns["turn"].log().count(ALLOCATED)
            lab.coturns["turn"].kill()
            await trio.to_thread.run_sync(lab.coturns["turn"].start)
            began = trio.current_time()
            with trio.fail_after(60):
                while lab.coturns["turn"].log().count(ALLOCATED) < known + 2:
                    await trio.sleep(0.2)
                allocated_s = trio.current_time() - began
                # A silence of some seconds is a player lost, and found again when signaling carries.
                while not is_relayed((await a.ask(do="report"))["peers"].get("b")):
                    await trio.sleep(0.2)
            relayed_s = trio.current_time() - began
            await trio.sleep(1)
            reports = [(await player.ask(do="report"))["report"] for player in (a, b)]
    silence_s = max(tally["silence_s"] for report in reports for kept in report.values() for tally in kept.values())
    print(
        f"new allocations after {allocated_s:.1f} s, relayed again after {relayed_s:.1f} s, silence {silence_s:.1f} s"
    )
    assert is_relayed(before)
    for report in reports:
        for kept in report.values():
            assert kept["reliable"]["received"] == kept["reliable"]["highest"] + 1
            assert kept["reliable"]["doubled"] == 0


EIGHT = (
    "open", "full-cone", "address-restricted", "port-restricted", "symmetric", "double-cone", "double-symmetric",
    "udp-blocked",
)  # fmt: skip
GAME_S = 60.0
POSITIONS_PER_S = 20


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_eight_players_behind_eight_nats_play_for_a_minute() -> None:
    """All reach all, and of the positions that were sent at least 99 in 100 come: these links lose nothing themselves."""
    sites = [Site(name, kind) for name, kind in zip("abcdefgh", EIGHT, strict=True)]
    with Lab(sites) as lab:
        url = await trio.to_thread.run_sync(lab.start_signaling)
        specs = {
            site.name: {
                **servers(lab, site.name, payload="room", turn=True),
                "name": site.name,
                "room": "lab",
                "signaling": url,
            }
            for site in sites
        }
        async with open_players(lab, specs, payload="room") as players:
            with trio.fail_after(60):
                for player in players:
                    await player.tell(do="start")
                for player in players:
                    await everybody_connected(player, set(specs) - {player.name})
            for player in players:
                await player.tell(do="traffic", interval_ms=1000 / POSITIONS_PER_S)
            await trio.sleep(GAME_S)
            for player in players:
                await player.tell(do="stop")
            await trio.sleep(1)
            answers = {player.name: await player.ask(do="report") for player in players}
    shares = {
        (sender, receiver): answers[receiver]["report"][sender]["fast"]["received"] / answers[sender]["sent"]["fast"]
        for sender in specs
        for receiver in specs
        if sender != receiver
    }
    worst = min(shares, key=shares.__getitem__)
    print(
        f"worst of {len(shares)} directions: {worst} {shares[worst]:.4f}; all together {sum(shares.values()) / 56:.4f}"
    )
    assert len(shares) == 56
    assert shares[worst] >= 0.99
