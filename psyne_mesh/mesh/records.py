"""Records as signaling carries them: text."""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Iterable

from psyne_mesh.gossip.node import Node


def record_of(node: Node) -> str:
    return b64encode(node.own_record.encoded).decode()


def goodbye_of(node: Node, now: float) -> str:
    """What a node that was never started would say last; it is of no other use afterwards."""
    node.start(now)
    node.leave(now)
    return record_of(node)


def records_untrusted(encoded: Iterable[str]) -> list[bytes]:
    """Those that are text of records at all; the node looks at the signatures."""
    records = []
    for text in encoded:
        try:
            records.append(b64decode(text, validate=True))
        except (Base64Error, ValueError):
            continue  # the server's doing or the newcomer's own: nobody can tell, so nobody is blamed
    return records
