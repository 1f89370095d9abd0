"""The inputs of one seat, frame by frame."""

from __future__ import annotations


class InputTrack:
    """1. `put(frame, data)` extends it by the frame after `last`. 2. `at(frame)` is the input of a frame, or what is
    predicted for it.
    3. `cut(frame)` ends it: from there on the seat has no inputs. 4. `forget(before)` drops what nobody asks for any
    more.

    An input is a run of bytes of one length for the whole session; `blank` is the input of a seat that has none.
    """

    def __init__(self, blank: bytes) -> None:
        self._blank = blank
        self._inputs: dict[int, bytes] = {}
        self._oldest = 0
        self.last = -1  # the newest frame whose input is known; all before it are known, too
        self.begins_at = 0
        self.ends_at: int | None = None  # the first frame without an input of its own, once its player is gone

    def put(self, frame: int, data: bytes) -> None:
        if frame != self.last + 1:
            raise ValueError(f"frame {frame} does not follow {self.last}")
        self._inputs[frame] = data
        self.last = frame

    def begin_at(self, frame: int, blanks: int = 0) -> None:
        """Its player joins at `frame`: before it the seat was blank, and `blanks` more frames are known to be."""
        self._inputs = dict.fromkeys(range(frame, frame + blanks), self._blank)
        self._oldest = self.begins_at = frame
        self.last = frame + blanks - 1
        self.ends_at = None

    def begin_known(self, frame: int) -> None:
        """Its player was there before `frame`, and we know nothing older."""
        self._inputs.clear()
        self._oldest = frame
        self.last = frame - 1
        self.begins_at = 0
        self.ends_at = None

    def has_player(self, frame: int) -> bool:
        return frame >= self.begins_at and (self.ends_at is None or frame < self.ends_at)

    def cut(self, frame: int) -> None:
        self.ends_at = frame

    def knows(self, frame: int) -> bool:
        return frame <= self.last or (self.ends_at is not None and frame >= self.ends_at)

    def at(self, frame: int) -> bytes:
        """What was said for `frame`; the newest known input where nothing was said yet (a player holds a key for
        many frames).
        """
        if self.ends_at is not None and frame >= self.ends_at:
            return self._blank
        known = self._inputs.get(frame)
        if known is not None:
            return known
        return self._inputs.get(self.last, self._blank) if frame > self.last else self._blank

    def kept(self, frame: int) -> bytes | None:
        """The known input of `frame`, if it is still remembered."""
        return self._inputs.get(frame)

    @property
    def oldest(self) -> int:
        return self._oldest

    def forget(self, before: int) -> None:
        for frame in range(self._oldest, min(before, self.last)):  # the newest stays: it is the prediction
            self._inputs.pop(frame, None)
        self._oldest = max(self._oldest, min(before, self.last))
