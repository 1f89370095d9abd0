"""Whether a signaling server is there, speaks our protocol, how far it is, and whether its clock agrees with ours."""

from __future__ import annotations

import ssl
from datetime import datetime
from email.utils import parsedate_to_datetime

import attrs
import h11
import trio

from psyne_mesh.errors import InvalidUri, SignalingError
from psyne_mesh.identity import Identity
from psyne_mesh.signaling.client import connect_signaling
from psyne_mesh.signaling.dialing import WebSocketUrl, dial_tcp
from psyne_mesh.signaling.joining import RoomQuery
from psyne_mesh.signaling.link import SignalingConfig
from psyne_mesh.signaling.messages import PROTOCOL_VERSION

HEAD_BYTES_MAX = 16_384  # of an HTTP answer; the rest is not for us
HEALTH_S = 2.0  # for the look at /healthz, which nothing depends on


@attrs.frozen(kw_only=True)
class SignalingReport:
    """protocol: the version of our protocol that it speaks, None when no hello came through. software: as its HTTP side
    names itself, if it does.

    connect_ms: dial, TLS, WebSocket and hello. rtt_ms: one question and its answer after that. clock_skew_s: its clock
    minus ours, right to about a second; None when it does not tell the time. problem: None when rooms can be entered.
    """

    url: str
    protocol: int | None = None
    software: str | None = None
    connect_ms: float | None = None
    rtt_ms: float | None = None
    clock_skew_s: float | None = None
    problem: str | None = None


async def probe_signaling(
    url: str, *, wall_clock: datetime, ssl_context: ssl.SSLContext | None = None, timeout_s: float = 5.0
) -> SignalingReport:
    """Enter with an identity made for the purpose, ask once, and leave. No exception of the server leaves this.

    wall_clock: our time now, with its zone.
    """
    began = trio.current_time()
    config = SignalingConfig(connect_timeout_s=timeout_s, request_timeout_s=timeout_s)
    report = SignalingReport(url=url)
    try:
        async with connect_signaling(url, Identity.generate(), config=config, ssl_context=ssl_context) as client:
            connected = trio.current_time()
            report = attrs.evolve(report, protocol=PROTOCOL_VERSION, connect_ms=_ms(connected - began))
            await client.list_rooms(RoomQuery(limit=1))
            report = attrs.evolve(report, rtt_ms=_ms(trio.current_time() - connected))
    except (SignalingError, InvalidUri) as error:
        return attrs.evolve(report, problem=str(error))
    headers = await _health_headers(WebSocketUrl.parse(url), ssl_context)
    skew_s = None
    if (told := time_untrusted(headers.get(b"date", b""))) is not None:
        skew_s = round((told - wall_clock).total_seconds() - (trio.current_time() - began), 1)
    software = headers.get(b"server", b"").decode("ascii", "replace")[:80] or None
    return attrs.evolve(report, clock_skew_s=skew_s, software=software)


async def _health_headers(url: WebSocketUrl, ssl_context: ssl.SSLContext | None) -> dict[bytes, bytes]:
    """The headers of its /healthz page; none when there is no such page."""
    with trio.move_on_after(HEALTH_S):
        try:
            stream = await dial_tcp(url, ssl_context)
            try:
                return await _get(stream, url.authority)
            finally:
                await trio.aclose_forcefully(stream)
        except (OSError, trio.BrokenResourceError, h11.RemoteProtocolError):
            pass
    return {}


async def _get(stream: trio.abc.Stream, authority: str) -> dict[bytes, bytes]:
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES_MAX)
    headers = [("Host", authority), ("Connection", "close")]
    await stream.send_all(connection.send(h11.Request(method="GET", target="/healthz", headers=headers)) or b"")
    while (event := connection.next_event()) is h11.NEED_DATA:
        connection.receive_data(bytes(await stream.receive_some(4_096)))
    return dict(event.headers) if isinstance(event, h11.Response) else {}


def time_untrusted(text: bytes) -> datetime | None:
    """A Date header (RFC 9110 section 5.6.7); None for anything else."""
    try:
        told = parsedate_to_datetime(text.decode("ascii"))
    except (ValueError, OverflowError):
        return None
    return told if told.tzinfo is not None else None


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 1)
