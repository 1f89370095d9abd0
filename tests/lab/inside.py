"""PID 1 of a lab: does inside the namespaces what `namespaces.py` asks for from outside.

Run by path with the bare interpreter (standard library only, `-I -S`), so that it is up in 20 ms.
It lives in its own mount and PID namespace. When its control socket ends, it ends, and the kernel then kills
every process of the lab and frees every namespace: nothing can be left behind, however the owner died.

One request and one answer at a time, JSON over a SOCK_SEQPACKET socket; file descriptors travel along.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import fcntl
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

CLONE_NEWNET = 0x40000000
MS_BIND = 0x1000
SIOCETHTOOL = 0x8946
# Transmit checksum, scatter-gather, TSO, GSO, GRO. A packet socket sees frames as the sender left them: with
# offloads on, checksums are unfinished (every packet dies) and a segmented burst is one 64 KiB frame.
ETHTOOL_OFF = (0x17, 0x19, 0x1F, 0x24, 0x2C)
MAX_REQUEST_BYTES = 200_000
NETNS = "/run/netns"
HOSTS = "/run/lab/hosts"

libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    mount("tmpfs", "/run", "tmpfs")
    os.makedirs(NETNS)
    os.makedirs("/run/lab")
    with open(HOSTS, "w") as file:
        file.write("127.0.0.1 localhost\n::1 localhost\n")
    mount(HOSTS, "/etc/hosts", "none", MS_BIND)
    Inside(control).serve()


class Inside:
    """Answers requests until the control socket ends."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._children: dict[int, tuple[subprocess.Popen[bytes], int]] = {}
        self._verbs: dict[str, Callable[..., Any]] = {
            "namespaces": self.namespaces,
            "commands": self.commands,
            "sysctl": self.sysctl,
            "offload": self.offload,
            "write": self.write,
            "answers": self.answers,
            "spawn": self.spawn,
            "signal": self.signal,
        }

    def serve(self) -> None:
        wake_in, wake_out = os.pipe()
        os.set_blocking(wake_out, False)
        os.set_blocking(wake_in, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake_out, warn_on_full_buffer=False)
        while True:
            inputs: list[socket.socket | int] = [self._control, wake_in]
            ready, _, _ = select.select(inputs, [], [])
            if wake_in in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(wake_in, 4096)
                self._reap()
            if self._control in ready:
                request, fds, _, _ = socket.recv_fds(self._control, MAX_REQUEST_BYTES, 8)
                if not request:
                    return
                self._control.send(json.dumps(self._answer(request, fds)).encode())

    def _answer(self, request: bytes, fds: list[int]) -> dict[str, Any]:
        try:
            verb, arguments = json.loads(request)
            return {"ok": self._verbs[verb](*arguments, *([fds] if fds else []))}
        except Exception as error:  # noqa: BLE001 - PID 1 must live; the owner raises it
            return {"error": f"{type(error).__name__}: {error}"}
        finally:
            for fd in fds:
                with contextlib.suppress(OSError):
                    os.close(fd)

    # ------------------------------------------------------------------------------------------------------- verbs

    def namespaces(self, names: list[str]) -> dict[str, int]:
        """Makes network namespaces with `lo` up; returns the inode of each."""
        inodes = {}
        try:
            for name in names:
                path = f"{NETNS}/{name}"
                check(libc.unshare(CLONE_NEWNET), "unshare")
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
                mount("/proc/self/ns/net", path, "none", MS_BIND)
                interface_up("lo")
                inodes[name] = os.stat(path).st_ino
        finally:
            check(libc.setns(self._home, CLONE_NEWNET), "setns")
        return inodes

    def commands(self, batch: list[tuple[str, list[str], str]]) -> list[str]:
        """Runs short commands (ip, nft, conntrack) one after the other: (namespace, argv, stdin) -> stdout."""
        out = []
        for netns, argv, text in batch:
            with self._in(netns):
                done = subprocess.run(argv, input=text, capture_output=True, text=True, timeout=20, check=False)
            if done.returncode:
                raise RuntimeError(f"{' '.join(argv)} in {netns}: {done.stderr.strip() or done.returncode}\n{text}")
            out.append(done.stdout)
        return out

    def sysctl(self, settings: dict[str, dict[str, str]]) -> None:
        """Writes /proc/sys entries in each namespace; one that this kernel does not have is skipped."""
        for netns, values in settings.items():
            with self._in(netns):
                for key, value in values.items():
                    with contextlib.suppress(FileNotFoundError), open(f"/proc/sys/{key}", "w") as file:
                        file.write(value)

    def offload(self, netns: str, interfaces: list[str]) -> None:
        """Turns every offload of these interfaces off."""
        with self._in(netns), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for interface in interfaces:
                for command in ETHTOOL_OFF:
                    value = array.array("B", struct.pack("II", command, 0))
                    request = struct.pack("16sP", interface.encode(), value.buffer_info()[0])
                    with contextlib.suppress(OSError):  # one that the driver fixes is off already
                        fcntl.ioctl(sock, SIOCETHTOOL, request)

    def write(self, path: str, text: str) -> None:
        """Writes a file under the lab's own /run, which ends with the lab; /run/lab/hosts is its /etc/hosts."""
        with open(path, "w") as file:
            file.write(text)

    def answers(self, netns: str, address: str, tcp_port: int, stun_port: int | None) -> bool:
        """Whether a TCP server accepts and, if asked, a STUN server answers within 50 ms, seen from their namespace."""
        with self._in(netns):
            tcp, udp = socket.socket(), socket.socket(type=socket.SOCK_DGRAM)
        with tcp, udp:
            try:
                tcp.connect((address, tcp_port))
                if stun_port is None:
                    return True
                udp.settimeout(0.05)
                udp.connect((address, stun_port))
                udp.send(struct.pack("!HHI12s", 0x0001, 0, 0x2112A442, os.urandom(12)))  # Binding request
                return bool(udp.recv(1500))
            except OSError:
                return False

    def spawn(self, netns: str, argv: list[str], env: dict[str, str], cwd: str, fds: list[int]) -> int:
        """Starts a process; fds are its stdin, stdout, stderr and a pipe on which its exit status is written."""
        with self._in(netns):
            child = subprocess.Popen(
                argv, stdin=fds[0], stdout=fds[1], stderr=fds[2], env=env, cwd=cwd, start_new_session=True
            )
        self._children[child.pid] = (child, os.dup(fds[3]))
        return child.pid

    def signal(self, pid: int, number: int) -> bool:
        """Signals a process and its children; False when it has ended."""
        self._reap()
        if pid not in self._children:
            return False
        os.killpg(pid, number)
        return True

    # ----------------------------------------------------------------------------------------------------- helpers

    @contextlib.contextmanager
    def _in(self, netns: str) -> Iterator[None]:
        fd = os.open(f"{NETNS}/{netns}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            check(libc.setns(fd, CLONE_NEWNET), "setns")
            yield
        finally:
            os.close(fd)
            check(libc.setns(self._home, CLONE_NEWNET), "setns")

    def _reap(self) -> None:
        for pid, (child, pipe) in list(self._children.items()):
            status = child.poll()
            if status is not None:
                del self._children[pid]
                with contextlib.suppress(OSError):
                    os.write(pipe, str(status).encode())
                os.close(pipe)


def check(result: int, what: str) -> None:
    if result:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def mount(source: str, target: str, kind: str, flags: int = 0) -> None:
    check(libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), None), f"mount {target}")


def interface_up(name: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, 0x8914, struct.pack("16sh14x", name.encode(), 0x1 | 0x40))  # SIOCSIFFLAGS: UP | RUNNING


if __name__ == "__main__":
    main()
