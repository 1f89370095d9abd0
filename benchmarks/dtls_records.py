"""What DTLS costs: microseconds per record each way, milliseconds per handshake, KiB per idle session.

Run: python benchmarks/dtls_records.py [--quick]

Three ways to protect records are compared: pyOpenSSL's public methods, the short way into the same library, and AES-GCM
records made in Python (`fast_records`). Each figure is the best of several runs, so that a busy machine does less harm.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

from psyne_mesh.webrtc.dtls import Certificate, DtlsSession
from psyne_mesh.webrtc.dtls.protection import PublicOpenSslRecords

SIZES = (100, 1191, 16384)
WAYS = ("pyOpenSSL", "short way", "fast records")
BATCH = 32  # packets for each call of send(), as a window that has opened would give


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a look, not a measurement")
    quick = parser.parse_args().quick
    print(f"Python {sys.version.split()[0]}; best of {2 if quick else 7} runs")
    print(f"\n{'us per record':<14}" + "".join(f"{f'{size} B send':>14}{'receive':>9}" for size in SIZES))
    for way in WAYS:
        costs = [cost_per_record(way, size, rounds=20 if quick else 200, runs=2 if quick else 7) for size in SIZES]
        print(f"{way:<14}" + "".join(f"{send:>14.2f}{receive:>9.2f}" for send, receive in costs))
    print(f"\nhandshake, both sides: {handshake_ms(20 if quick else 200):.2f} ms of CPU")
    for fast in (False, True):
        memory = idle_kib(50 if quick else 300, fast)
        text = "not measured: no /proc" if memory is None else f"{memory:.1f} KiB"
        print(f"idle session, {'fast records' if fast else 'OpenSSL':<12}: {text}")


def connected(client: Certificate, server: Certificate, *, fast: bool = False) -> tuple[DtlsSession, DtlsSession]:
    a = DtlsSession(client, is_client=True, remote_fingerprints=[server.fingerprint], fast_records=fast)
    b = DtlsSession(server, is_client=False, remote_fingerprints=[client.fingerprint], fast_records=fast)
    b.start(0.0)
    a.start(0.0)
    while True:
        flights = [(b, d) for d in a.datagrams_to_send(0.0)] + [(a, d) for d in b.datagrams_to_send(0.0)]
        if not flights:
            return a, b
        for to, datagram in flights:
            to.receive(datagram, 0.0)


def cost_per_record(way: str, size: int, *, rounds: int, runs: int) -> tuple[float, float]:
    """Microseconds to send and to receive one record."""
    a, b = connected(Certificate.generate(), Certificate.generate(), fast=way == "fast records")
    if way == "pyOpenSSL":
        for session in (a, b):
            private = session._protection
            session._protection = PublicOpenSslRecords(private._connection, private.overhead)  # type: ignore[union-attr]
    packets = [bytes(size)] * BATCH
    sends, receives = [], []
    for _ in range(runs):
        sending = receiving = 0.0
        for _ in range(rounds):
            t0 = perf_counter()
            datagrams = a.send(packets)
            t1 = perf_counter()
            for datagram in datagrams:
                b.receive(datagram, 0.0)
            t2 = perf_counter()
            sending += t1 - t0
            receiving += t2 - t1
        sends.append(sending / rounds / BATCH * 1e6)
        receives.append(receiving / rounds / BATCH * 1e6)
    assert b.stats.records_dropped == 0
    return min(sends), min(receives)


def handshake_ms(rounds: int) -> float:
    client, server = Certificate.generate(), Certificate.generate()
    return min(timed(lambda: connected(client, server)) for _ in range(rounds)) * 1e3


def timed(work: Callable[[], object]) -> float:
    start = perf_counter()
    work()
    return perf_counter() - start


def idle_kib(pairs: int, fast: bool) -> float | None:
    """Private memory that one idle session holds, Linux only."""
    if not Path("/proc/self/smaps_rollup").exists():
        return None
    client, server = Certificate.generate(), Certificate.generate()
    held = [connected(client, server, fast=fast) for _ in range(50)]  # fills what is allocated once
    before = private_kib()
    held += [connected(client, server, fast=fast) for _ in range(pairs)]
    return (private_kib() - before) / (2 * pairs)


def private_kib() -> int:
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # else memory that was freed, and is kept for the next, counts as held
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty"))


if __name__ == "__main__":
    main()
