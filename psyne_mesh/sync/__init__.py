"""The second front door, for programs with a loop of their own: pygame, arcade, pyglet, panda3d, ursina, or `while True`.

with sync.join_game_room("arena", max_players=8) as net:
    me = net.share(Ship())
    while running:
        for event in net.poll(): ...
        for ship in net.all(Ship): draw(ship.x, ship.y, ship.owner.name)
        clock.tick(60)

The network has a thread of its own; nothing here ever waits but what has a `timeout`. In a page (Pyodide) there is neither:
there `async with sync.join_game_room(...)` enters, and the page's own member carries the messages.
"""

import sys

from psyne_mesh.game.schema import Shared, quantised, smooth
from psyne_mesh.room.messages import Message

if sys.platform == "emscripten":  # a page: no threads, no sockets; see `in_page`
    from psyne_mesh.sync.in_page import Channel, Room, join_game_room, join_room
else:
    from psyne_mesh.room.listing import RoomChanges
    from psyne_mesh.room.options import Party
    from psyne_mesh.sync.channel import Channel
    from psyne_mesh.sync.entrance import (
        Mesh,
        create_room,
        join_game_room,
        join_room,
        list_rooms,
        open_mesh,
        open_server,
        quick_match,
    )
    from psyne_mesh.sync.exchanging import Files, FileSending, Request, Requests, SnapshotRequest
    from psyne_mesh.sync.listening import EventFeed
    from psyne_mesh.sync.room import Room
    from psyne_mesh.sync.watched import WatchedChannel, WatchedRoom

__all__ = [
    "Channel", "EventFeed", "FileSending", "Files", "Mesh", "Message", "Party", "Request", "Requests", "Room",
    "RoomChanges", "Shared", "SnapshotRequest", "WatchedChannel", "WatchedRoom", "create_room", "join_game_room",
    "join_room", "list_rooms", "open_mesh", "open_server", "quantised", "quick_match", "smooth",
]  # fmt: skip
