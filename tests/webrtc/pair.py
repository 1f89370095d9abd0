"""Two stacks on a bad link in virtual time: nothing sleeps, and a seed repeats everything but the keys."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from typing import Any

from psyne_mesh.config import DataChannelConfig
from psyne_mesh.webrtc.channel import Channel, ChannelClosed, ChannelOpened, MessageReceived
from psyne_mesh.webrtc.dtls import Certificate
from psyne_mesh.webrtc.express import VERSION
from psyne_mesh.webrtc.stack import Stack, StackConfig, StackEvent

CERTIFICATES = (Certificate.generate(), Certificate.generate())


class Side:
    """One stack and everything that it said."""

    def __init__(self, index: int, config: StackConfig, seed: int) -> None:
        self.stack = Stack(config, CERTIFICATES[index], rng=random.Random(seed * 2 + index))
        self.events: list[StackEvent] = []
        self.on_event: Callable[[Any], None] = lambda event: None

    @property
    def channels(self) -> list[Channel]:
        return [event.channel for event in self.events if type(event) is ChannelOpened]

    def channel(self, label: str) -> Channel:
        """The newest open channel of this label."""
        return [channel for channel in self.channels if channel.label == label][-1]

    def messages(self, label: str | None = None) -> list[str | bytes]:
        return [
            event.data
            for event in self.events
            if type(event) is MessageReceived and (label is None or event.channel.label == label)
        ]

    def closed(self) -> list[str]:
        return [event.channel.label for event in self.events if type(event) is ChannelClosed]

    def kinds(self) -> list[str]:
        return [type(event).__name__ for event in self.events]


class Pair:
    """`client` is the DTLS client. `loss`, `duplicate`: probability per datagram; `jitter_s` reorders.

    drop: called with (from the client?, number of the datagram in that direction, datagram); true loses it.
    snap: SCTP's INITs travelled with the descriptions. express: so did the express lane's version.
    mtu: larger datagrams vanish, as on a path that forgot its ICMP. rate, queue_s: bytes per second of either
        direction, and how long its queue may get before it drops.
    """

    def __init__(
        self,
        seed: int = 1,
        *,
        loss: float = 0.0,
        duplicate: float = 0.0,
        delay_s: float = 0.01,
        jitter_s: float = 0.0,
        mtu: int = 65_507,
        rate: float = 1e12,
        queue_s: float = 1e9,
        drop: Callable[[bool, int, bytes], bool] = lambda *_: False,
        config: StackConfig | None = None,
        server_config: StackConfig | None = None,
        announced: int = 65_507,
        snap: bool = False,
        express: bool = True,
        start: bool = True,
    ) -> None:
        self.now = 1000.0
        config = config or StackConfig()
        self.client, self.server = Side(0, config, seed), Side(1, server_config or config, seed)
        self.loss, self.duplicate, self.delay_s, self.jitter_s, self.mtu, self.drop = (
            loss, duplicate, delay_s, jitter_s, mtu, drop)  # fmt: skip
        self.rate, self.queue_s, self.announced, self.snap = rate, queue_s, announced, snap
        self.express = VERSION if express else 0
        self._free_at = [0.0, 0.0]  # when the link has sent what was put on it
        self.sent = [0, 0]
        self.sizes: list[int] = []
        self._rng = random.Random(seed)
        self._in_flight: list[tuple[float, int, Side, bytes]] = []
        if start:
            self.start()

    def start(self) -> None:
        for side, other in ((self.server, self.client), (self.client, self.server)):
            side.stack.start(
                is_client=side is self.client,
                remote_fingerprints=[CERTIFICATES[0 if other is self.client else 1].fingerprint],
                remote_max_message_size=other.stack.config.max_message_size,
                remote_max_datagram_size=self.announced,
                remote_express=self.express,
                remote_sctp_init=other.stack.sctp_init if self.snap else b"",
                now=self.now,
            )
            self.settle(side)

    def open(self, **settings: Any) -> tuple[Channel, Channel]:
        """A channel of the client, opened on both sides."""
        label = settings.setdefault("label", "game")
        self.client.stack.create_channel(DataChannelConfig(**settings), self.now)
        self.settle(self.client)
        for side in (self.client, self.server):
            self.run_until(lambda: any(c.label == label and c.state == "open" for c in side.channels))  # noqa: B023
        return self.client.channel(label), self.server.channel(label)

    def send(self, side: Side, channel: Channel, data: Any) -> None:
        side.stack.send(channel, data, self.now)
        self.settle(side)

    def settle(self, side: Side) -> None:
        """Put the output on the link and take the events, as a shell would."""
        while True:
            for datagram in side.stack.datagrams_to_send(self.now):
                self._transmit(side, datagram)
            events = side.stack.take_events()
            if not events:
                return
            for event in events:
                side.events.append(event)
                side.on_event(event)

    def _transmit(self, side: Side, datagram: bytes) -> None:
        direction = 0 if side is self.client else 1
        self.sent[direction] += 1
        self.sizes.append(len(datagram))
        assert len(datagram) <= side.stack.config.path_mtu_max
        if len(datagram) > self.mtu or self.drop(direction == 0, self.sent[direction] - 1, datagram):
            return
        if self._rng.random() < self.loss or self._free_at[direction] - self.now > self.queue_s:
            return
        copies = 2 if self._rng.random() < self.duplicate else 1
        other = self.server if side is self.client else self.client
        self._free_at[direction] = max(self._free_at[direction], self.now) + len(datagram) / self.rate
        for _ in range(copies):
            at = self._free_at[direction] + self.delay_s + self._rng.random() * self.jitter_s
            heapq.heappush(self._in_flight, (at, sum(self.sent), other, datagram))
            self.sent[direction] += copies - 1

    def step(self) -> bool:
        """The next arrival or timeout; False when nothing will ever happen again."""
        timeouts = [(t, s) for s in (self.client, self.server) if (t := s.stack.next_timeout()) is not None]
        arrival = self._in_flight[0][0] if self._in_flight else None
        timeout = min((t for t, _ in timeouts), default=None)
        if arrival is not None and (timeout is None or arrival <= timeout):
            self.now = max(self.now, arrival)
            _, _, side, datagram = heapq.heappop(self._in_flight)
            batch = [datagram]
            while self._in_flight and self._in_flight[0][0] <= self.now and self._in_flight[0][2] is side:
                batch.append(heapq.heappop(self._in_flight)[3])
            side.stack.receive(batch, self.now)
            self.settle(side)
            return True
        if timeout is None:
            return False
        self.now = max(self.now, timeout)
        for due, side in timeouts:
            if due <= self.now:
                side.stack.handle_timeout(self.now)
                self.settle(side)
        return True

    def run(self, seconds: float) -> None:
        """Let so much virtual time pass."""
        end = self.now + seconds
        while True:
            times = [t for s in (self.client, self.server) if (t := s.stack.next_timeout()) is not None]
            times += [self._in_flight[0][0]] if self._in_flight else []
            if not times or min(times) > end:
                self.now = end
                return
            self.step()

    def run_until(self, done: Callable[[], bool], *, within_s: float = 60.0) -> float:
        """Until `done`; how many seconds it took. Fails when nothing moves any more or the time is up."""
        began = self.now
        while not done():
            assert self.now - began < within_s, f"not done within {within_s} s of virtual time"
            assert self.step(), "nothing will ever happen again"
        return self.now - began

    def connect(self) -> Pair:
        self.run_until(lambda: self.client.stack.phase == self.server.stack.phase == "connected")
        return self
