"""Measures a place in the lab from inside: NAT behaviour by STUN (RFC 5780), and UDP delay and loss by ping.

    probe.py nat HOST PORT             -> {"mapping": "EIM", "filtering": "APDF", "address": [...]}
    probe.py echo ADDRESS PORT         -> echoes until killed; says "ready" once
    probe.py ping HOST PORT COUNT MS   -> {"sent", "up", "down", "rtt_ms": [...], "reordered", "silence_ms"}
    probe.py watch HOST PORT           -> {"own": [...], "mapped": [...]} or null, at first and at every change

Standard library only. Results are one line of JSON on stdout.
"""

from __future__ import annotations

import itertools
import json
import os
import select
import socket
import struct
import sys
import time

MAGIC_COOKIE = 0x2112A442
BINDING_REQUEST = 0x0001
MAPPED_ADDRESS, CHANGE_REQUEST, XOR_MAPPED_ADDRESS, OTHER_ADDRESS = 0x0001, 0x0003, 0x0020, 0x802C
CHANGE_IP, CHANGE_PORT = 0x04, 0x02
ANSWER_WAIT_S = 0.4
WATCH_INTERVAL_S = 0.02
TRIES = 2
LINGER_S = 0.5  # after the last ping, for what is still on its way

Address = tuple[str, int]


def classify(server: Address) -> dict[str, object]:
    """Mapping (RFC 5780 section 4.3) and filtering (4.4), each from a socket of its own; None where no answer comes."""
    mapping, address = find_mapping(server)
    return {"mapping": mapping, "filtering": find_filtering(server), "address": address}


def find_mapping(server: Address) -> tuple[str | None, Address | None]:
    with open_socket(server) as sock:
        first = ask(sock, server)
        if first is None:
            return None, None
        mapped, other = first
        assert other is not None, "the server does not speak RFC 5780"
        if mapped == sock.getsockname()[:2]:
            return "none", mapped
        second = ask(sock, (other[0], server[1]))
        if second is None or second[0] == mapped:
            return "EIM", mapped
        third = ask(sock, other)
        return ("ADM" if third and third[0] == second[0] else "APDM"), mapped


def find_filtering(server: Address) -> str | None:
    with open_socket(server) as sock:
        if ask(sock, server) is None:
            return None
        if ask(sock, server, change=CHANGE_IP | CHANGE_PORT):
            return "EIF"
        return "ADF" if ask(sock, server, change=CHANGE_PORT) else "APDF"


def watch(server: Address) -> None:
    """Keeps one socket for as long as the server answers it, and tells which addresses it has, inside and outside."""
    told: object = ...
    while True:
        try:
            with open_socket(server) as sock:
                while answer := ask(sock, server):
                    now = {"own": sock.getsockname()[:2], "mapped": answer[0]}
                    if now != told:
                        print(json.dumps(now), flush=True)
                        told = now
                    time.sleep(WATCH_INTERVAL_S)
        except OSError:  # no route, or our address is gone
            time.sleep(WATCH_INTERVAL_S)
        if told is not None:
            print("null", flush=True)
            told = None


def open_socket(server: Address) -> socket.socket:
    """Bound to the address that leads to the server, so that a translated one can be told from it."""
    family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as route:
        route.connect(server)
        own = route.getsockname()[0]
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.bind((own, 0))
    return sock


def ask(sock: socket.socket, server: Address, change: int = 0) -> tuple[Address, Address | None] | None:
    """One Binding request: (mapped address, other address of the server), or None without an answer."""
    attributes = struct.pack("!HHI", CHANGE_REQUEST, 4, change) if change else b""
    for _ in range(TRIES):
        transaction = os.urandom(12)
        sock.sendto(
            struct.pack("!HHI", BINDING_REQUEST, len(attributes), MAGIC_COOKIE) + transaction + attributes, server
        )
        deadline = time.monotonic() + ANSWER_WAIT_S
        while select.select([sock], [], [], max(deadline - time.monotonic(), 0))[0]:
            try:
                data = sock.recv(1500)
            except OSError:  # ICMP: refused
                break
            if data[8:20] == transaction:
                found = dict(addresses(data))
                mapped = found.get(XOR_MAPPED_ADDRESS) or found[MAPPED_ADDRESS]
                return mapped, found.get(OTHER_ADDRESS)
    return None


def addresses(message: bytes) -> list[tuple[int, Address]]:
    """Every attribute that holds an address (RFC 8489 sections 14.1 and 14.2)."""
    found, at = [], 20
    while at + 4 <= len(message):
        kind, length = struct.unpack_from("!HH", message, at)
        value = message[at + 4 : at + 4 + length]
        at += 4 + (length + 3) // 4 * 4
        if kind not in (MAPPED_ADDRESS, XOR_MAPPED_ADDRESS, OTHER_ADDRESS):
            continue
        port, host = struct.unpack_from("!H", value, 2)[0], value[4:]
        if kind == XOR_MAPPED_ADDRESS:
            port ^= MAGIC_COOKIE >> 16
            host = bytes(a ^ b for a, b in zip(host, message[4:20]))
        family = socket.AF_INET if value[1] == 1 else socket.AF_INET6
        found.append((kind, (socket.inet_ntop(family, host), port)))
    return found


def echo(address: str, port: int) -> None:
    """Sends every datagram back with its own running number for that sender in front: (count, datagram)."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.bind((address, port))
    print('"ready"', flush=True)
    counts: dict[bytes, itertools.count[int]] = {}
    while True:
        data, sender = sock.recvfrom(2048)
        count = next(counts.setdefault(data[:8], itertools.count(1)))  # the first 8 bytes name the run
        sock.sendto(struct.pack("!I", count) + data, sender)


def ping(server: Address, count: int, interval_ms: float) -> dict[str, object]:
    """`up` is how many of `sent` reached the server (as far as any answer tells), `down` how many answers came."""
    run = os.urandom(8)
    rtts: list[float] = []
    numbers: list[int] = []
    up, silence, start = 0, 0.0, time.monotonic()
    last_answer = start
    with open_socket(server) as sock:
        sent = 0
        while (now := time.monotonic()) < start + count * interval_ms / 1000 + LINGER_S:
            if sent < count and now >= start + sent * interval_ms / 1000:
                sock.sendto(struct.pack("!8sId", run, sent, now), server)
                sent += 1
                continue
            wake = start + sent * interval_ms / 1000 if sent < count else now + 0.05
            if not select.select([sock], [], [], max(wake - time.monotonic(), 0))[0]:
                continue
            try:
                seen, _, number, left_at = struct.unpack("!I8sId", sock.recv(2048))
            except OSError:
                continue
            now = time.monotonic()
            rtts.append(round((now - left_at) * 1000, 3))
            numbers.append(number)
            up, silence, last_answer = max(up, seen), max(silence, now - last_answer), now
            if len(rtts) == count:
                break
    reordered = sum(later < earlier for earlier, later in itertools.pairwise(numbers))
    return {
        "sent": sent,
        "up": up,
        "down": len(rtts),
        "rtt_ms": rtts,
        "reordered": reordered,
        "silence_ms": round(silence * 1000, 1),
    }


if __name__ == "__main__":
    verb, host, port, *rest = sys.argv[1:]
    if verb == "echo":
        echo(host, int(port))
    elif verb == "nat":
        print(json.dumps(classify((host, int(port)))))
    elif verb == "ping":
        print(json.dumps(ping((host, int(port)), int(rest[0]), float(rest[1]))))
    elif verb == "watch":
        watch((host, int(port)))
    else:
        sys.exit(__doc__)
