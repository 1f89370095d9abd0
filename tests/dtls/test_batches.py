"""A batch of datagrams gives what its datagrams give one by one, whatever happened to them on the way."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from psyne_mesh.webrtc.dtls import Closed, DtlsSession
from tests.dtls.pair import CLIENT, SERVER, Pair
from tests.dtls.pair13 import CLASSIC, Pair13

NOW = 10.0


def of_1_3() -> Pair:
    return Pair13(allowed_groups=CLASSIC).connect()


def of_1_2() -> Pair:
    return Pair().connect()


def damaged(rng: random.Random, datagrams: list[bytes]) -> list[bytes]:
    """Lost, doubled, out of order, forged, cut, two in one."""
    out: list[bytes] = []
    for datagram in datagrams:
        fate = rng.random()
        if fate < 0.1:
            continue
        if fate < 0.15:
            forged = bytearray(datagram)
            forged[rng.randrange(len(forged))] ^= rng.randint(1, 255)
            out.append(bytes(forged))
        elif fate < 0.2:
            out += [datagram, datagram]
        elif fate < 0.25:
            out.append(datagram[: rng.randrange(len(datagram))])
        elif fate < 0.3 and out:
            out[-1] += datagram
        else:
            out.append(datagram)
    if rng.random() < 0.5:
        at = rng.randrange(len(out))
        out.insert(rng.randrange(len(out)), out.pop(at))
    return out


@pytest.mark.parametrize("make", [of_1_3, of_1_2])
@pytest.mark.parametrize("seed", range(40))
def test_as_one_by_one(make: Callable[[], Pair], seed: int) -> None:
    """What a batch had left unopened, though authentic and new, would come up when it is shown again."""
    rng = random.Random(seed)
    pair = make()
    packets = [rng.randbytes(rng.choice((1, 90, 1191, 5000))) for _ in range(rng.randint(1, 64))]
    rounds = [damaged(rng, pair.client.send(packets)) for _ in range(3)]
    kept = [datagram for datagrams in rounds for datagram in datagrams]
    got = [packet for datagrams in rounds for packet in pair.server.receive_many(datagrams, NOW)]
    assert set(got) <= set(packets)
    assert pair.server.receive_many(kept, NOW) == []  # each once: nothing is left that was not opened
    stats = pair.server.stats
    assert stats.records_received == len(got)
    assert pair.server.receive_many(pair.client.send([b"still", b"here", b"and", b"there"]), NOW) == [
        b"still", b"here", b"and", b"there"
    ]  # fmt: skip


def test_nothing_is_delivered_after_a_goodbye_in_the_same_batch() -> None:
    pair = of_1_3()
    datagrams = pair.client.send([b"one", b"two", b"three"])
    late = pair.client.send([b"late"] * 3)
    pair.client.close(NOW)
    goodbye = pair.client.datagrams_to_send(NOW)
    assert pair.server.receive_many([*datagrams, *goodbye, *late], NOW) == [b"one", b"two", b"three"]
    assert isinstance(pair.server.take_events()[-1], Closed)


def test_new_keys_in_the_middle_of_a_batch() -> None:
    pair = of_1_3()
    batch = pair.client.send([b"%d" % number for number in range(8)])
    pair.client.update_keys(NOW)  # type: ignore[union-attr]
    batch += pair.client.datagrams_to_send(NOW)
    batch += pair.client.send([b"%d" % number for number in range(8, 16)])
    assert pair.server.receive_many(batch, NOW) == [b"%d" % number for number in range(16)]


@pytest.mark.parametrize("before", range(4))
@pytest.mark.parametrize("behind", range(4))
def test_what_a_batch_asks_to_acknowledge_is_acknowledged(before: int, behind: int) -> None:
    """By its own number: the peer changes its keys only then."""
    pair = of_1_3()
    batch = pair.client.send([b"before"] * before)
    pair.client.update_keys(NOW)  # type: ignore[union-attr]
    batch += pair.client.datagrams_to_send(NOW)
    batch += pair.client.send([b"behind"] * behind)
    assert pair.server.receive_many(batch, NOW) == [b"before"] * before + [b"behind"] * behind
    for datagram in pair.server.datagrams_to_send(NOW):
        pair.client.receive(datagram, NOW)
    assert pair.client._write.epoch == 4  # type: ignore[union-attr]


def test_before_the_handshake_is_through() -> None:
    session = DtlsSession(SERVER, is_client=False, remote_fingerprints=[CLIENT.fingerprint])
    assert session.receive_many([], NOW) == []
    assert session.receive_many([b"x", b"", bytes(100), bytes([22]) * 50, b"y"], NOW) == []
