"""What a player process and its test say to each other. Imports nothing of the product: aioice alone uses it too."""

from __future__ import annotations

import json
import os
import time
from typing import Any

import attrs


@attrs.frozen(kw_only=True)
class Spec:
    """What a player is told first. Servers are URIs (RFC 7064, RFC 7065); one credential serves all of them."""

    offerer: bool = False
    stun: list[str] = attrs.Factory(list)
    turn: list[str] = attrs.Factory(list)
    username: str = ""
    credential: str = ""
    deadline_s: float = 15.0
    relay_only: bool = False
    turn_bytes_per_s: float | None = None  # the quota of an allocation, if the player is told of it
    turn_clock: float = (
        1.0  # so many times as often as it has to, a TURN client refreshes: for servers of short lifetimes
    )
    name: str = ""  # these three only for a player in a room
    room: str = ""
    signaling: str = ""


def say(**content: Any) -> None:
    """One line on stdout, with the monotonic clock that all processes of the machine share."""
    os.write(1, json.dumps({"t": time.monotonic(), **content}).encode() + b"\n")


def read_spec() -> Spec:
    """The first line of stdin; byte by byte, so that nothing of the second one is taken."""
    text = b""
    while not text.endswith(b"\n"):
        piece = os.read(0, 1)
        if not piece:
            raise SystemExit("stdin ended before the spec came")
        text += piece
    return Spec(**json.loads(text))
