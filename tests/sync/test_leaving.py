"""However a game ends, the others see it leave; however long it does not poll, nothing is lost."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

from psyne_mesh import sync
from tests.sync.conftest import Join
from tests.sync.frames import meet, until


class Ship(sync.Shared):
    hp: int = 0


GAME = """
import atexit, os, signal, sys, threading, time
from psyne_mesh import WebRTCConfig, sync

def play():
    config = WebRTCConfig(bind_host="127.0.0.1", use_ipv6=False)
    with sync.join_game_room("leaving", signaling=sys.argv[1], config=config, player_name=sys.argv[2]) as net:
        words = net.channel("words")
        for frame in range(10_000):
            net.poll()
            time.sleep(0.01)
            if len(net.connected) == 1 and frame > 20:
                words.send(sys.argv[2])
                END

END_ALL
"""
ENDS = {
    "end of the block": ("return", "play()", 0),
    "sys.exit": ("sys.exit(3)", "play()", 3),
    "an exception": ("raise ZeroDivisionError", "play()", 1),
    "Ctrl-C": ("print('ready', flush=True); time.sleep(60)", "play()", -signal.SIGINT),
    "Ctrl-C in a busy loop": (
        "print('ready', flush=True)\n                while True: net.poll()", "play()", -signal.SIGINT,
    ),
    "the program ends while another thread plays": (
        "over.set(); time.sleep(60)",
        "over = threading.Event(); threading.Thread(target=play, daemon=True).start(); over.wait()", 0,
    ),
    "never left at all": (
        "return",
        "from psyne_mesh.sync.entrance import Block; Block.__exit__ = lambda self, *error: None; play()", 0,
    ),
}  # fmt: skip


EVERYDAY = ("sys.exit", "Ctrl-C", "never left at all")


@pytest.mark.parametrize("how", [how if how in EVERYDAY else pytest.param(how, marks=pytest.mark.slow) for how in ENDS])
def test_the_others_see_left_however_a_game_ends(how: str, url: str) -> None:
    if how.startswith("Ctrl-C") and sys.platform == "win32":
        pytest.skip("Windows sends Ctrl-C to whole consoles only, the test's own included")
    inside, outside, code = ENDS[how]
    program = GAME.replace("END_ALL", outside).replace("END", inside)
    with sync.join_game_room("leaving", signaling=url, player_name="watcher", create=None) as net:
        reasons: list[str] = []
        said: list[Any] = []
        net.on_peer_left(lambda peer, reason: reasons.append(reason))
        words = net.channel("words")
        game = subprocess.Popen(
            [sys.executable, "-c", program, url, how], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            if how.startswith("Ctrl-C"):
                assert game.stdout is not None
                assert game.stdout.readline() == "ready\n"
                game.send_signal(signal.SIGINT)
            until(lambda: reasons, net, each_frame=lambda: said.extend(word for _, word in words))
            _, errors = game.communicate(timeout=30)
        finally:
            game.kill()
        assert reasons == ["left"]
        assert said == [how]
        assert game.returncode == code, errors
        assert "psyne-mesh" not in errors.replace("psyne-mesh room", "")


@pytest.mark.slow
def test_a_game_that_loads_for_long_loses_nothing(join: Join) -> None:
    """Eight seconds without a poll, half of them in Python that never sleeps: longer than any verdict of death takes."""
    with join("ada") as ada, join("loader") as loader:
        meet(ada, loader)
        told: list[Any] = []
        ada.on_peer_left(lambda peer, reason: told.append(reason))
        words, heard = ada.channel("words"), loader.channel("words")
        loud, ship = ada.channel("loud", mode="unreliable"), ada.share(Ship())
        list(loader.all(Ship))
        began = time.monotonic()
        number = 0

        def play_ada() -> None:
            nonlocal number
            number += 1
            ship.hp = number
            words.send(str(number))
            loud.send(b"x" * 100)

        stop = threading.Event()

        def others() -> None:
            while not stop.is_set():
                ada.poll()
                play_ada()
                time.sleep(0.02)

        thread = threading.Thread(target=others)
        ada._poller = None  # the test lets another thread play
        thread.start()
        try:
            time.sleep(4)
            while time.monotonic() - began < 8:
                sum(range(1000))
        finally:
            stop.set()
            thread.join()
            ada._poller = None
        got: list[str] = []
        until(lambda: len(got) == number, loader, each_frame=lambda: got.extend(word for _, word in heard))
        assert got == [str(each) for each in range(1, number + 1)]
        assert told == []
        until(lambda: [seen.hp for seen in loader.all(Ship)] == [number], loader, ada)
