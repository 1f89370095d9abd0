"""Two sessions of DTLS 1.3 and the wire between them, in virtual time; and hands to write and read single records."""

from __future__ import annotations

import random
from typing import Any

from psyne_mesh.webrtc.dtls.handshake13 import groups
from psyne_mesh.webrtc.dtls.session13 import Session13
from tests.dtls.pair import Pair

CLASSIC = (groups.X25519, groups.SECP256R1)  # without ML-KEM, whose hello takes two datagrams


class Pair13(Pair):
    """`Pair` with sessions of 1.3; in it `pair.client._read` and so on are there."""

    make = staticmethod(Session13)


def talk(pair: Pair, text: bytes = b"hello") -> None:
    """A packet each way, to show that the sessions work."""
    for sender, receiver in (("client", "server"), ("server", "client")):
        pair.packets[receiver].clear()
        pair.send(sender, text)
    pair.run(2.0)
    assert pair.packets == {"client": [text], "server": [text]}


def seeded_sessions(seed: int, **settings: Any) -> Pair13:
    rng = random.Random(seed)
    return Pair13(random=rng.randbytes, **settings)
