"""DTLS 1.3 and 1.2 without sockets: certificates, fingerprints and sessions (RFC 9147, RFC 6347, RFC 8122, RFC 8827)."""

from psyne_mesh.webrtc.dtls.abilities import DtlsAbilities, dtls_abilities
from psyne_mesh.webrtc.dtls.certificate import Certificate, Fingerprint
from psyne_mesh.webrtc.dtls.embedding import MTU as EMBEDDED_MTU
from psyne_mesh.webrtc.dtls.embedding import OPTION as EMBEDDING_OPTION
from psyne_mesh.webrtc.dtls.embedding import Embedding
from psyne_mesh.webrtc.dtls.events import Closed, DtlsEvent, DtlsStats, Failed, HandshakeCompleted
from psyne_mesh.webrtc.dtls.record13 import newest_spare_untrusted
from psyne_mesh.webrtc.dtls.session import DtlsSession, Session, Version

__all__ = [
    "EMBEDDED_MTU",
    "EMBEDDING_OPTION",
    "Certificate",
    "Closed",
    "DtlsAbilities",
    "DtlsEvent",
    "DtlsSession",
    "DtlsStats",
    "Embedding",
    "Failed",
    "Fingerprint",
    "HandshakeCompleted",
    "Session",
    "Version",
    "dtls_abilities",
    "newest_spare_untrusted",
]
