"""Trio inside somebody else's loop (guest mode), for who wants Trio code on the game's thread: `python trio_guest.py [URL]`.

Each hop waits for the loop, and a loop that stands still is a player that does: `psyne_mesh.sync` has neither fault."""

import queue
import sys

import trio

from psyne_mesh import Shared, join_game_room, smooth


class Dot(Shared):
    x: float = smooth(0.0)


async def play(url: str, seconds: float) -> None:
    async with join_game_room("recipes", signaling=url, player_name="guest") as room:
        me = room.share(Dot())
        with trio.move_on_after(seconds):
            while True:
                me.x += 1
                await trio.sleep(1 / 30)


def main(url: str = "ws://127.0.0.1:8080", seconds: float = 30.0) -> None:
    due, ended = queue.SimpleQueue(), []
    trio.lowlevel.start_guest_run(
        play,
        url,
        seconds,
        run_sync_soon_threadsafe=due.put,
        done_callback=ended.append,
        host_uses_signal_set_wakeup_fd=False,
    )
    while not ended:  # the host's loop: a frame, then whatever Trio has asked for
        due.get()()
    ended[0].unwrap()


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(float, sys.argv[2:3]))
