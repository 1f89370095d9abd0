"""Peers that are not ours: aioice's own connections, .local names, several local addresses."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio
from aioice import Candidate, ice, mdns

from psyne_mesh.config import WebRTCConfig
from psyne_mesh.errors import InvalidConfig, Superseded
from psyne_mesh.webrtc.ice import Failed, IceGateway, IceParameters, PathSelected, open_gateway
from psyne_mesh.webrtc.ice.gateway import open_sockets
from tests.ice.helpers import DATA, LOOPBACK, Side, exchange, introduce, open_pair, selected


async def meet(gateway: IceGateway, side: Side, theirs: ice.Connection) -> None:
    """What signaling does, towards an aioice connection in the same loop."""
    await gateway.run_in_loop(theirs.gather_candidates)
    theirs.remote_username, theirs.remote_password = side.transport.local.ufrag, side.transport.local.password
    for text in side.candidates:
        candidate = Candidate.from_sdp(text.removeprefix("candidate:"))
        await gateway.run_in_loop(theirs.add_remote_candidate, candidate)
    await gateway.run_in_loop(theirs.add_remote_candidate, None)
    for candidate in theirs.local_candidates:
        side.transport.add_remote_candidate("candidate:" + candidate.to_sdp())
    side.transport.set_remote(IceParameters(theirs.local_username, theirs.local_password))


@pytest.mark.parametrize("controlling", [True, False])
async def test_a_plain_aioice_connection_is_a_peer(controlling: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ice, "get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])
    async with open_gateway(LOOPBACK) as gateway, trio.open_nursery() as nursery:
        side = Side(gateway, controlling=controlling)
        await nursery.start(side.transport.run)
        theirs = ice.Connection(ice_controlling=not controlling, use_ipv6=False)
        await meet(gateway, side, theirs)
        with trio.fail_after(5):
            await gateway.run_in_loop(theirs.connect)
            await selected(side)
            await gateway.run_in_loop(theirs.send, DATA)
            await side.until(lambda: side.received)
            side.transport.send([DATA])
            assert await gateway.run_in_loop(theirs.recv) == DATA
        await gateway.run_in_loop(theirs.close)
        side.transport.close()


@pytest.mark.parametrize("controlling", [True, False])
async def test_consent_is_kept_with_a_plain_aioice_connection(
    controlling: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our checks are answered by another implementation, and its checks by us: else it gives up after six of them."""
    monkeypatch.setattr(ice, "get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])
    monkeypatch.setattr(ice, "CONSENT_INTERVAL", 0.05)
    async with open_gateway(LOOPBACK) as gateway, trio.open_nursery() as nursery:
        side = Side(gateway, controlling=controlling)
        await nursery.start(side.transport.run)
        theirs = ice.Connection(ice_controlling=not controlling, use_ipv6=False)
        await meet(gateway, side, theirs)
        with trio.fail_after(5):
            await gateway.run_in_loop(theirs.connect)
            await selected(side)
        checks = 0
        answer_consent = side.transport._newest.agent.answer_consent  # type: ignore[union-attr]

        def count(*arguments: Any) -> bool:
            nonlocal checks
            answered = answer_consent(*arguments)
            checks += answered
            return answered

        monkeypatch.setattr(side.transport._newest.agent, "answer_consent", count)
        await side.until(lambda: checks > 2 * ice.CONSENT_FAILURES)
        await side.until(lambda: side.transport.stats().consent_checks_answered >= 2)
        assert theirs._query_consent_task is not None
        assert not theirs._query_consent_task.done()
        await gateway.run_in_loop(theirs.close)
        side.transport.close()


class FakeMdns:
    """Knows one name, and is silent about all others."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def resolve(self, hostname: str, timeout: float = 1.0) -> str | None:
        return "127.0.0.1" if hostname == self.name else None

    async def close(self) -> None: ...


async def test_a_local_name_is_resolved_and_an_unknown_one_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    name = mdns.create_mdns_hostname()

    async def fake() -> FakeMdns:
        return FakeMdns(name)

    monkeypatch.setattr(mdns, "create_mdns_protocol", fake)
    async with open_pair(connect=False) as (a, b):
        b.transport.set_remote(a.transport.local)
        a.transport.set_remote(b.transport.local)
        text = b.candidates[0]
        for host in (mdns.create_mdns_hostname(), name):
            a.transport.add_remote_candidate(text.replace(" 127.0.0.1 ", f" {host} "))
        await selected(a, b)
        await exchange(a, b)
        await a.until(lambda: a.transport.stats().remote_candidates_refused == 1)


async def test_local_names_that_cannot_be_asked_for_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken() -> FakeMdns:
        raise OSError("port 5353 is taken")

    monkeypatch.setattr(mdns, "create_mdns_protocol", broken)
    async with open_pair() as (a, b):
        for _ in range(20):
            host = mdns.create_mdns_hostname()
            a.transport.add_remote_candidate(b.candidates[0].replace(" 127.0.0.1 ", f" {host} "))
        await a.until(lambda: a.transport.stats().remote_candidates_refused == 20)
        assert not a.transport._gateway.faults
        await exchange(a, b)


async def test_a_real_local_name_where_multicast_works() -> None:
    name = mdns.create_mdns_hostname()
    async with open_pair(connect=False) as (a, b):
        gateway = a.transport._gateway
        try:
            publisher = await gateway.run_in_loop(mdns.create_mdns_protocol)
            await gateway.run_in_loop(publisher.publish, name, "127.0.0.1")
            found = await gateway.run_in_loop(publisher.resolve, name, 1.0)
        except OSError as error:
            pytest.skip(f"no multicast here: {error}")
        if found is None:
            await gateway.run_in_loop(publisher.close)
            pytest.skip("multicast does not come back here")
        a.transport.set_remote(b.transport.local)
        b.transport.set_remote(a.transport.local)
        a.transport.add_remote_candidate(b.candidates[0].replace(" 127.0.0.1 ", f" {name} "))
        await selected(a, b)
        await exchange(a, b)
        await gateway.run_in_loop(publisher.close)


def hosts(config: WebRTCConfig) -> list[str]:
    sockets = open_sockets(config)
    try:
        return [one.address[0] for one in sockets]
    finally:
        for one in sockets:
            one.close()


async def test_sockets_as_configured() -> None:
    assert hosts(WebRTCConfig(use_ipv6=False)) == ["0.0.0.0"]
    assert hosts(WebRTCConfig(bind_host="127.0.0.1")) == ["127.0.0.1"]
    assert sorted(hosts(WebRTCConfig(interfaces=("lo",)))) == ["127.0.0.1", "::1"]
    with pytest.raises(InvalidConfig):
        hosts(WebRTCConfig(bind_host="203.0.113.1"))
    with pytest.raises(InvalidConfig):
        hosts(WebRTCConfig(interfaces=("nothing0",)))


async def test_both_families_share_a_port_number_from_the_range() -> None:
    free = open_sockets(WebRTCConfig())
    number = free[0].address[1]
    for one in free:
        one.close()
    sockets = open_sockets(WebRTCConfig(port_range=(number, number)))
    assert {one.address[1] for one in sockets} == {number}
    for one in sockets:
        one.close()


async def test_one_socket_for_each_address_of_chosen_interfaces() -> None:
    async with open_pair(WebRTCConfig(interfaces=("lo",))) as (a, b):
        await exchange(a, b)
        assert sorted(text.split()[4] for text in a.candidates) == ["127.0.0.1", "::1"]
        stats = a.transport.stats()
        assert len(stats.pairs) == 2
        assert [pair.remote[0] for pair in stats.pairs if pair.selected] == ["::1"]


async def test_of_two_transports_between_the_same_ports_the_newer_has_the_address_and_the_older_is_told() -> None:
    async with open_gateway(LOOPBACK) as left, open_gateway(LOOPBACK) as right, trio.open_nursery() as nursery:
        pairs: list[tuple[Side, Side]] = []
        for _ in range(2):
            a, b = Side(left, controlling=True), Side(right, controlling=False)
            await nursery.start(a.transport.run)
            await nursery.start(b.transport.run)
            introduce(a, b)
            await selected(a, b)
            await exchange(a, b)
            pairs.append((a, b))
        for side in pairs[0]:
            assert isinstance((await side.event(Failed)).error, Superseded)
            dropped = side.transport.stats().datagrams_dropped
            side.transport.send([DATA])
            assert side.transport.stats().datagrams_dropped == dropped + 1
            side.transport.distrust()  # an answer to a check is no way for data
        await pairs[0][0].until(lambda: pairs[0][0].transport.stats().consent_checks_answered > 1)
        side.transport.send([DATA])
        await exchange(*pairs[1])
        assert not pairs[1][0].all(Failed)
        for side in pairs[1]:
            side.transport.close()
        for side in pairs[0]:
            await side.event(PathSelected, 2)
        assert left.port.table_sizes()["listeners"] == right.port.table_sizes()["listeners"] == 1
        await exchange(*pairs[0])
        for side in pairs[0]:
            side.transport.close()


async def test_loopback_can_be_left_out() -> None:
    config = attrs.evolve(WebRTCConfig(), include_loopback=False)
    async with open_gateway(config) as gateway:
        assert not any(found.address[0] in ("127.0.0.1", "::1") for found, _ in gateway.found)


async def test_local_names_in_one_endpoint_after_another() -> None:
    """Two names at once, as every browser sends them, where an endpoint had been before: its loop is gone."""
    for _ in range(3):
        async with open_pair() as (a, b):
            for _ in range(2):
                host = mdns.create_mdns_hostname()
                a.transport.add_remote_candidate(b.candidates[0].replace(" 127.0.0.1 ", f" {host} "))
            await trio.testing.wait_all_tasks_blocked()
            assert not a.transport._gateway.faults
            await exchange(a, b)
