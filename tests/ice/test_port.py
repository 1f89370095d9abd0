"""Who gets which datagram, on sockets in memory."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import trio
import trio.testing
from aioice import stun

from psyne_mesh.limits import TokenBucket
from psyne_mesh.webrtc.ice import port as port_module
from psyne_mesh.webrtc.ice.events import Address
from psyne_mesh.webrtc.ice.port import PEER_BURST, STRANGER_BURST, Base, Route, StunReceiver, UdpPort
from psyne_mesh.webrtc.ice.stun_guard import StunHeader
from tests.ice.fake_net import FakeNet, FakeSocket

HERE, THERE, ELSEWHERE = ("192.0.2.1", 1), ("192.0.2.2", 2), ("192.0.2.3", 3)
DTLS = b"\x16\xfe\xfd hello"


class Bench:
    """A port whose asyncio loop runs each call at once, and a clock that stands still until told."""

    def __init__(self) -> None:
        self.net = FakeNet()
        self.socket = self.net.socket(HERE)
        self.faults: list[Exception] = []
        self.now = 0.0
        self.soon: list[Callable[[], object]] = []
        self.port = UdpPort([self.socket], call_soon=self.soon.append, fault=self.faults.append, clock=lambda: self.now)
        self.base = self.port.bases[0]

    def arrive(self, *batch: tuple[bytes, Address]) -> None:
        self.port.dispatch(self.base, batch)
        while self.soon:
            self.soon.pop(0)()

    def route(self, *addresses: Address, proven: bool = True) -> tuple[Route, list[list[bytes]]]:
        got: list[list[bytes]] = []
        route = self.port.open_route(got.append, self.faults.append)
        for address in addresses:
            self.port.claim(route, self.base, address, proven=proven)
        return route, got


class Agent:
    """A listener that notes what aioice would get."""

    def __init__(self, ufrag: str = "here", password: str = "p" * 22) -> None:
        self.ufrag = ufrag
        self.password = password
        self.integrity_key = password.encode()
        self.check_limit = TokenBucket(burst=PEER_BURST, per_second=1, now=0)
        self.got: list[tuple[bytes, Address]] = []
        self.choke: Exception | None = None

    def receiver_on(self, base: Base) -> StunReceiver | None:
        return self

    def answer_consent(self, base: Base, header: StunHeader, address: Address) -> bool:
        return False

    def datagram_received(self, data: bytes, addr: Address) -> None:
        if self.choke is not None:
            raise self.choke
        self.got.append((data, addr))

    def check(self, *, password: str | None = None, ufrag: str | None = None) -> bytes:
        attributes: dict[str, Any] = {
            "USERNAME": f"{ufrag or self.ufrag}:there",
            "PRIORITY": 1,
            "ICE-CONTROLLING": 1,
        }
        message = stun.Message(stun.Method.BINDING, stun.Class.REQUEST, attributes=attributes)
        message.add_message_integrity((password or self.password).encode())
        return bytes(message)


@pytest.fixture
async def bench() -> Bench:
    return Bench()


async def test_a_batch_reaches_each_peer_once(bench: Bench) -> None:
    _, first = bench.route(THERE)
    _, second = bench.route(ELSEWHERE)
    bench.arrive((b"\x17a", THERE), (b"\x17b", ELSEWHERE), (b"\x17c", THERE), (b"\x17d", THERE))
    assert first == [[b"\x17a", b"\x17c", b"\x17d"]]
    assert second == [[b"\x17b"]]


async def test_what_is_neither_stun_nor_dtls_is_dropped_by_reason(bench: Bench) -> None:
    _, got = bench.route(THERE)
    for data in (b"", b"\x10zrtp", b"\x40\x00turn", b"\x80rtp", b"\xff"):
        bench.arrive((data, THERE))
    assert got == []
    assert bench.port.drops == {"empty": 1, "not-ice-not-dtls": 4}


async def test_data_of_strangers_is_not_delivered(bench: Bench) -> None:
    _, got = bench.route(THERE)
    bench.arrive((DTLS, ELSEWHERE))
    assert got == []


async def test_dtls_that_overtook_the_check_is_kept_in_order(bench: Bench) -> None:
    bench.arrive((DTLS + b"1", THERE), (DTLS + b"2", THERE))
    _, got = bench.route(THERE, proven=False)
    assert got == [[DTLS + b"1", DTLS + b"2"]]


async def test_what_is_kept_for_strangers_is_not_kept_for_long(bench: Bench) -> None:
    bench.arrive((DTLS + b"1", THERE), (DTLS, ELSEWHERE))
    bench.now = 2 * port_module.EARLY_S
    bench.arrive((DTLS + b"2", THERE))
    _, got = bench.route(THERE, ELSEWHERE)
    assert got == [[DTLS + b"2"]]
    assert bench.port.drops["unknown-address"] == 2


async def test_what_is_kept_for_strangers_is_bounded(bench: Bench) -> None:
    for number in range(20):
        bench.arrive((DTLS + bytes([number]), THERE))
    for number in range(port_module.EARLY_ADDRESSES_MAX - 1):
        bench.arrive((DTLS, ("192.0.2.9", number + 1)))
    _, got = bench.route(THERE)
    assert got == [[DTLS + bytes([number]) for number in range(port_module.EARLY_PER_ADDRESS_MAX)]]
    bench.arrive(*((DTLS, ("192.0.2.10", number)) for number in range(500)))
    assert bench.port.drops["unknown-address"] == 4 + 500 - 1
    _, late = bench.route(("192.0.2.9", 1))
    assert late == []


async def test_a_fault_in_one_peer_is_handed_to_that_peer_only(bench: Bench) -> None:
    error = RuntimeError("bug above")
    owned: list[Exception] = []

    def broken(datagrams: list[bytes]) -> None:
        raise error

    route = bench.port.open_route(broken, owned.append)
    bench.port.claim(route, bench.base, THERE, proven=True)
    _, other = bench.route(ELSEWHERE)
    bench.arrive((b"\x17a", THERE), (b"\x17b", ELSEWHERE))
    assert owned == [error]
    assert bench.faults == []
    assert other == [[b"\x17b"]]


async def test_the_newer_connection_of_a_peer_gets_its_data_and_the_older_gets_it_back(bench: Bench) -> None:
    _, old = bench.route(THERE)
    newer, new = bench.route(THERE)
    bench.arrive((b"\x17a", THERE))
    assert (old, new) == ([], [[b"\x17a"]])
    bench.port.release(newer)
    bench.arrive((b"\x17b", THERE))
    assert old == [[b"\x17b"]]


async def test_a_forged_source_cannot_take_an_address_over(bench: Bench) -> None:
    _, owner = bench.route(THERE)
    _, thief = bench.route(THERE, proven=False)
    bench.arrive((b"\x17a", THERE))
    assert (owner, thief) == ([[b"\x17a"]], [])


async def test_one_that_proves_its_address_gets_it_from_one_that_only_said_so(bench: Bench) -> None:
    _, said = bench.route(THERE, proven=False)
    route = bench.port.open_route((proved := []).append, bench.faults.append)  # type: ignore[var-annotated]
    bench.port.claim(route, bench.base, THERE, proven=True)
    bench.arrive((b"\x17a", THERE))
    assert (said, proved) == ([], [[b"\x17a"]])


async def test_claims_of_one_peer_are_bounded_and_released(bench: Bench) -> None:
    addresses = [("192.0.2.9", number + 1) for number in range(200)]
    route, _ = bench.route(THERE)
    for address in addresses:
        bench.port.claim(route, bench.base, address, proven=False)
    assert len(route.claims) == len(bench.base.routes) == port_module.CLAIMS_MAX
    assert THERE in bench.base.routes
    bench.port.release(route)
    assert bench.port.table_sizes() == {"listeners": 0, "expected": 0, "deadlines": 0, "claims": 0, "routes": 0}


async def test_checks_go_to_the_agent_of_their_ufrag(bench: Bench) -> None:
    one, two = Agent("one1"), Agent("two2")
    bench.port.listen("one1", one)
    bench.port.listen("two2", two)
    data = two.check()
    bench.arrive((one.check(), THERE), (data, ELSEWHERE))
    assert len(one.got) == 1
    assert two.got == [(data, ELSEWHERE)]
    bench.port.unlisten("two2")
    bench.arrive((two.check(), ELSEWHERE))
    assert bench.port.drops == {"stun-unknown-ufrag": 1}


async def test_answers_go_to_who_asked(bench: Bench) -> None:
    agent = Agent()
    answer = stun.Message(stun.Method.BINDING, stun.Class.RESPONSE, attributes={"XOR-MAPPED-ADDRESS": HERE})
    bench.arrive((bytes(answer), THERE))
    bench.port.expect(answer.transaction_id, agent)
    bench.arrive((bytes(answer), THERE))
    bench.port.forget(answer.transaction_id)
    bench.arrive((bytes(answer), THERE))
    assert len(agent.got) == 1
    assert bench.port.drops == {"stun-unexpected": 2}


async def test_unauthenticated_checks_never_reach_aioice(bench: Bench) -> None:
    agent = Agent()
    bench.port.listen("here", agent)
    bench.arrive((agent.check(password="wrong" * 5), THERE), (agent.check(ufrag="nobody"), THERE))
    bench.arrive((b"\x00\x01\x00\x08\x21\x12\xa4\x42" + b"x" * 12 + b"\x00\x24\x00\x02\0\0\0\0", THERE))
    assert agent.got == []
    assert bench.net.log == []  # and nothing is answered
    assert bench.port.drops == {"stun-unauthenticated": 1, "stun-unknown-ufrag": 1, "stun-malformed": 1}


async def test_a_flood_from_one_host_leaves_other_hosts_their_checks(bench: Bench) -> None:
    agent = Agent()
    bench.port.listen("here", agent)
    bad = agent.check(password="wrong" * 5)
    for number in range(100):
        bench.arrive(*((bad, ("198.51.100.66", number * 50 + i)) for i in range(50)))
    assert bench.port.drops["stun-unauthenticated"] == STRANGER_BURST
    assert bench.port.drops["stun-flood"] == 5000 - STRANGER_BURST
    bench.arrive((agent.check(), THERE))
    assert len(agent.got) == 1
    bench.now += 1.0
    bench.arrive((agent.check(), ("198.51.100.66", 1)))
    assert len(agent.got) == 2


async def test_a_flood_from_many_forged_hosts_leaves_connected_peers_their_checks(bench: Bench) -> None:
    agent = Agent()
    bench.port.listen("here", agent)
    bench.route(THERE)
    bad = agent.check(password="wrong" * 5)
    for number in range(4000):
        bench.arrive((bad, (f"198.51.{number >> 8}.{number & 255}", 1)))
    bench.arrive((agent.check(), THERE))
    assert len(agent.got) == 1
    assert len(bench.port._strangers) <= port_module.STRANGERS_MAX


async def test_who_knows_no_ufrag_spends_nobodys_budget(bench: Bench) -> None:
    """Forged sources: 50,000 guesses in the name of a newcomer must not cost the newcomer its checks."""
    agent = Agent()
    bench.port.listen("here", agent)
    guess = agent.check(ufrag="guessed")
    for _ in range(100):
        bench.arrive(*[(guess, ELSEWHERE)] * 500)
    assert bench.port.drops == {"stun-unknown-ufrag": 50_000}
    assert len(bench.port._strangers) == 0
    bench.arrive((agent.check(), ELSEWHERE))
    assert len(agent.got) == 1


async def test_requests_that_must_be_parsed_to_find_their_ufrag_are_few(bench: Bench) -> None:
    agent = Agent()
    bench.port.listen("here", agent)
    message = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
    message.attributes = {"SOFTWARE": "first", "USERNAME": "nobody:there", "PRIORITY": 1, "ICE-CONTROLLING": 1}
    message.add_message_integrity(b"guess")
    odd = bytes(message)
    for number in range(4000):
        bench.arrive((odd, (f"198.51.{number >> 8}.{number & 255}", 1)))
    assert bench.port.drops == {
        "stun-unknown-ufrag": port_module.ODD_PER_SECOND,
        "stun-flood": 4000 - port_module.ODD_PER_SECOND,
    }
    bench.arrive((agent.check(), THERE))  # one of the usual form is not held up
    message.attributes = {"SOFTWARE": "first", "USERNAME": "here:there", "PRIORITY": 1, "ICE-CONTROLLING": 1}
    message.add_message_integrity(agent.integrity_key)
    bench.now += 1.0
    bench.arrive((bytes(message), THERE))
    assert len(agent.got) == 2


async def test_data_goes_before_all_stun_of_its_batch(bench: Bench) -> None:
    happened: list[str] = []
    agent = Agent()
    agent.answer_consent = lambda *_: bool(happened.append("check")) or True  # type: ignore[method-assign]
    bench.port.listen("here", agent)
    route = bench.port.open_route(lambda datagrams: happened.append(f"{len(datagrams)} data"), bench.faults.append)
    bench.port.claim(route, bench.base, THERE, proven=True)
    bench.arrive((agent.check(), ELSEWHERE), (b"\x17a", THERE), (agent.check(), THERE), (b"\x17b", THERE))
    assert happened == ["2 data", "check", "check"]
    assert agent.got == []  # what was answered does not go to aioice


async def test_some_answers_are_read_without_the_loop(bench: Bench) -> None:
    class Here:
        def __init__(self) -> None:
            self.got: list[tuple[bytes, Address]] = []

        def answer_received(self, data: bytes, header: StunHeader, address: Address) -> None:
            self.got.append((header.transaction_id, address))

    here = Here()
    answer = stun.Message(stun.Method.BINDING, stun.Class.RESPONSE, attributes={"XOR-MAPPED-ADDRESS": HERE})
    bench.port.expect_here(answer.transaction_id, here)
    bench.port.dispatch(bench.base, [(bytes(answer), THERE), (bytes(answer)[:-4], THERE)])
    assert here.got == [(answer.transaction_id, THERE)]
    assert bench.soon == []
    assert bench.port.drops == {"stun-malformed": 1}
    assert bench.port.table_sizes()["expected"] == 1
    bench.port.forget(answer.transaction_id)
    bench.arrive((bytes(answer), THERE))
    assert len(here.got) == 1


async def test_a_peer_cannot_flood_aioice(bench: Bench) -> None:
    agent = Agent()
    bench.port.listen("here", agent)
    bench.route(THERE)
    data = agent.check()
    bench.arrive(*[(data, THERE)] * 1000)
    assert len(agent.got) == PEER_BURST
    assert bench.port.drops["stun-peer-flood"] == 1000 - PEER_BURST


async def test_the_queue_to_aioice_is_bounded(bench: Bench) -> None:
    agent = Agent()
    answer = stun.Message(stun.Method.BINDING, stun.Class.RESPONSE, attributes={"XOR-MAPPED-ADDRESS": HERE})
    bench.port.expect(answer.transaction_id, agent)
    bench.arrive(*[(bytes(answer), THERE)] * 2000)
    assert len(agent.got) == port_module.HANDOVER_MAX
    assert bench.port.drops["stun-queue-full"] == 2000 - port_module.HANDOVER_MAX


async def test_what_aioice_lets_out_is_caught_and_told(bench: Bench) -> None:
    agent = Agent()
    agent.choke = KeyError("PRIORITY")
    bench.port.listen("here", agent)
    bench.arrive((agent.check(), THERE), (agent.check(), THERE))
    assert bench.faults == [agent.choke, agent.choke]
    assert bench.port.drops == {"stun-choked": 2}


async def test_ten_thousand_random_datagrams_change_nothing(bench: Bench) -> None:
    agent = Agent()
    bench.port.listen("here", agent)
    _, got = bench.route(THERE)
    dice = random.Random(7)
    for _ in range(10_000):
        bench.arrive((dice.randbytes(dice.randrange(0, 120)), ELSEWHERE))
    bench.arrive((b"\x17data", THERE), (agent.check(), THERE))
    assert got == [[b"\x17data"]]
    assert len(agent.got) == 1
    assert bench.faults == []


async def test_the_drain_survives_a_bug_and_ends_with_its_socket(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    _, got = bench.route(THERE)
    real = FakeSocket.receive_batch
    error = RuntimeError("bug")

    def fail_once(self: FakeSocket) -> Sequence[tuple[bytes, Address]]:
        monkeypatch.setattr(FakeSocket, "receive_batch", real)
        raise error

    monkeypatch.setattr(FakeSocket, "receive_batch", fail_once)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.port.run)
        bench.socket.arrive(b"\x17a", THERE)
        await trio.testing.wait_all_tasks_blocked()
        assert bench.faults == [error]
        assert got == [[b"\x17a"]]
        bench.socket.close()
