"""A chat in the terminal with Textual: `python textual_chat.py [URL]`. Its timer polls; asyncio and Trio never meet."""

import sys

from textual.app import App, ComposeResult
from textual.widgets import Input, RichLog

from psyne_mesh import sync


class Line(sync.Message):
    text: str


class Chat(App):
    def __init__(self, net: sync.Room, seconds: float) -> None:
        super().__init__()
        self.net, self.lines, self.seconds = net, net.channel("chat", Line), seconds

    def compose(self) -> ComposeResult:
        yield RichLog()
        yield Input(placeholder="say something")

    def on_mount(self) -> None:
        self.set_interval(1 / 20, self.update_net)
        self.set_timer(self.seconds, self.exit)

    def update_net(self) -> None:
        log = self.query_one(RichLog)
        for event in self.net.poll():
            log.write(str(event))
        for sender, line in self.lines:
            log.write(f"{sender.name}: {line.text}")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self.lines.send(Line(event.value))
        event.input.clear()


def main(url: str = "ws://127.0.0.1:8080", seconds: float = 1e9) -> None:
    with sync.join_game_room("recipes", signaling=url, player_name="textual") as net:
        Chat(net, seconds).run(headless=seconds < 1e9)


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(float, sys.argv[2:3]))
