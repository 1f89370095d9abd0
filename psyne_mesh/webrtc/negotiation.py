"""Offer and answer (RFC 3264, RFC 9429) for one data section: whose turn it is, and what the text may change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

import attrs

from psyne_mesh.errors import LocalError, ProtocolError
from psyne_mesh.webrtc import sctp
from psyne_mesh.webrtc.sdp import (
    Description,
    DtlsVersion,
    Setup,
    answer_setup,
    make_answer,
    make_offer,
    parse_sdp_untrusted,
)

Turn: TypeAlias = Literal["nothing", "have-local-offer", "have-remote-offer", "stable"]


class Negotiated(NamedTuple):
    """dtls_versions: those that the session may speak; a client speaks the first. is_reversed: a stranger's offer left
    the roles to us, and we became the server, where most answerers become the client."""

    is_dtls_client: bool
    dtls_versions: tuple[DtlsVersion, ...]
    is_reversed: bool = False


class Negotiation:
    """Which side offers is settled beforehand (in a mesh by the order of the peer ids), so that two offers never cross.

    1. The offerer: `make_offer`, then `accept_answer`. The answerer: `accept_offer`, then `make_answer`.
    2. The same again restarts ICE. Fingerprints, DTLS roles and SCTP's INITs stay those of the first time.

    Each offer holds our INIT chunk, each answer to an offer with a usable one, too (draft-hancke-tsvwg-snap): both sides
    know that SCTP needs no handshake if `remote.sctp_init` is there.

    Which version of DTLS: as client we must know it before the first word, and only descriptions of our own kind say it. So a
    stranger that leaves us the choice becomes the client, and its hello says it; one that insists on being the server is
    spoken to in 1.2.

    Misuse raises `LocalError`, bad text `ProtocolError`; either leaves everything as it was.
    """

    def __init__(
        self,
        *,
        offerer: bool,
        fingerprint: str,
        max_message_size: int,
        max_datagram_size: int,
        express: int = 0,
        sctp_init: bytes,
        dtls_versions: tuple[DtlsVersion, ...],
        ice_options: tuple[str, ...] = (),
        session_id: int,
    ) -> None:
        self.turn: Turn = "nothing"
        self.remote: Description | None = None
        self._offerer = offerer
        self._fingerprint = fingerprint
        self._max_message_size = max_message_size
        self._max_datagram_size = max_datagram_size
        self._express = express
        self._sctp_init = sctp_init
        self._dtls_versions = dtls_versions
        self._ice_options = ice_options  # beside "trickle"; an answer has those that the offer had
        self._session_id = session_id
        self._version = 0
        self._offered = ""  # the ufrag of our newest offer
        self._setup: Setup = "actpass"

    @property
    def negotiated(self) -> Negotiated:
        """Known once `remote` is."""
        is_client = self._setup == "active"
        ours, said = self._dtls_versions, () if self.remote is None else self.remote.dtls_versions
        if said:  # by a peer of our own kind, under its signature: a lower one is not accepted any more
            return Negotiated(is_client, tuple(version for version in said if version in ours)[:1])
        is_reversed = not self._offerer and not is_client and self.remote is not None and self.remote.setup == "actpass"
        return Negotiated(is_client, ("1.2",) if is_client and "1.2" in ours else ours, is_reversed)

    def check_may_offer(self) -> None:
        if not self._offerer:
            raise LocalError("this side answers: wait for the peer's offer, or open the peer with offerer=True")

    def make_offer(self, ufrag: str, password: str, candidates: Sequence[str], *, complete: bool) -> str:
        self.check_may_offer()
        self.turn = "have-local-offer"
        self._offered = ufrag
        self._version += 1
        # RFC 8842 section 5.5: a later offer says actpass too, and the answer keeps the roles.
        local = self._local(ufrag, password, candidates, complete, "actpass")
        return make_offer(local, session_id=self._session_id, version=self._version)

    def is_stale(self, text: str) -> bool:
        """Whether this answers an offer of ours that another has replaced: its credentials belong to no checks of now. Only
        answers of our own kind tell."""
        said = parse_sdp_untrusted(text).answers
        return bool(said) and said != self._offered

    def accept_answer(self, text: str) -> Description:
        if self.turn != "have-local-offer":
            raise LocalError("there is no offer of ours that this could answer")
        if self.is_stale(text):
            raise ProtocolError("an answer to an offer that another has replaced")
        answer = self._parse_untrusted(text)
        if answer.setup == "actpass":
            raise ProtocolError("an answer chooses active or passive (RFC 8842 section 5.3)")
        setup: Setup = "passive" if answer.setup == "active" else "active"
        self._check_unchanged(answer, setup)
        self.remote, self._setup, self.turn = answer, setup, "stable"
        return answer

    def accept_offer(self, text: str) -> Description:
        if self._offerer:
            raise LocalError(
                "this side offers, and the peer's offer crosses ours. One of the two must answer: "
                "close this peer and open another one with offerer=False"
            )
        offer = self._parse_untrusted(text)
        knows_version = bool(offer.dtls_versions) or "1.3" not in self._dtls_versions
        fresh = answer_setup(offer.setup, knows_version=knows_version)
        setup = fresh if self.remote is None or offer.setup != "actpass" else self._setup
        self._check_unchanged(offer, setup)
        self.remote, self._setup, self.turn = offer, setup, "have-remote-offer"
        return offer

    def make_answer(self, ufrag: str, password: str, candidates: Sequence[str], *, complete: bool) -> str:
        if self.turn != "have-remote-offer" or self.remote is None:
            raise LocalError("there is no offer to answer")
        self.turn = "stable"
        self._version += 1
        local = self._local(ufrag, password, candidates, complete, self._setup)
        local = attrs.evolve(local, answers=self.remote.ice_ufrag)
        return make_answer(local, self.remote, session_id=self._session_id, version=self._version)

    def _local(self, ufrag: str, password: str, candidates: Sequence[str], complete: bool, setup: Setup) -> Description:
        snap = self._offerer or (self.remote is not None and bool(self.remote.sctp_init))
        offered = self._ice_options if self._offerer or self.remote is None else self.remote.ice_options
        return Description(
            ice_ufrag=ufrag,
            ice_pwd=password,
            fingerprints=(self._fingerprint,),
            setup=setup,
            max_message_size=self._max_message_size,
            max_datagram_size=self._max_datagram_size,
            express=self._express,
            sctp_init=self._sctp_init if snap else b"",
            dtls_versions=self._dtls_versions,
            candidates=tuple(candidates),
            end_of_candidates=complete,
            ice_options=("trickle", *(option for option in self._ice_options if option in offered)),
        )

    def _parse_untrusted(self, text: str) -> Description:
        """What the peer says. Its INIT is left out if no association can begin with it. With our own INIT in it, it is one that
        gives back what it does not understand (libdatachannel, its issue 1620): then nothing of our own kind counts."""
        said = parse_sdp_untrusted(text)
        if said.sctp_init == self._sctp_init:
            return attrs.evolve(said, sctp_init=b"", dtls_versions=(), max_datagram_size=0, express=0)
        if said.dtls_versions and not set(said.dtls_versions) & set(self._dtls_versions):
            raise ProtocolError(f"the peer speaks DTLS {' and '.join(said.dtls_versions)} only: see dtls_versions")
        if not said.sctp_init:
            return said
        try:
            sctp.read_init_untrusted(said.sctp_init)
        except ProtocolError:
            return attrs.evolve(said, sctp_init=b"")
        return said

    def _check_unchanged(self, new: Description, setup: Setup) -> None:
        """A restart carries the DTLS association over (RFC 8842 section 5.1), so it cannot change who it is with."""
        if self.remote is not None and (set(new.fingerprints) != set(self.remote.fingerprints) or setup != self._setup):
            raise ProtocolError("another fingerprint or DTLS role needs another connection")
