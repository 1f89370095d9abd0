"""The socket under the port: batches, offload, and errors that never reach the caller."""

from __future__ import annotations

import errno
import socket
import sys
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from psyne_mesh.errors import InvalidConfig
from psyne_mesh.webrtc.ice import udp
from psyne_mesh.webrtc.ice.udp import UdpSocket, equal_size_run, open_udp_socket

linux = pytest.mark.skipif(sys.platform != "linux", reason="UDP_GRO and UDP_SEGMENT are Linux")
ANY = ("127.0.0.1", 9)


async def receive(one: UdpSocket, count: int) -> list[tuple[bytes, udp.Address]]:
    got: list[tuple[bytes, udp.Address]] = []
    with trio.fail_after(5):
        while len(got) < count:
            await one.wait_readable()
            got += one.receive_batch()
    return got


@pytest.fixture(params=["127.0.0.1", "::1"])
def host(request: pytest.FixtureRequest) -> str:
    return str(request.param)


BATCHES = {
    "one": [b"\x17" * 100],
    "equal": [bytes([20 + i]) * 1191 for i in range(40)],
    "last shorter": [b"a" * 1000, b"b" * 1000, b"c"],
    "growing": [bytes([i]) * (i + 1) for i in range(30)],
    "empty among them": [b"x" * 10, b"", b"y" * 10],
    "large": [b"z" * 16_000] * 9,
    "over 64": [b"q" * 200] * 150,
    "largest": [b"L" * 65_000, b"L" * 65_000],
}


@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize("offload", [True, False])
async def test_the_same_bytes_arrive_with_and_without_offload(name: str, offload: bool, host: str) -> None:
    a, b = open_udp_socket(host, offload=offload), open_udp_socket(host, offload=True)
    try:
        assert a.send_batch(BATCHES[name], b.address) == len(BATCHES[name])
        got = await receive(b, len(BATCHES[name]))
        assert [data for data, _ in got] == BATCHES[name]
        assert {address for _, address in got} == {a.address}
        assert b.stats.datagrams_received == a.stats.datagrams_sent == len(BATCHES[name])
        assert b.stats.bytes_received == a.stats.bytes_sent == sum(map(len, BATCHES[name]))
    finally:
        a.close()
        b.close()


@linux
async def test_a_run_of_equal_datagrams_is_one_call_each_way() -> None:
    a, b = open_udp_socket("127.0.0.1"), open_udp_socket("127.0.0.1")
    try:
        a.send_batch(BATCHES["equal"], b.address)
        await receive(b, 40)
        assert a.stats.send_calls == 1
        assert b.stats.receive_calls == 1
    finally:
        a.close()
        b.close()


async def test_a_batch_is_bounded() -> None:
    a, b = open_udp_socket("127.0.0.1", offload=False), open_udp_socket("127.0.0.1", offload=False)
    try:
        for _ in range(200):
            a.send_batch([b"x"], b.address)
        await b.wait_readable()
        assert len(b.receive_batch()) == udp.BATCH_MAX
    finally:
        a.close()
        b.close()


@given(st.lists(st.integers(0, 65_507), min_size=1, max_size=200))
def test_runs_are_what_the_kernel_takes(sizes: list[int]) -> None:
    datagrams = [bytes(size) for size in sizes]
    start = 0
    while start < len(datagrams):
        end = equal_size_run(datagrams, start)
        run = [len(datagram) for datagram in datagrams[start:end]]
        assert 1 <= len(run) <= udp.SEGMENTS_MAX
        if len(run) > 1:
            assert sum(run) <= udp.SEGMENTED_BYTES_MAX
            assert set(run[:-1]) == {run[0]}
            assert 0 < run[-1] <= run[0]
        start = end


def test_runs_are_as_long_as_they_may_be() -> None:
    assert equal_size_run([b"a" * 100] * 70, 0) == 64
    assert equal_size_run([b"a" * 2000] * 70, 0) == 32
    assert equal_size_run([b"aa", b"aa", b"a", b"aa"], 0) == 3
    assert equal_size_run([b"aa", b"aaa"], 0) == 1
    assert equal_size_run([b"", b""], 0) == 1


