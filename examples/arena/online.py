"""All of the game that talks to the network."""

from __future__ import annotations

from contextlib import ExitStack

from examples.arena.world import Chat, Kill, Ship, Shot, World
from psyne_mesh import sync
from psyne_mesh.events import HostChanged, PeerConnected, PeerLeft, SharedRefused


class Online:
    def __init__(self, net: sync.Room, world: World) -> None:
        self.net, self.world, self.ship = net, world, net.share(world.me)
        self.shots = net.channel("shots", Shot, mode="reliable_unordered")
        self.kills = net.channel("kills", Kill)
        self.chat = net.channel("chat", Chat)
        self.away, world.host = ExitStack(), net.host

    def frame(self) -> None:
        """What the others did since the last frame goes into the world."""
        for event in self.net.poll():
            match event:
                case PeerConnected(peer=peer):
                    self.world.say(f"{peer.name} is here ({peer.path})")
                case PeerLeft(peer=peer, reason=reason):
                    self.world.say(f"{peer.name} is gone ({reason})")
                case HostChanged(host=host):
                    self.world.host = host
                case SharedRefused(peer=peer, reason=reason):
                    self.world.say(f"{peer.name} plays another version: {reason}")
        self.world.ships = list(self.net.all(Ship))
        for sender, shot in self.shots:
            self.world.fly(shot, sender.id)
        for sender, kill in self.kills:
            self.world.killed(sender.name, kill)
        for sender, chat in self.chat:
            self.world.say(f"{sender.name}: {chat.text}")

    def pause(self) -> None:
        self.ship.paused = not self.ship.paused
        self.away.enter_context(self.net.pause()) if self.ship.paused else self.away.close()

    def say(self, chat: Chat) -> None:
        self.chat.send(chat)
        self.world.say(f"{self.net.player.name}: {chat.text}")
