"""What DTLS can do with the libraries that are installed here."""

from __future__ import annotations

import attrs

from psyne_mesh.webrtc.dtls.handshake13 import groups
from psyne_mesh.webrtc.dtls.suites13 import SUITES


@attrs.frozen
class DtlsAbilities:
    """Names as in RFCs, best first.

    groups, suites: of 1.3. is_post_quantum: with a peer that can do it, too, what somebody records today stays secret from a
        quantum computer of later years. That is the key exchange; who is who rests on signatures (ed25519, ECDSA), which such a
        computer could forge from the day on which it exists, but not for the past.
    """

    versions: tuple[str, ...]
    groups: tuple[str, ...]
    suites: tuple[str, ...]
    is_post_quantum: bool


def dtls_abilities() -> DtlsAbilities:
    return DtlsAbilities(
        versions=("1.3", "1.2"),
        groups=tuple(groups.NAMES[group] for group in groups.GROUPS),
        suites=tuple(suite.name for suite in SUITES),
        is_post_quantum=groups.HAS_MLKEM,
    )