@linux
async def test_datagrams_are_not_fragmented_and_one_over_the_mtu_is_counted() -> None:
    one = open_udp_socket("127.0.0.1")
    try:
        raw = one._raw
        assert raw.getsockopt(socket.IPPROTO_IP, udp.IP_MTU_DISCOVER) == udp.PMTUDISC_PROBE
        assert one.send_batch([b"x" * 65_507], ANY) == 1
        assert one.send_batch([b"x" * 65_508], ANY) == 0
        assert one.stats.errors == {errno.EMSGSIZE: 1}
        assert one.stats.dropped == 1
    finally:
        one.close()


async def test_no_route_and_no_listener_are_counted_not_raised() -> None:
    one = open_udp_socket("127.0.0.1")
    try:
        nobody = open_udp_socket("127.0.0.1")
        nobody.close()
        for _ in range(5):
            assert one.send_batch([b"x"], nobody.address) in (0, 1)
        assert one.receive_batch() == []
        assert one.send_batch([b"x"], ("192.0.2.200", 9)) in (0, 1)  # from a loopback address: EINVAL on Linux
        assert one.send_batch([b"x"], ("127.0.0.1", 0)) == 0
    finally:
        one.close()


async def test_closing_wakes_the_reader_and_later_sends_are_drops() -> None:
    one = open_udp_socket("127.0.0.1")

    async def read() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await one.wait_readable()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        one.close()
    one.close()
    assert one.send_batch([b"x", b"y"], ANY) == 0
    assert one.receive_batch() == []


class FakeRaw:
    """A socket layer that refuses what it is told to refuse."""

    def __init__(self, **failures: int) -> None:
        self.failures = failures
        self.sent: list[bytes] = []
        self.inbox: list[bytes | OSError] = []
        self.family = socket.AF_INET

    def _may(self, what: str) -> None:
        if what in self.failures:
            raise OSError(self.failures[what], what)

    def setblocking(self, flag: bool) -> None: ...
    def getsockname(self) -> tuple[str, int]:
        return ANY

    def getsockopt(self, level: int, option: int) -> int:
        return 4096

    def setsockopt(self, level: int, option: int, value: Any) -> None:
        self._may(
            {udp.UDP_GRO: "gro", udp.UDP_SEGMENT: "gso"}.get(option, "option") if level == udp.SOL_UDP else "option"
        )

    def sendto(self, data: bytes, address: udp.Address) -> int:
        self._may("sendto")
        self.sent.append(bytes(data))
        return len(data)

    def sendmsg(self, run: list[bytes], control: Any, flags: int, address: udp.Address) -> int:
        self._may("sendmsg")
        self.sent += run
        return sum(map(len, run))

    def recvfrom_into(self, buffer: bytearray) -> tuple[int, udp.Address]:
        if not self.inbox:
            raise BlockingIOError
        data = self.inbox.pop(0)
        if isinstance(data, OSError):
            raise data
        buffer[: len(data)] = data
        return len(data), ANY

    def recvmsg_into(self, buffers: tuple[bytearray], size: int) -> tuple[int, list[Any], int, udp.Address]:
        return self.recvfrom_into(buffers[0])[0], [], 0, ANY


def on(raw: FakeRaw) -> UdpSocket:
    return UdpSocket(raw)  # type: ignore[arg-type]


@linux
@pytest.mark.parametrize("number", [errno.EIO, errno.EINVAL, errno.ENOPROTOOPT, errno.EOPNOTSUPP])
def test_where_segmenting_is_refused_each_goes_by_itself_from_then_on(number: int) -> None:
    raw = FakeRaw(sendmsg=number)
    one = on(raw)
    assert one.gso
    assert one.send_batch([b"x" * 100] * 5, ANY) == 5
    assert raw.sent == [b"x" * 100] * 5
    assert not one.gso
    del raw.failures["sendmsg"]
    one.send_batch([b"x" * 100] * 5, ANY)
    assert one.stats.send_calls == 10


@linux
@pytest.mark.parametrize("number", [errno.EINVAL, errno.EMSGSIZE])
def test_segments_over_the_mtu_do_not_switch_segmenting_off(number: int) -> None:
    one = on(FakeRaw(sendmsg=number))
    assert one.send_batch([b"x" * 9000] * 3, ANY) == 3
    assert one.gso


