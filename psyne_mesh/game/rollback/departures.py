"""Who leaves is cut off at the same tick everywhere, after the newest of its inputs that anybody has.

The survivors tell each other all that they have of the seats that are gone, and again whenever one more of them
goes, always cumulatively. A seat is cut once every survivor has told what it has with that seat among the gone: from
then on nobody can come up with more. Inputs that one survivor has confirmed are therefore never taken back by another.
"""

from __future__ import annotations

from psyne_mesh.game.rollback.track import InputTrack
from psyne_mesh.game.rollback.wire import FRAMES_MAX, Cut, Entry, Known


class Departures:
    """1. `drop(seat)` when the room says that its player is gone; send `word(admitted)` to all survivors then. 2.
    `hear(seat, cut)`.
    3. `settle(survivors)` after both: the seats that are cut now, with their first frame without a player, and the
    inputs that survivors had beyond ours are in the tracks.
    """

    def __init__(self, tracks: list[InputTrack], input_bytes: int) -> None:
        self._tracks, self._input_bytes = tracks, input_bytes
        self._gone: set[int] = set()
        self._heard: dict[int, Cut] = {}
        self.unsettled: set[int] = set()

    def drop(self, seat: int) -> None:
        self._gone.add(seat)
        self.unsettled.add(seat)
        self._heard.pop(seat, None)

    def is_gone(self, seat: int) -> bool:
        return seat in self._gone

    def word(self, admitted: list[Entry]) -> Cut:
        return Cut([self._known(seat) for seat in sorted(self._gone)], admitted)

    def admitted(self) -> list[Entry]:
        """Whom the others say was let in lately."""
        return [entry for cut in self._heard.values() for entry in cut.admitted]

    def _known(self, seat: int) -> Known:
        track = self._tracks[seat]
        inputs: list[bytes] = []
        frame = track.last
        while len(inputs) < FRAMES_MAX and (data := track.kept(frame)) is not None:
            inputs.append(data)
            frame -= 1
        return Known(seat, track.last, frame + 1, inputs[::-1])

    def hear(self, seat: int, cut: Cut) -> None:
        """Kept until our own room says that they are gone: a single member cannot end another's game."""
        if seat not in self._gone:
            self._heard[seat] = cut

    def settle(self, survivors: set[int]) -> list[tuple[int, int]]:
        """`survivors` without ourselves. Returns (seat, first frame without a player) of each seat that is cut by
        this.
        """
        said = {
            seat: {known.seat: known for known in cut.gone} for seat, cut in self._heard.items() if seat in survivors
        }
        if not self.unsettled or any(not self.unsettled <= said.get(seat, {}).keys() for seat in survivors):
            return []
        for known in [words[seat] for words in said.values() for seat in self.unsettled]:
            self._backfill(known)
        settled = [(seat, self._tracks[seat].last + 1) for seat in sorted(self.unsettled)]
        self.unsettled.clear()
        return settled

    def _backfill(self, known: Known) -> None:
        track = self._tracks[known.seat]
        for frame, data in enumerate(known.inputs, known.first):
            if frame == track.last + 1 and frame <= known.last and len(data) == self._input_bytes:
                track.put(frame, data)

    def back(self, seat: int) -> None:
        """It has a player again."""
        self._gone.discard(seat)
        self._heard.pop(seat, None)
