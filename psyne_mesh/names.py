"""Names of rooms, regions and players: any writing of the world, as long as it steers no terminal. Pure."""

from __future__ import annotations

import unicodedata

# Controls, line and paragraph separators, surrogates (no UTF-8 has them), and what turns the direction of other text round:
# embeddings, overrides and isolates (Unicode Standard Annex 9). Joiners stay, as Persian and emoji need them, and so do
# spaces of any width.
_REFUSED = "\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff"
PLAIN_PATTERN = rf"\A[^{_REFUSED}]*\Z"
PART_PATTERN = rf"\A[^{_REFUSED}/]*\Z"  # of a room key, before the name: no slash

_REFUSED_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})
_TURNS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def is_plain(text: str) -> bool:
    return not any(map(_is_refused, text))


def plain(text: str) -> str:
    """`text` of a stranger without what is refused."""
    return text if is_plain(text) else "".join(letter for letter in text if not _is_refused(letter))


def normal(text: str) -> str:
    """The form in which names are compared (NFC, Unicode Standard Annex 15): é is é, however a keyboard makes it."""
    return unicodedata.normalize("NFC", text)


def _is_refused(letter: str) -> bool:
    return letter in _TURNS or unicodedata.category(letter) in _REFUSED_CATEGORIES
