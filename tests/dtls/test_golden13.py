"""Handshakes recorded once with fixed keys: what goes over the wire is the same today, byte for byte.

`golden13.json` is made by `python -m tests.dtls.test_golden13`. Whoever must make it anew has changed the wire.
"""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_certificate

from psyne_mesh.webrtc.dtls import Certificate, suites13
from psyne_mesh.webrtc.dtls.handshake13 import groups
from psyne_mesh.webrtc.dtls.session13 import Session13

PATH = Path(__file__).with_name("golden13.json")
needs_mlkem = pytest.mark.skipif(
    not groups.HAS_MLKEM, reason="this cryptography has no ML-KEM: its shares are not offered"
)


class FixedKeys(groups.KeyMaker):
    """The same private keys in the same order, and ML-KEM's answer as it was recorded: the library makes only fresh ones."""

    def __init__(self, seed: str, answer: tuple[bytes, bytes] | None = None) -> None:
        self.seed = seed
        self.count = 0
        self.answer = answer

    def _bytes(self, size: int) -> bytes:
        self.count += 1
        return hashlib.shake_256(f"{self.seed} {self.count}".encode()).digest(size)

    def x25519(self) -> x25519.X25519PrivateKey:
        return x25519.X25519PrivateKey.from_private_bytes(self._bytes(32))

    def p256(self) -> ec.EllipticCurvePrivateKey:
        return ec.derive_private_key(int.from_bytes(self._bytes(31), "big") + 1, ec.SECP256R1())

    def mlkem768(self) -> Any:
        return groups.mlkem.MLKEM768PrivateKey.from_seed_bytes(self._bytes(64))

    def encapsulate(self, public_key: Any) -> tuple[bytes, bytes]:
        if self.answer is None:
            self.answer = super().encapsulate(public_key)
        return self.answer


def sign(key: Any, content: bytes, algorithm: int) -> bytes:
    """RFC 6979, so that a signature is the same each time."""
    signature: bytes = key.sign(content, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
    return signature


CASES: dict[str, dict[str, Any]] = {
    "x25519, AES-128": {"allowed_groups": (groups.X25519,), "suites": (suites13.AES_128_GCM,)},
    "P-256, AES-256": {"allowed_groups": (groups.SECP256R1,), "suites": (suites13.AES_256_GCM,)},
    "x25519, ChaCha20": {"allowed_groups": (groups.X25519,), "suites": (suites13.CHACHA20_POLY1305,)},
    "ML-KEM, AES-128": {"allowed_groups": (groups.X25519_MLKEM768, groups.X25519), "suites": (suites13.AES_128_GCM,)},
    "in small pieces": {"allowed_groups": (groups.X25519,), "suites": (suites13.AES_128_GCM,), "mtu": 256},
}


def play(case: dict[str, Any], certificates: list[Certificate], answer: tuple[bytes, bytes] | None) -> dict[str, Any]:
    made = FixedKeys("server", answer)
    ours, theirs = certificates
    client = Session13(
        ours, is_client=True, remote_fingerprints=[theirs.fingerprint], sign=sign,
        keys=FixedKeys("client"), random=random.Random(1).randbytes, **case,
    )  # fmt: skip
    server = Session13(
        theirs, is_client=False, remote_fingerprints=[ours.fingerprint], sign=sign,
        keys=made, random=random.Random(2).randbytes, **case,
    )  # fmt: skip
    wire: list[str] = []
    client.start(0.0)
    server.start(0.0)
    moving = True
    while moving:
        moving = False
        for sender, receiver in ((client, server), (server, client)):
            for datagram in sender.datagrams_to_send(0.0):
                moving = True
                wire.append(datagram.hex())
                receiver.receive(datagram, 0.0)
    for sender, receiver in ((client, server), (server, client)):
        for datagram in sender.send([b"hello", bytes(100)]):
            wire.append(datagram.hex())
            assert receiver.receive(datagram, 0.0)
    return {"wire": wire, "answer": [part.hex() for part in made.answer or ()]}


def load() -> tuple[dict[str, Any], list[Certificate]]:
    golden = json.loads(PATH.read_text(encoding="utf-8"))
    return golden, [
        Certificate(key, load_pem_x509_certificate(pem.encode())) for key, pem in zip(keys(), golden["certificates"])
    ]


def keys() -> list[ec.EllipticCurvePrivateKey]:
    """Of the two certificates; made from words, so that no private key stands in the repository."""
    return [FixedKeys(f"certificate of the {who}").p256() for who in ("client", "server")]


@pytest.mark.parametrize("name", [pytest.param(name, marks=needs_mlkem if "ML-KEM" in name else ()) for name in CASES])
def test_the_wire_is_what_it_was(name: str) -> None:
    golden, certificates = load()
    recorded = golden["cases"][name]
    answer = tuple(bytes.fromhex(part) for part in recorded["answer"]) or None
    assert play(CASES[name], certificates, answer)["wire"] == recorded["wire"]  # type: ignore[arg-type]


def write() -> None:
    certificates = [Certificate.generate(key) for key in keys()]
    pems = [each.certificate.public_bytes(Encoding.PEM).decode() for each in certificates]
    cases = {name: play(case, certificates, None) for name, case in CASES.items()}
    PATH.write_text(json.dumps({"certificates": pems, "cases": cases}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write()
