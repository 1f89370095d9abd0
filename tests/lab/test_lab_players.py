"""Players in the lab: plain aioice proves the lab, then our own stack has to do at least as well."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio

from tests.lab import Lab, Site
from tests.lab.healing import Healing
from tests.lab.lab import DEFAULT_SHAPE
from tests.lab.matrix import Case, Cell, all_cases, chosen, run_case, run_cases, summary
from tests.lab.play import Payload, RemotePlayer, everybody_connected, open_players, servers, signaling
from tests.lab.report import BEGIN, BREAKS_BEGIN, END, breaks_table, markdown, room_table, write_page

CASES = {case.name: case for case in all_cases()}


def case(name: str) -> Case:
    return CASES[name]


# ----------------------------------------------------------------------------------------------------- aioice, the proof


@pytest.mark.lab
@pytest.mark.parametrize(
    ("name", "turn", "path"),
    [
        ("open / open", True, "host-host"),
        ("port-restricted / port-restricted", False, "srflx-srflx"),
        ("full-cone / symmetric", False, "srflx-prflx"),
        ("symmetric / symmetric", True, "relay-relay"),
        ("one isolating network, hairpin", False, "srflx-srflx"),
        ("ipv6-only / ipv6-only", True, "host-host"),
    ],
)
async def test_plain_aioice_connects_as_the_textbook_says(name: str, turn: bool, path: str) -> None:
    cell = await run_case(case(name), turn=turn, payload="aioice")
    assert cell.as_expected, cell.error
    assert cell.path == path


@pytest.mark.lab
async def test_plain_aioice_fails_where_no_way_is() -> None:
    """The lab does not connect what cannot be connected: symmetric against port-restricted, without TURN."""
    cell = await run_case(case("port-restricted / symmetric"), turn=False, payload="aioice", deadline_s=3)
    assert not cell.connected
    assert cell.as_expected


# -------------------------------------------------------------------------------------------------------- our own stack


@pytest.mark.lab
@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_quick_matrix() -> None:
    """A representative part of all pairs: every pair that has a way connects, directly where it can, in time."""
    cells: list[Cell] = []
    await run_cases(chosen(quick=True), payload="psyne", shape=DEFAULT_SHAPE, on_cell=cells.append)
    assert len(cells) == 25
    assert [cell for cell in cells if not cell.as_expected] == []
    figures = summary(cells)
    assert figures.median_ms is not None
    assert figures.p99_ms is not None
    assert figures.median_ms <= 1000
    assert figures.p99_ms <= 3000


@pytest.mark.lab
@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_room_without_turn_reaches_everybody() -> None:
    cells: list[Cell] = []
    cases = [(case, turn) for case, turn in chosen(quick=True) if not turn]
    await run_cases([*cases, (case("udp-blocked / udp-blocked"), False)], payload="room", shape=DEFAULT_SHAPE,
                    on_cell=cells.append)  # fmt: skip
    assert [cell for cell in cells if not cell.as_expected] == []
    assert cells[-1].path == "signaling-signaling"


@pytest.mark.lab
async def test_blocked_udp_costs_less_than_a_second() -> None:
    """From the start, gathering included: what cannot answer over UDP holds nobody up."""
    plain = await run_case(case("port-restricted / port-restricted"), turn=True, payload="psyne")
    blocked = await run_case(case("udp-blocked / udp-blocked"), turn=True, payload="psyne")
    assert plain.as_expected, plain.error
    assert blocked.as_expected, blocked.error
    assert plain.start_to_open_ms is not None
    assert blocked.start_to_open_ms is not None
    assert blocked.start_to_open_ms - plain.start_to_open_ms < 1000


@asynccontextmanager
async def connected_pair(lab: Lab) -> AsyncIterator[tuple[RemotePlayer, RemotePlayer]]:
    """Two players of our stack whose channels are open."""
    specs = {name: {**servers(lab, name, payload="psyne", turn=True), "offerer": name == "a"} for name in ("a", "b")}
    async with open_players(lab, specs) as (a, b), signaling(a, b):
        with trio.fail_after(30):
            for player in (a, b):
                await player.tell(do="start")
            for player in (a, b):
                assert (await player.wait_for("open", "failed"))["event"] == "open", player.events
        yield a, b


async def traffic(players: tuple[RemotePlayer, RemotePlayer], interval_ms: float = 20) -> None:
    for player in players:
        await player.tell(do="traffic", interval_ms=interval_ms)


async def reports(players: tuple[RemotePlayer, RemotePlayer]) -> list[dict[str, Any]]:
    """Stops the traffic of two players, and asks until everything reliable has arrived, or 5 s."""
    for player in players:
        await player.tell(do="stop")
    with trio.move_on_after(5):
        while True:
            await trio.sleep(0.1)
            a, b = [(await player.ask(do="report"))["report"] for player in players]
            if not missing_reliable(a, b) and not missing_reliable(b, a):
                break
    return [(await player.ask(do="report"))["report"] for player in players]


def missing_reliable(at: dict[str, Any], sender: dict[str, Any]) -> int:
    return int(sender["reliable"]["sent"] - at["reliable"]["received"])


@pytest.mark.lab
async def test_a_silence_of_a_second_loses_nothing_reliable() -> None:
    with Lab([Site("a"), Site("b", "full-cone")]) as lab:
        async with connected_pair(lab) as pair:
            await traffic(pair)
            await trio.sleep(0.3)
            with lab.breaks.silenced("a"):
                await trio.sleep(1)
            await trio.sleep(0.5)
            at_a, at_b = await reports(pair)
    for here, there in ((at_a, at_b), (at_b, at_a)):
        assert missing_reliable(here, there) == 0
        assert here["reliable"]["doubled"] == 0
        assert 0.9 < here["fast"]["silence_s"] < 3
        assert here["fast"]["latency_ms_max"] < 500  # a position of before the silence is never replayed after it


@pytest.mark.lab
async def test_loss_hits_the_fast_channel_and_not_the_reliable_one() -> None:
    with Lab([Site("a"), Site("b")]) as lab:
        async with connected_pair(lab) as pair:
            with lab.breaks.lossy("a", up=0.1):
                await traffic(pair)
                await trio.sleep(2)
            at_a, at_b = await reports(pair)
    assert missing_reliable(at_b, at_a) == 0
    assert missing_reliable(at_a, at_b) == 0
    share = at_b["fast"]["received"] / at_a["fast"]["sent"]
    assert 0.7 < share < 1  # 0.9 expected, of about 100


@pytest.mark.lab
@pytest.mark.slow
async def test_four_players_of_four_kinds_in_one_room() -> None:
    """Joined by the lab's signaling server; all of them reach all of them."""
    kinds = {"ada": "open", "bob": "full-cone", "cleo": "dual-stack", "dan": "udp-blocked"}
    with Lab([Site(name, kind) for name, kind in kinds.items()]) as lab:
        url = await trio.to_thread.run_sync(lab.start_signaling)
        specs = {
            name: {**servers(lab, name, payload="room", turn=True), "name": name, "room": "r", "signaling": url}
            for name in kinds
        }
        async with open_players(lab, specs, payload="room") as players:
            with trio.fail_after(40):
                for player in players:
                    await player.tell(do="start")
                for player in players:
                    await everybody_connected(player, set(kinds) - {player.name})
                for player in players:
                    await player.tell(do="traffic", interval_ms=20)
                await trio.sleep(1)
                for player in players:
                    answer = await player.ask(do="report")
                    assert {name for name, path in answer["peers"].items() if path} == set(kinds) - {player.name}
                    for name, channels in answer["report"].items():
                        assert channels["fast"]["received"] > 10, (player.name, name, answer)


