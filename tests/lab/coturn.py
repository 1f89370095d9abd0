"""A coturn server inside the lab: STUN with RFC 5780, and TURN over UDP, TCP and TLS."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import attrs
import trustme

from tests.lab.namespaces import Namespaces, Process
from tests.lab.nat import WEB_PORT
from tests.lab.topology import Server

STUN_PORT = 3478
REALM, USER, PASSWORD = "lab.example", "player", "only-in-the-lab"
CA_FILE = "/run/lab/ca.pem"


@attrs.frozen(kw_only=True)
class TurnOptions:
    """shared_secret: time-limited credentials (TURN REST) in place of USER and PASSWORD. extra: more coturn options."""

    shared_secret: str | None = None
    extra: tuple[str, ...] = ()


@functools.cache
def certificate(addresses: tuple[str, ...]) -> tuple[str, str, str]:
    """PEM texts: authority, server chain, key. Good for every process of a test run."""
    authority = trustme.CA()
    leaf = authority.issue_cert(*addresses)
    chain = "".join(blob.bytes().decode() for blob in leaf.cert_chain_pems)
    return authority.cert_pem.bytes().decode(), chain, leaf.private_key_pem.bytes().decode()


class Coturn:
    """1. `start()` returns when it answers; 2. `kill()` as a crash does; 3. `start()` again. Allocations do not survive."""

    def __init__(self, namespaces: Namespaces, server: Server, options: TurnOptions) -> None:
        self.server, self._namespaces, self._options = server, namespaces, options
        self._process: Process | None = None

    def start(self) -> None:
        """Returns when it answers; raises RuntimeError when it does not."""
        name, run = self.server.name, f"/run/lab/{self.server.name}"
        authority, chain, key = certificate((*self.server.addresses4, *self.server.addresses6))
        for path, text in ((CA_FILE, authority), (f"{run}.crt", chain), (f"{run}.key", key)):
            self._namespaces.write(path, text)
        self._process = self._namespaces.spawn(name, self._command(run), pipes=False)
        address = self.server.addresses4[0]
        self._namespaces.wait_for_server(self._process, name, address, WEB_PORT, STUN_PORT)

    def kill(self) -> None:
        """SIGKILL: no farewell to anybody."""
        if self._process is not None:
            self._process.kill()
            self._process = None

    def signal(self, number: int) -> None:
        if self._process is not None:
            self._process.signal(number)

    def log(self) -> str:
        return self._namespaces.run(self.server.name, ["cat", f"/run/lab/{self.server.name}.log"])

    def _command(self, run: str) -> list[str]:
        listening = [f"--listening-ip={a}" for a in (*self.server.addresses4, *self.server.addresses6)]
        relaying = [f"--relay-ip={self.server.addresses4[0]}", f"--relay-ip={self.server.addresses6[0]}"]
        return [
            "turnserver",
            "-n",  # no configuration file
            *listening,
            *relaying,
            f"--listening-port={STUN_PORT}",
            f"--tls-listening-port={WEB_PORT}",  # TLS and plain TCP both: coturn tells them apart
            "--no-dtls",
            f"--cert={run}.crt",
            f"--pkey={run}.key",
            f"--realm={REALM}",
            *self._credentials(),
            "--relay-threads=1",
            "--no-cli",
            f"--userdb={run}.db",
            f"--pidfile={run}.pid",
            f"--log-file={run}.log",
            "--simple-log",
            "--no-stdout-log",
            "--verbose",
            *self._options.extra,
        ]

    def _credentials(self) -> Sequence[str]:
        if self._options.shared_secret is not None:
            return ["--use-auth-secret", f"--static-auth-secret={self._options.shared_secret}"]
        return ["--lt-cred-mech", f"--user={USER}:{PASSWORD}"]
