"""A quota on the path: bulk waits for it, and what a game needs now does not."""

from __future__ import annotations

from psyne_mesh.webrtc.sctp import Association
from tests.sctp.link import LossyLink

BULK, CONTROL, POSITIONS = 1, 3, 5


def connected() -> tuple[LossyLink, Association]:
    link = LossyLink()
    link.connect()
    link.a.association.set_priority(CONTROL, 1024)
    return link, link.a.association


def queue_all(association: Association, now: float) -> None:
    association.send(BULK, 53, bytes(50_000), now=now)
    association.send(CONTROL, 53, b"control", now=now)
    association.send(POSITIONS, 53, b"position", now=now, unordered=True, max_retransmits=0)


def test_without_an_allowance_only_bulk_waits() -> None:
    link, association = connected()
    association.set_bulk_allowance(0)
    queue_all(association, link.now)
    link.run(1.0)
    assert sorted(link.b.data) == [b"control", b"position"]
    assert association.total_buffered_amount == 50_000
    assert link.a.association.outstanding_bytes == 0


def test_a_debt_is_no_allowance() -> None:
    link, association = connected()
    association.set_bulk_allowance(-5000.0)
    queue_all(association, link.now)
    link.run(1.0)
    assert association.total_buffered_amount == 50_000


def test_bulk_that_waits_holds_up_nothing_else() -> None:
    """Whatever the scheduler would take next, and however much of the rest there is."""
    link, association = connected()
    association.set_bulk_allowance(3000)
    association.send(BULK, 53, bytes(500_000), now=link.now)
    link.run(0.3)
    association.set_bulk_allowance(-5000.0)
    for _ in range(10):
        association.send(CONTROL, 53, bytes(1000), now=link.now)
        association.send(POSITIONS, 53, bytes(1000), now=link.now, unordered=True, max_retransmits=0)
    left = association.buffered_amount(BULK)
    link.run(0.5)
    assert len(link.b.data) == 20
    assert association.total_buffered_amount == association.buffered_amount(BULK) == left


def test_bulk_streams_that_waited_share_as_before() -> None:
    link, association = connected()
    for stream in (BULK, 7):
        association.send(stream, 53, bytes(100_000), now=link.now)
    for _ in range(40):  # a packet or so at a time
        association.set_bulk_allowance(500)
        association.packets_to_send(link.now)
        association.set_bulk_allowance(0)
        association.packets_to_send(link.now)
    shares = [100_000 - association.buffered_amount(stream) for stream in (BULK, 7)]
    assert min(shares) > 0
    assert max(shares) - min(shares) <= 2 * association.path_mtu


def test_so_much_bulk_leaves_and_a_packet_at_most_more() -> None:
    link, association = connected()
    association.set_bulk_allowance(3000)
    association.send(BULK, 53, bytes(50_000), now=link.now)
    association.packets_to_send(link.now)
    assert 3000 <= 50_000 - association.total_buffered_amount < 3000 + association.path_mtu


def test_lifted_it_all_leaves() -> None:
    link, association = connected()
    association.set_bulk_allowance(0)
    queue_all(association, link.now)
    link.run(1.0)
    association.set_bulk_allowance(None)
    link.run_until(lambda: len(link.b.data) == 3, 5.0)
    assert link.b.data[-1] == bytes(50_000)
