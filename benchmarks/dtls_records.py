"""What DTLS costs: microseconds per record each way, milliseconds per handshake, KiB per idle session.

Run: python benchmarks/dtls_records.py [--quick]

Ways to protect records of 1.2 are compared: pyOpenSSL's public methods, the short way into the same library, and AES-GCM
records made in Python (`fast_records`); and the records of 1.3. The ways take turns, and each figure is the best of several
runs of CPU time, so that a busy machine does less harm.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import sys
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import TypeAlias

from psyne_mesh.webrtc.dtls import Certificate
from psyne_mesh.webrtc.dtls.handshake13 import groups
from psyne_mesh.webrtc.dtls.protection import PublicOpenSslRecords
from psyne_mesh.webrtc.dtls.session12 import Session12
from psyne_mesh.webrtc.dtls.session13 import Session13

Session: TypeAlias = Session12 | Session13

SIZES = (100, 1191, 16384)
WAYS = ("pyOpenSSL", "short way", "fast records", "1.3")
HANDSHAKES = {"1.2": None, "1.3, x25519": (groups.X25519,), "1.3, ML-KEM": groups.GROUPS}
M_TRIM_THRESHOLD, M_TOP_PAD = -1, -2  # of mallopt(3)
BATCH = 32  # packets for each call of send(), and datagrams of receive_many(), as a window that has opened would give


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a look, not a measurement")
    quick = parser.parse_args().quick
    print(f"Python {sys.version.split()[0]}; best of {2 if quick else 7} runs")
    print(f"\n{'us per record':<14}" + "".join(f"{f'{size} B send':>14}{'receive':>9}" for size in SIZES))
    runs, rounds = (2, 20) if quick else (7, 200)
    costs = {size: cost_per_record(size, rounds=rounds, runs=runs) for size in SIZES}
    for way in WAYS:
        row = [costs[size][way] for size in SIZES]
        print(f"{way:<14}" + "".join(f"{send:>14.2f}{receive:>9.2f}" for send, receive in row))
    newer, older = ([costs[size][way] for size in SIZES] for way in ("1.3", "fast records"))
    ratios = [f"{a / b:.2f}" for one, other in zip(newer, older) for a, b in zip(one, other)]
    print(f"{'1.3 / fast':<14}" + "".join(f"{text:>{14 if at % 2 == 0 else 9}}" for at, text in enumerate(ratios)))
    print("\nhandshake, both sides, ms of CPU: best and median")
    for name, (best, median) in handshake_ms(20 if quick else 200).items():
        print(f"{name:<14}{best:>8.2f}{median:>8.2f}")
    for way in ("short way", "fast records", "1.3"):
        memory = idle_kib(50 if quick else 300, way)
        text = "not measured: no /proc" if memory is None else f"{memory:.1f} KiB"
        print(f"idle session, {way:<12}: {text}")


def connected(
    client: Certificate, server: Certificate, way: str = "1.3", allowed: tuple[int, ...] | None = None
) -> tuple[Session, Session]:
    a: Session
    b: Session
    if way.startswith("1.3"):
        a = Session13(client, is_client=True, remote_fingerprints=[server.fingerprint], allowed_groups=allowed)
        b = Session13(server, is_client=False, remote_fingerprints=[client.fingerprint], allowed_groups=allowed)
    else:
        fast = way == "fast records"
        a = Session12(client, is_client=True, remote_fingerprints=[server.fingerprint], fast_records=fast)
        b = Session12(server, is_client=False, remote_fingerprints=[client.fingerprint], fast_records=fast)
    b.start(0.0)
    a.start(0.0)
    while True:
        flights = [(b, d) for d in a.datagrams_to_send(0.0)] + [(a, d) for d in b.datagrams_to_send(0.0)]
        if not flights:
            return a, b
        for to, datagram in flights:
            to.receive(datagram, 0.0)


def cost_per_record(size: int, *, rounds: int, runs: int) -> dict[str, tuple[float, float]]:
    """Microseconds to send and to receive one record, each way."""
    keep_heap()
    pairs = {way: connected(Certificate.generate(), Certificate.generate(), way) for way in WAYS}
    for session in pairs["pyOpenSSL"]:
        private = session._protection  # type: ignore[union-attr]
        session._protection = PublicOpenSslRecords(private._connection, private.overhead)  # type: ignore[union-attr]
    packets = [bytes(size)] * BATCH
    best = dict.fromkeys(WAYS, (1e9, 1e9))
    for _ in range(runs):
        spent = {way: [0.0, 0.0] for way in WAYS}
        for _ in range(rounds):
            for way, (a, b) in pairs.items():
                t0 = process_time()
                datagrams = a.send(packets)
                t1 = process_time()
                b.receive_many(datagrams, 0.0)
                t2 = process_time()
                spent[way][0] += t1 - t0
                spent[way][1] += t2 - t1
        for way, (sending, receiving) in spent.items():
            per_record = 1e6 / rounds / BATCH
            best[way] = min(best[way][0], sending * per_record), min(best[way][1], receiving * per_record)
    assert all(b.stats.records_dropped == 0 for _, b in pairs.values())
    return best


def handshake_ms(rounds: int) -> dict[str, tuple[float, float]]:
    client, server = Certificate.generate(), Certificate.generate()
    took: dict[str, list[float]] = {name: [] for name in HANDSHAKES}
    for _ in range(rounds):
        for name, allowed in HANDSHAKES.items():
            way = "fast records" if allowed is None else "1.3"
            took[name].append(timed(lambda: connected(client, server, way, allowed)) * 1e3)  # noqa: B023
    return {name: (min(each), sorted(each)[len(each) // 2]) for name, each in took.items()}


def timed(work: Callable[[], object]) -> float:
    start = process_time()
    work()
    return process_time() - start


def idle_kib(pairs: int, way: str) -> float | None:
    """Private memory that one idle session holds, Linux only."""
    if not Path("/proc/self/smaps_rollup").exists():
        return None
    client, server = Certificate.generate(), Certificate.generate()
    held = [connected(client, server, way) for _ in range(50)]  # fills what is allocated once
    before = private_kib()
    held += [connected(client, server, way) for _ in range(pairs)]
    return (private_kib() - before) / (2 * pairs)


def keep_heap() -> None:
    """glibc gives the end of the heap back to the system whenever 128 KiB of it are free. Whether that happens with each batch
    of large records, and each then pays for page faults (two and a half times its cost), is chance: of what else is allocated.
    """
    with contextlib.suppress(AttributeError, OSError):
        libc = ctypes.CDLL("libc.so.6")
        for parameter, size in ((M_TRIM_THRESHOLD, 2**28), (M_TOP_PAD, 2**24)):
            libc.mallopt(parameter, size)


def private_kib() -> int:
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # else memory that was freed, and is kept for the next, counts as held
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty"))


if __name__ == "__main__":
    main()
