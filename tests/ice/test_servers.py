"""Gathering from STUN and TURN servers, and paths over relays. Real sockets, servers of our own in this process."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
import trustme

from psyne_mesh.config import StunServer, TurnServer, WebRTCConfig
from psyne_mesh.errors import ConnectFailed
from psyne_mesh.webrtc.ice import (
    Disconnected,
    GatheringComplete,
    IceGateway,
    LocalCandidate,
    PathSelected,
    gather,
    open_gateway,
)
from psyne_mesh.webrtc.ice.candidates import parse_candidate_untrusted
from tests.ice import servers
from tests.ice.helpers import LOOPBACK, Side, exchange, introduce, open_pair, selected
from tests.ice.servers import CREDENTIAL, USER, stun_server, turn_server

OUTSIDE = ("198.51.100.7", 7777)


def with_stun(*which: servers.StunServer, **changes: object) -> WebRTCConfig:
    return attrs.evolve(LOOPBACK, stun_servers=tuple(StunServer(*server.address) for server in which), **changes)


def with_turn(server: servers.TurnServer, transport: str = "udp", **changes: object) -> WebRTCConfig:
    host, port = {"udp": server.address, "tcp": server.stream_address, "tls": server.tls_address}[transport]
    one = TurnServer(host, port, username=USER, credential=CREDENTIAL, transport=transport)  # type: ignore[arg-type]
    return attrs.evolve(LOOPBACK, turn_servers=(one,), **changes)


@asynccontextmanager
async def gathered(config: WebRTCConfig) -> AsyncGenerator[tuple[IceGateway, Side], None]:
    async with open_gateway(config) as gateway, trio.open_nursery() as nursery:
        side = Side(gateway, controlling=True)
        await nursery.start(side.transport.run)
        await side.event(GatheringComplete)
        yield gateway, side
        side.transport.close()


def kinds(side: Side) -> list[str]:
    return [parse_candidate_untrusted(text)[0].type for text in side.candidates]


# ----------------------------------------------------------------------------------------------------------------- STUN


async def test_a_stun_server_gives_a_server_reflexive_candidate() -> None:
    async with stun_server() as server:
        server.mapped = OUTSIDE
        async with gathered(with_stun(server)) as (gateway, side):
            assert kinds(side) == ["host", "srflx"]
            candidate, _ = parse_candidate_untrusted(side.candidates[1])
            assert (candidate.host, candidate.port) == OUTSIDE
            assert (candidate.related_address, candidate.related_port) == gateway.port.bases[0].address
            assert not gateway.problems


async def test_a_server_of_rfc_3489_tells_as_much() -> None:
    async with stun_server() as server:
        server.mapped, server.legacy = OUTSIDE, True
        async with gathered(with_stun(server)) as (gateway, side):
            assert kinds(side) == ["host", "srflx"]
            candidate, _ = parse_candidate_untrusted(side.candidates[1])
            assert (candidate.host, candidate.port) == OUTSIDE
            assert not gateway.problems


async def test_without_a_nat_the_answer_adds_nothing() -> None:
    async with stun_server() as server, gathered(with_stun(server)) as (_, side):
        assert kinds(side) == ["host"]


async def test_the_second_peer_asks_nobody() -> None:
    async with stun_server() as server:
        server.mapped = OUTSIDE
        async with gathered(with_stun(server)) as (gateway, _), trio.open_nursery() as nursery:
            asked = server.asked
            second = Side(gateway, controlling=True)
            await nursery.start(second.transport.run)
            assert kinds(second) == ["host", "srflx"]
            assert [type(event) for event in second.events[-2:]] == [LocalCandidate, GatheringComplete]
            assert server.asked == asked
            second.transport.close()


async def test_several_servers_agree_on_one_candidate_and_dead_ones_cost_no_time() -> None:
    async with stun_server() as one, stun_server() as two, stun_server() as dead:
        one.mapped = two.mapped = OUTSIDE
        dead.silent = True
        config = with_stun(dead, one, two, ice_gathering_timeout_s=60)
        async with open_pair(config, connect=False) as (a, b):
            await a.until(lambda: len(a.candidates) == 2)
            introduce(a, b)
            await selected(a, b)
            assert kinds(a) == ["host", "srflx"]
            assert not a.all(GatheringComplete)  # it is still waiting for the dead one: nobody else is


async def test_gathering_ends_by_its_timeout_and_names_the_dead_server() -> None:
    async with stun_server() as dead:
        dead.silent = True
        async with gathered(with_stun(dead, ice_gathering_timeout_s=0.05)) as (gateway, side):
            assert kinds(side) == ["host"]
            await side.until(lambda: gateway.problems)
            assert gateway.problems == {f"stun:127.0.0.1:{dead.address[1]}": "no answer"}


async def test_a_server_that_refuses_or_does_not_exist_is_named() -> None:
    async with stun_server() as server:
        server.refuse = 500
        config = with_stun(server)
        nowhere = attrs.evolve(config, stun_servers=(*config.stun_servers, StunServer("127.0.0.1.invalid")))
        async with gathered(nowhere) as (gateway, side):
            assert kinds(side) == ["host"]
            assert len(gateway.problems) == 2


async def test_a_name_that_only_the_resolver_refuses_is_a_problem_of_its_server() -> None:
    """IDNA 2003, by which names are checked, has a snowman; IDNA 2008, by which Trio asks for them, has none."""
    snowman = "\N{SNOWMAN}.example"
    with pytest.raises(UnicodeError):
        await trio.socket.getaddrinfo(snowman, 3478)
    turn = [TurnServer(snowman, transport=transport) for transport in ("udp", "tcp", "tls")]  # type: ignore[arg-type]
    config = attrs.evolve(LOOPBACK, stun_servers=(StunServer(snowman),), turn_servers=tuple(turn))
    async with gathered(config) as (gateway, side):
        assert kinds(side) == ["host"]
        assert len(gateway.problems) == 4


async def test_server_reflexive_candidates_of_ipv6() -> None:
    async with stun_server("::1") as server:
        server.mapped = ("2001:db8::7", 7777)
        async with gathered(with_stun(server, bind_host="::1")) as (_, side):
            assert kinds(side) == ["host", "srflx"]
            assert parse_candidate_untrusted(side.candidates[1])[0].host == "2001:db8::7"


async def test_a_wildcard_socket_names_the_address_it_uses() -> None:
    async with stun_server() as server:
        server.mapped = OUTSIDE
        async with gathered(with_stun(server, bind_host=None, use_ipv6=False)) as (_, side):
            texts = [parse_candidate_untrusted(text)[0] for text in side.candidates]
            assert [one.related_address for one in texts if one.type == "srflx"] == ["127.0.0.1"]


async def test_a_changed_mapping_is_offered_to_later_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "KEEPALIVE_S", 0.01)
    async with stun_server() as server:
        server.mapped = OUTSIDE
        async with gathered(with_stun(server)) as (gateway, side), trio.open_nursery() as nursery:
            server.mapped = ("198.51.100.8", 8888)
            await side.until(lambda: any(found.address == server.mapped for found, _ in gateway.found))
            later = Side(gateway, controlling=True)
            await nursery.start(later.transport.run)
            assert [parse_candidate_untrusted(text)[0].port for text in later.candidates][1:] == [8888]
            assert len(side.candidates) == 2  # its peer was told that there is nothing more
            later.transport.close()


async def test_relay_only_asks_no_stun_server() -> None:
    async with stun_server() as stun, turn_server() as turn:
        config = attrs.evolve(with_turn(turn), stun_servers=(StunServer(*stun.address),), relay_only=True)
        async with gathered(config) as (_, side):
            assert kinds(side) == ["relay"]
            assert stun.asked == 0


# ----------------------------------------------------------------------------------------------------------------- TURN


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    return context


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
async def test_two_peers_behind_relays_connect(transport: str, authority: trustme.CA) -> None:
    def trusting() -> ssl.SSLContext:
        context = ssl.create_default_context()
        authority.configure_trust(context)
        return context

    async with turn_server(tls=server_context(authority)) as server:
        config = with_turn(server, transport, relay_only=True)
        async with (
            open_gateway(config, tls=trusting) as left,
            open_gateway(config, tls=trusting) as right,
            trio.open_nursery() as nursery,
        ):
            a, b = Side(left, controlling=True), Side(right, controlling=False)
            for side in (a, b):
                await nursery.start(side.transport.run)
                await side.event(GatheringComplete)
            introduce(a, b)
            await selected(a, b)
            await exchange(a, b)
            path = a.transport.path
            assert path is not None
            assert (path.kind, path.relay_protocol, path.local_kind) == ("relay", transport, "relay")
            assert kinds(a) == kinds(b) == ["relay"]
            for side, gateway in ((a, left), (b, right)):
                _, port = gateway.port.bases[0].address
                assert not any(f" {port} " in text for text in side.candidates)
                assert all("raddr 0.0.0.0 rport 9" in text for text in side.candidates)
            big = [bytes([20 + number]) * 1191 for number in range(40)]
            a.transport.send(big)
            await b.until(lambda: len(b.received) >= 42)
            assert b.received[-40:] == big
            a.transport.close()
            b.transport.close()
        with trio.fail_after(5):
            while server.allocations:  # the end of the endpoint freed them
                await trio.sleep(0.001)


async def test_one_allocation_serves_all_peers() -> None:
    async with turn_server() as server:
        config = with_turn(server, relay_only=True)
        async with open_gateway(config) as left, trio.open_nursery() as nursery:
            sides: list[Side] = []
            for _ in range(4):
                a = Side(left, controlling=True)
                await nursery.start(a.transport.run)
                await a.event(GatheringComplete)
                async with open_gateway(LOOPBACK) as right, trio.open_nursery() as inner:
                    b = Side(right, controlling=False)
                    await inner.start(b.transport.run)
                    introduce(a, b)
                    await selected(a, b)
                    await exchange(a, b)
                    b.transport.close()
                sides.append(a)
            assert server.requests.count("ALLOCATE") == 1
            for side in sides:
                side.transport.close()


async def test_a_direct_path_is_preferred_to_the_relay() -> None:
    async with turn_server() as server, open_pair(with_turn(server), connect=False) as (a, b):
        await a.event(GatheringComplete)
        await b.event(GatheringComplete)
        assert kinds(a) == ["host", "relay"]
        introduce(a, b)
        await selected(a, b)
        assert a.transport.path is not None
        assert a.transport.path.kind == "host"


async def test_wrong_credentials_are_named_in_the_failure() -> None:
    async with turn_server() as server:
        wrong = TurnServer(*server.address, username=USER, credential="wrong")
        config = attrs.evolve(LOOPBACK, turn_servers=(wrong,), relay_only=True)
        async with open_gateway(config) as gateway:
            with pytest.raises(ConnectFailed) as raised:
                await Side(gateway, controlling=True).transport.run()
            assert raised.value.phase == "ice-gathering"
            assert "401" in raised.value.advice


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_a_silent_turn_server_holds_nobody_up(transport: str) -> None:
    async with turn_server() as server:
        server.silent = True
        config = with_turn(server, transport, ice_gathering_timeout_s=0.1)
        with trio.fail_after(5):
            async with open_pair(config) as (a, b):
                await exchange(a, b)
                await a.event(GatheringComplete)
                assert kinds(a) == ["host"]
                await a.until(lambda: a.transport._gateway.problems)


async def test_a_turn_server_that_is_not_there_holds_nobody_up() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nowhere = TurnServer("127.0.0.1", taken.getsockname()[1], username="u", credential="c", transport="tcp")
        async with gathered(attrs.evolve(LOOPBACK, turn_servers=(nowhere,))) as (gateway, side):
            assert kinds(side) == ["host"]
            assert len(gateway.problems) == 1


async def test_an_allocation_left_by_a_killed_process_is_replaced() -> None:
    async with turn_server() as server:
        async with gathered(with_turn(server)) as (gateway, _):
            port = gateway.port.bases[0].address[1]
            stale = server.allocations[("127.0.0.1", port)]
            server.allocations = dict(server.allocations)
        server.allocations[("127.0.0.1", port)] = stale
        async with gathered(with_turn(server, port_range=(port, port))) as (_, side):
            assert kinds(side) == ["host", "relay"]


async def test_a_stale_nonce_is_renewed() -> None:
    async with (
        turn_server() as server,
        open_pair(with_turn(server, relay_only=True), LOOPBACK, connect=False) as (a, b),
    ):
        await a.event(GatheringComplete)
        server.stale_nonces = 1
        introduce(a, b)
        await selected(a, b)
        await exchange(a, b)
        assert server.stale_nonces == 0


async def test_channels_and_permissions_are_renewed_and_unused_ones_are_not() -> None:
    async with (
        turn_server() as server,
        gathered(with_turn(server, relay_only=True)) as (gateway, a),
        open_gateway(LOOPBACK) as right,
    ):
        relay = gateway.found[-1][1]
        async with trio.open_nursery() as nursery:
            b = Side(right, controlling=False)
            await nursery.start(b.transport.run)
            introduce(a, b)
            await selected(a, b)
            first = server.requests.count("CHANNEL_BIND")
            assert first == 1
            await gateway.run_in_loop(relay.refresh)  # type: ignore[attr-defined]
            assert server.requests.count("CHANNEL_BIND") == 2
            await exchange(a, b)
            await gateway.run_in_loop(relay.refresh)  # type: ignore[attr-defined]
            await gateway.run_in_loop(relay.refresh)  # type: ignore[attr-defined]
            assert server.requests.count("CHANNEL_BIND") == 3
            await exchange(a, b)  # bound again under its old number: another would be refused
            assert server.requests.count("CHANNEL_BIND") == 4
            b.transport.close()


async def test_a_peer_that_the_server_forbids_is_a_drop() -> None:
    async with turn_server() as server:
        server.refuse["CHANNEL_BIND"] = 403
        config = with_turn(server, relay_only=True, connection_timeout_s=0.3)
        async with open_gateway(config) as left, open_gateway(LOOPBACK) as right, trio.open_nursery() as nursery:
            a, b = Side(left, controlling=True), Side(right, controlling=False)
            await nursery.start(b.transport.run)
            await a.until(lambda: left.gathered)
            b.trickle = a.transport.add_remote_candidate
            a.transport.set_remote(b.transport.local)
            for text in b.candidates:
                a.transport.add_remote_candidate(text)
            with pytest.raises(ConnectFailed):
                await a.transport.run()
            assert server.requests.count("CHANNEL_BIND") == 1
            b.transport.close()


async def test_a_broken_stream_disconnects_at_once_and_another_path_takes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "RETRY_INITIAL_S", 0.01)
    async with (
        turn_server() as server,
        gathered(with_turn(server, "tcp", relay_only=True)) as (gateway, a),
        open_gateway(LOOPBACK) as right,
        trio.open_nursery() as nursery,
    ):
        b = Side(right, controlling=False)
        await nursery.start(b.transport.run)
        introduce(a, b)
        await selected(a, b)
        await exchange(a, b)
        for stream in server.streams:
            await stream.aclose()
        await a.event(Disconnected)
        assert [found.kind for found, _ in gateway.found] == ["host"]
        # After a pause a new allocation comes; the peer learns of it from its checks.
        await a.event(PathSelected, 2)
        await b.event(PathSelected, 2)
        await exchange(a, b)
        b.transport.close()


async def test_a_dead_turn_server_is_noticed_and_closing_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "KEEPALIVE_S", 0.02)
    monkeypatch.setattr(gather, "ANSWER_S", 0.02)
    async with turn_server() as server, gathered(with_turn(server)) as (gateway, side):
        assert len(gateway.found) == 2
        server.silent = True
        await side.until(lambda: len(gateway.found) == 1)
        assert "does not answer" in next(iter(gateway.problems.values()))


async def test_closing_with_a_dead_turn_server_is_bounded() -> None:
    async with turn_server() as server:
        with trio.fail_after(3):
            async with gathered(with_turn(server)) as (_, side):
                server.silent = True
                side.transport.close()


async def test_a_restart_after_a_change_of_network_gathers_anew() -> None:
    """Another address outside: what the STUN server says is new, and the allocation of the old address is dead."""
    async with stun_server() as stun, turn_server() as turn:
        stun.mapped = turn.mapped = OUTSIDE
        config = attrs.evolve(with_turn(turn), stun_servers=(StunServer(*stun.address),))
        async with gathered(config) as (gateway, side):
            assert kinds(side) == ["host", "srflx", "relay"] or kinds(side) == ["host", "relay", "srflx"]
            relays = [found for found, _ in gateway.found if found.kind == "relay"]
            stun.mapped = turn.mapped = ("198.51.100.8", 8888)
            turn.forget(gateway.port.bases[0].address)
            await side.transport.restart()
            await side.event(GatheringComplete, 2)
            ufrag = side.transport.local.ufrag
            texts = [text for text in side.candidates if text.endswith(ufrag)]
            told = {(one.type, one.port) for one, _ in map(parse_candidate_untrusted, texts)}
            new_relay = next(found for found, _ in gateway.found if found.kind == "relay")
            assert new_relay not in relays
            assert ("srflx", 8888) in told
            assert ("relay", new_relay.address[1]) in told


async def test_a_restart_without_a_change_keeps_the_allocation() -> None:
    async with turn_server() as turn, gathered(with_turn(turn)) as (gateway, side):
        before = list(gateway.found)
        await side.transport.restart()
        await side.event(GatheringComplete, 2)
        assert gateway.found == before
        assert turn.requests.count("ALLOCATE") == 1


async def test_a_restart_notices_a_dead_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "ANSWER_S", 0.05)
    async with turn_server() as turn, gathered(with_turn(turn, "tcp", ice_gathering_timeout_s=0.3)) as (gateway, side):
        turn.silent = True
        await side.transport.restart()
        await side.event(GatheringComplete, 2)
        assert [found.kind for found, _ in gateway.found] == ["host"]