@linux
def test_kernels_without_the_options_get_plain_calls() -> None:
    raw = FakeRaw(gro=errno.ENOPROTOOPT, gso=errno.ENOPROTOOPT, sendmsg=errno.EINVAL)
    one = on(raw)
    assert (one.gro, one.gso) == (False, False)
    assert one.send_batch([b"x", b"x"], ANY) == 2
    raw.inbox = [b"one", b"two"]
    assert one.receive_batch() == [(b"one", ANY), (b"two", ANY)]


@pytest.mark.skipif(not str(udp.__file__).endswith(".py"), reason="a compiled build is for the system that built it")
def test_other_systems_get_plain_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    for platform in ("win32", "darwin"):
        monkeypatch.setattr(udp.sys, "platform", platform)
        one = on(FakeRaw(option=errno.EINVAL))
        assert (one.gro, one.gso) == (False, False)


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOBUFS, errno.EPERM, errno.ENETUNREACH, errno.ECONNREFUSED])
def test_what_the_network_does_not_take_is_dropped_and_counted(number: int) -> None:
    one = on(FakeRaw(sendto=number, sendmsg=number))
    assert one.send_batch([b"x"], ANY) == 0
    assert one.send_batch([b"x", b"x"], ANY) == 0
    assert one.stats.dropped == 3
    assert one.stats.errors[number] >= 2


def test_where_datagrams_come_one_by_one_the_look_for_a_second_is_left_out() -> None:
    raw = FakeRaw()
    one = on(raw)
    looks = 0
    plain = raw.recvfrom_into

    def counted(buffer: bytearray) -> tuple[int, udp.Address]:
        nonlocal looks
        looks += 1
        return plain(buffer)

    raw.recvfrom_into = counted  # type: ignore[method-assign]

    def wake(*datagrams: bytes) -> int:
        raw.inbox += datagrams
        return len(one.receive_batch())

    assert [wake(b"x") for _ in range(udp.LONE_MAX)] == [1] * udp.LONE_MAX
    assert looks == 2 * udp.LONE_MAX
    looks = 0
    assert [wake(b"x") for _ in range(10 * udp.LONE_LOOK)] == [1] * 10 * udp.LONE_LOOK
    assert looks == 10 * udp.LONE_LOOK + 10  # not twice as many
    took = [wake(*[bytes([n]) for n in range(100)] if not number else ()) for number in range(20)]
    assert sum(took) == 100  # a burst waits for nothing but its turns, and only a few of them are for one
    assert took.index(udp.BATCH_MAX) < udp.LONE_LOOK
    assert wake(b"x", b"y") == 2


def test_an_icmp_error_on_receive_hides_no_datagram() -> None:
    raw = FakeRaw()
    raw.inbox = [b"one", ConnectionResetError(10054, "WSAECONNRESET"), OSError(errno.ECONNREFUSED, "refused"), b"two"]
    one = on(raw)
    assert [data for data, _ in one.receive_batch()] == [b"one", b"two"]
    assert one.stats.errors == {10054: 1, errno.ECONNREFUSED: 1}


def test_a_socket_that_only_fails_ends_the_batch() -> None:
    raw = FakeRaw()
    raw.inbox = [OSError(errno.ENOMEM, "no memory")] * 1000
    assert on(raw).receive_batch() == []
    assert raw.inbox


async def test_ports_come_from_the_range_and_a_full_range_is_told() -> None:
    first = open_udp_socket("127.0.0.1")
    port = first.address[1]
    try:
        with pytest.raises(InvalidConfig, match=str(port)):
            open_udp_socket("127.0.0.1", (port, port))
        with pytest.raises(InvalidConfig):
            open_udp_socket("203.0.113.1")
        second = open_udp_socket("127.0.0.1", (port, min(port + 50, 65535)))
        assert port < second.address[1] <= port + 50
        second.close()
    finally:
        first.close()
    again = open_udp_socket("127.0.0.1", port=port)
    assert again.address[1] == port
    again.close()
