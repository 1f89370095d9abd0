"""The three URI forms of psyne: `webrtc://peer-id`, `webrtc://server/room`, `webrtc-game://peer-id?room=R&region=E`."""

from __future__ import annotations

from urllib.parse import parse_qsl, unquote, urlsplit

import attrs

from psyne_mesh.errors import InvalidUri

_FORMS = "webrtc://peer-id, webrtc://server[:port]/room or webrtc-game://peer-id?room=NAME&region=NAME"


@attrs.frozen
class PeerUri:
    """`webrtc://peer-id`: one peer, found through the signaling server given elsewhere."""

    peer: str


@attrs.frozen
class RoomUri:
    """`webrtc://server[:port]/room`: a room on a signaling server. `signaling_url` is `ws://` or, with `?tls=1`, `wss://`."""

    server: str
    room: str
    tls: bool = False

    @property
    def signaling_url(self) -> str:
        return f"{'wss' if self.tls else 'ws'}://{self.server}"


@attrs.frozen
class GameUri:
    """`webrtc-game://peer-id?room=combat-1&region=us-west`: a peer inside a game room."""

    peer: str
    room: str
    region: str | None = None


def parse_uri(uri: str) -> PeerUri | RoomUri | GameUri:
    """Read one of the three forms; anything else raises `InvalidUri`, which shows them."""
    if not isinstance(uri, str):
        raise InvalidUri(f"a URI is text, not {type(uri).__name__}; understood are {_FORMS}")
    try:
        parts = urlsplit(uri)
        port = parts.port
        query = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query), keep_blank_values=True))
    except ValueError as error:
        raise _refused(uri, str(error)) from error
    # netloc, not hostname: a peer may be known by a name whose case matters
    authority = unquote(parts.netloc)
    if not authority or "@" in authority or parts.fragment:
        raise _refused(
            uri, "there is no peer or server behind //" if not authority else "user names and #parts have no meaning"
        )
    if parts.scheme == "webrtc-game":
        return _game(uri, authority, parts.path, port, query)
    if parts.scheme != "webrtc":
        raise _refused(uri, f"the scheme is {parts.scheme!r}")
    room = unquote(parts.path.removeprefix("/"))
    if room:
        if unknown := set(query) - {"tls"}:
            raise _refused(uri, f"unknown parameter {min(unknown)!r}")
        if query.get("tls", "0") not in ("0", "1"):
            raise _refused(uri, "tls is 0 or 1")
        return RoomUri(authority, room, query.get("tls") == "1")
    if query or port is not None:
        raise _refused(uri, "a peer takes no port and no parameters")
    return PeerUri(authority)


def _game(uri: str, peer: str, path: str, port: int | None, query: dict[str, str]) -> GameUri:
    if path not in ("", "/") or port is not None:
        raise _refused(uri, "a game peer takes no path and no port")
    if unknown := set(query) - {"room", "region"}:
        raise _refused(uri, f"unknown parameter {min(unknown)!r}")
    if not query.get("room"):
        raise _refused(uri, "the parameter room is missing")
    return GameUri(peer, query["room"], query.get("region") or None)


def _refused(uri: str, why: str) -> InvalidUri:
    return InvalidUri(f"{uri!r}: {why}; understood are {_FORMS}")