# --------------------------------------------------------------------------------------------------------------- tables


def cell(name: str, *, turn: bool = True, payload: Payload = "psyne", **options: Any) -> Cell:
    return Cell(case=name, turn=turn, payload=payload, expected=case(name).expected(turn, payload), **options)


def test_what_counts_as_expected() -> None:
    direct: dict[str, Any] = {"connected": True, "path": "srflx-srflx", "known_to_open_ms": 100.0}
    assert cell("open / open", **direct).as_expected
    assert not cell("open / open", **{**direct, "relayed": True}).as_expected  # it could be direct
    assert cell("symmetric / symmetric", **{**direct, "relayed": True}).as_expected
    assert not cell("open / open", connected=False).as_expected
    assert cell("symmetric / symmetric", turn=False, connected=False).as_expected


def test_the_page_is_rewritten_between_its_markers(tmp_path: Any) -> None:
    page = tmp_path / "networks.md"
    page.write_text(f"# Title\n\n{BEGIN}\nold\n{END}\n\nthe end\n")
    good = cell("open / symmetric", connected=True, path="host-prflx", known_to_open_ms=123.4)
    bad = cell("one home network", connected=True, path="relay-relay", relayed=True, known_to_open_ms=9.0)
    write_page(markdown([good, bad]), page)
    text = page.read_text()
    assert text.startswith("# Title\n")
    assert text.endswith("the end\n")
    assert "old" not in text
    assert "host-prflx 123" in text
    assert "| one home network | **relay-relay 9** |" in text
    assert "2 of 2 pairs that have a way connected, 1 of 2 that can be direct are direct" in text
    page.write_text(f"{BEGIN}\nmatrix\n{END}\n{BREAKS_BEGIN}\nold\n{END}\n")
    for words in ("first", "second"):  # the block can be found again
        write_page(words, page, begin=BREAKS_BEGIN)
    assert page.read_text() == f"{BEGIN}\nmatrix\n{END}\n{BREAKS_BEGIN}\n\nsecond\n\n{END}\n"
    carried = {"connected": True, "path": "signaling-signaling", "relayed": True, "start_to_open_ms": 1234.1}
    table = room_table([cell("symmetric / symmetric", turn=False, payload="room", **carried), good])
    assert table.startswith("1 of 1 pairs connected, 1 of them through the signaling server: within 1234 ms in the mid")
    assert "| signaling 1234 |" in table
    broken = Healing(
        name="silence", healed=True, outage_s=1.23, missing=0, doubled=0, replayed_ms=44_000.0, path_before="host-host",
        path_after="peer-peer", events=(),
    )  # fmt: skip
    assert "| silence | 1.2 | 1.2 | 0, 0 | **44000** | host-host | peer-peer |" in breaks_table([broken])
    again = attrs.evolve(broken, outage_s=2.0, replayed_ms=9.0), attrs.evolve(broken, outage_s=7.0, missing=3)
    assert "| silence | 2.0 | **7.0** | **3, 0** | **44000** | host-host |" in breaks_table([broken, *again])
    page.write_text("no markers")
    with pytest.raises(ValueError, match="markers"):
        write_page("x", page)
