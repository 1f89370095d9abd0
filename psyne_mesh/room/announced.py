"""What the channels of others carry, as they announced it: a game of another version is told before a message of it came."""

from __future__ import annotations

from collections import OrderedDict

from psyne_mesh.identity import PeerId
from psyne_mesh.limits import forget_oldest

PLAYERS_MAX = 1024  # more than there are links; then whose channels were opened first is forgotten


class Announced:
    """1. `put` what a player's channel says of its types. 2. `of_channel` once a channel is declared, `of_player` once the
    player is discovered. 3. `forget` a player that has left.

    Of each player what a link takes: so many channels, and so many bytes of their words (`ChannelLimits`).
    """

    def __init__(self) -> None:
        self._by_player: OrderedDict[PeerId, dict[str, str]] = OrderedDict()

    def put(self, peer: PeerId, channel: str, protocol: str) -> None:
        self._by_player.setdefault(peer, {})[channel] = protocol
        forget_oldest(self._by_player, PLAYERS_MAX)

    def of_channel(self, name: str) -> list[tuple[PeerId, str]]:
        return [(peer, channels[name]) for peer, channels in self._by_player.items() if name in channels]

    def of_player(self, peer: PeerId) -> dict[str, str]:
        return self._by_player.get(peer, {})

    def forget(self, peer: PeerId) -> None:
        self._by_player.pop(peer, None)
