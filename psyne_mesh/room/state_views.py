"""The state of a player or of the room as a game holds it: a mapping."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

from psyne_mesh.errors import InvalidConfig
from psyne_mesh.room.plain import decode_plain_untrusted, encode_plain

Look = Callable[[], Mapping[str, bytes]]


class SeenState(Mapping[str, Any]):
    """What another player tells: always up to date. A value that was read is the reader's own; to change one, its owner
    writes it back."""

    def __init__(self, look: Look) -> None:
        self._look = look

    def __getitem__(self, key: str) -> Any:
        return decode_plain_untrusted(self._look()[key])

    def __iter__(self) -> Iterator[str]:
        return iter(self._look())

    def __len__(self) -> int:
        return len(self._look())

    def __repr__(self) -> str:
        return f"<state {dict(self)!r}>"


class WrittenState(SeenState, MutableMapping[str, Any]):
    """The same of ours: `state["ready"] = True`, `del state["ready"]`. Everybody sees it a moment later, who comes later
    included.

    Raises `UnserialisableMessage` for what is no plain value, `MessageTooLarge` for a value above 8 KiB or more than 64 KiB in
    all, `ClosedError` once the room was left; nothing has changed then.
    """

    def __init__(self, look: Look, write: Callable[[str, bytes | None], None]) -> None:
        super().__init__(look)
        self._write = write

    def __setitem__(self, key: str, value: Any) -> None:
        if not isinstance(key, str):
            raise InvalidConfig(f"state[{key!r}]: a key is text")
        self._write(key, encode_plain(value))

    def __delitem__(self, key: str) -> None:
        if key not in self:
            raise KeyError(key)
        self._write(key, None)


class OneKind:
    """The keys of one kind in the room's map, without the letter that says so."""

    def __init__(self, kind: str, look: Look) -> None:
        self._kind = kind
        self._look = look
        self._seen: tuple[Mapping[str, bytes], Mapping[str, bytes]] | None = None

    def __call__(self) -> Mapping[str, bytes]:
        whole, seen = self._look(), self._seen
        if seen is None or seen[0] is not whole:
            seen = self._seen = whole, {key[1:]: value for key, value in whole.items() if key[0] == self._kind}
        return seen[1]
