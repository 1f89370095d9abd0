"""A throw-away machine: private network, mount and process namespaces with no link out, and processes in them.

`Namespaces()` starts it, `close()` (or the end of the `with` block, or the death of this process) ends all of it.
What happens inside is in `inside.py`.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Self

REPOSITORY = Path(__file__).resolve().parents[2]
INSIDE = Path(__file__).with_name("inside.py")
TOOLS = {
    "unshare": "util-linux",
    "ip": "iproute2",
    "nft": "nftables",
    "conntrack": "conntrack",
    "turnserver": "coturn",
    "turnutils_natdiscovery": "coturn",
}
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
START_DEADLINE_S = 10.0


class LabUnavailable(RuntimeError):
    """This machine cannot run the lab. The message says in one line what is missing."""


@functools.cache
def missing() -> str | None:
    """What keeps this machine from running the lab, in one line; None when nothing does."""
    if sys.platform != "linux":
        return f"the network lab needs Linux (network namespaces); this is {sys.platform}"
    absent = sorted({package for tool, package in TOOLS.items() if not shutil.which(tool, path=SEARCH_PATH)})
    if absent:
        return f"the network lab needs the packages {', '.join(absent)}: run tests/lab/install.sh"
    try:
        with Namespaces() as trial:
            trial.add(["trial"])
            trial.commands([("trial", ["nft", "-f", "-"], "table ip trial { }\n")])
    except (LabUnavailable, RuntimeError) as error:
        return str(error).splitlines()[0]
    return None


class Process:
    """One process inside the lab. `stdin` and `stdout` are raw file descriptors, None where they lead nowhere."""

    def __init__(self, owner: Namespaces, pid: int, exit_fd: int, stderr: BinaryIO, argv: Sequence[str]) -> None:
        self.pid, self.argv = pid, list(argv)
        self.stdin: int | None = None
        self.stdout: int | None = None
        self._owner, self._exit_fd, self._stderr = owner, exit_fd, stderr
        self.status: int | None = None

    def wait(self, timeout_s: float) -> int | None:
        """The exit status; None while it still runs after `timeout_s`. A lab that was killed counts as -9."""
        if self.status is None:
            ready, _, _ = select.select([self._exit_fd], [], [], max(timeout_s, 0))
            if ready:
                self.status = int(os.read(self._exit_fd, 32) or -signal.SIGKILL)
        return self.status

    def signal(self, number: int) -> bool:
        return self._owner.signal(self.pid, number)

    def kill(self) -> None:
        """SIGKILL to it and its children; returns when it is gone."""
        with contextlib.suppress(LabUnavailable):
            self.signal(signal.SIGKILL)
        self.wait(5)

    def read(self) -> str:
        """All that it has written to stdout since; call it when the process has ended."""
        text = b""
        while self.stdout is not None and (piece := os.read(self.stdout, 65536)):
            text += piece
        return text.decode()

    def errors(self) -> str:
        """What it has written to stderr."""
        self._stderr.seek(0)
        return self._stderr.read().decode(errors="replace")

    def close(self) -> None:
        """Frees the descriptors on this side; those handed to a stream must be set to None before."""
        for fd in (self.stdin, self.stdout, self._exit_fd):
            if fd is not None:
                with contextlib.suppress(OSError):
                    os.close(fd)
        self._stderr.close()


class Namespaces:
    """The throw-away machine.

    1. `add(names)` makes network namespaces; 2. `commands`, `sysctl`, `offload`, `write` furnish them;
    3. `spawn` and `run` start processes in them; 4. `close()` ends everything at once.
    Every call blocks for some milliseconds; calls from several threads take turns.
    """

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control, self._lock = ours, threading.Lock()
        self._processes: list[Process] = []
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        flags = "-nm" if _may_make_namespaces() else "-Urnm"
        argv = ["unshare", flags, "--propagation", "private", "--pid", "--fork", "--kill-child", "--"]
        self._unshare = subprocess.Popen(
            [*argv, sys.executable, "-I", "-S", str(INSIDE), str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=self._errors,
            stderr=self._errors,
            env=_environment({}),
        )
        theirs.close()
        self.inodes: dict[str, int] = {}
        try:
            self._control.settimeout(START_DEADLINE_S)
            self._ask("namespaces", [])
            self._control.settimeout(30)
        except LabUnavailable:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Kills every process of the lab and frees its namespaces; harmless when done twice."""
        self._control.close()
        if self._unshare.poll() is None:
            self._unshare.kill()  # --kill-child: takes PID 1 of the lab along, and that one everything else
            self._unshare.wait()
        for process in self._processes:
            process.wait(2)
            process.close()
        self._processes.clear()
        self._errors.close()

    def add(self, names: Sequence[str]) -> None:
        self.inodes |= self._ask("namespaces", list(names))

    def commands(self, batch: Sequence[tuple[str, Sequence[str], str]]) -> list[str]:
        """Runs short commands in order, (namespace, argv, stdin) each; raises RuntimeError at the first that fails."""
        answer: list[str] = self._ask("commands", [(netns, list(argv), text) for netns, argv, text in batch])
        return answer

    def sysctl(self, settings: Mapping[str, Mapping[str, str]]) -> None:
        self._ask("sysctl", settings)

    def offload(self, netns: str, interfaces: Sequence[str]) -> None:
        self._ask("offload", netns, list(interfaces))

    def write(self, path: str, text: str) -> None:
        self._ask("write", path, text)

    def wait_for_server(
        self, process: Process, netns: str, address: str, tcp_port: int, stun_port: int | None = None
    ) -> None:
        """Until the process accepts TCP and answers STUN there. RuntimeError when it ends or takes too long."""
        deadline = time.monotonic() + START_DEADLINE_S
        while not self._ask("answers", netns, address, tcp_port, stun_port):
            if process.wait(0.005) is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{process.argv[0]} in {netns} does not answer: {process.errors()}")

    def signal(self, pid: int, number: int) -> bool:
        return bool(self._ask("signal", pid, number))

    def spawn(
        self, netns: str, argv: Sequence[str], *, env: Mapping[str, str] | None = None, pipes: bool = True
    ) -> Process:
        """Starts a process, with pipes at stdin and stdout, or (pipes=False) with both leading nowhere."""
        stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed by Process.close()
        exit_read, exit_write = os.pipe()
        ours: tuple[int, int] | None = None
        theirs = [os.open(os.devnull, os.O_RDWR)] * 2
        if pipes:
            os.close(theirs[0])
            stdin_read, stdin_write = os.pipe()
            stdout_read, stdout_write = os.pipe()
            ours, theirs = (stdin_write, stdout_read), [stdin_read, stdout_write]
        try:
            fds = [*theirs, stderr.fileno(), exit_write]
            pid = self._ask("spawn", netns, list(argv), _environment(env or {}), str(REPOSITORY), fds=fds)
        finally:
            for fd in {*theirs, exit_write}:
                os.close(fd)
        process = Process(self, pid, exit_read, stderr, argv)
        if ours:
            process.stdin, process.stdout = ours
        self._processes.append(process)
        return process

    def run(self, netns: str, argv: Sequence[str], *, timeout_s: float = 20.0) -> str:
        """Runs a command to its end and returns its stdout; RuntimeError when it fails or takes too long."""
        process = self.spawn(netns, argv)
        assert process.stdin is not None
        assert process.stdout is not None
        os.close(process.stdin)
        process.stdin = None
        try:
            output, deadline = b"", time.monotonic() + timeout_s
            while select.select([process.stdout], [], [], max(deadline - time.monotonic(), 0))[0]:
                piece = os.read(process.stdout, 65536)
                output += piece
                if not piece:
                    break
            status = process.wait(deadline - time.monotonic())
            if status is None:
                process.kill()
            if status != 0:
                why = f"did not end in {timeout_s} s" if status is None else f"exit status {status}"
                raise RuntimeError(f"{' '.join(argv)} in {netns}: {why}\n{process.errors()}{output.decode()}")
            return output.decode()
        finally:
            process.close()
            self._processes.remove(process)

    def _ask(self, verb: str, *arguments: Any, fds: Sequence[int] = ()) -> Any:
        with self._lock:
            try:
                socket.send_fds(self._control, [json.dumps([verb, arguments]).encode()], list(fds))
                answer = self._control.recv(1 << 20)
            except OSError as error:
                answer = b""
                failure = str(error)
            else:
                failure = "PID 1 of the lab has ended"
        if not answer:
            raise LabUnavailable(f"the network lab cannot make namespaces here: {self._why() or failure}")
        content = json.loads(answer)
        if "error" in content:
            raise RuntimeError(content["error"])
        return content["ok"]

    def _why(self) -> str:
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip()
        return said.splitlines()[-1] if said else ""


def _may_make_namespaces() -> bool:
    """Whether CAP_SYS_ADMIN and CAP_NET_ADMIN are effective: then no user namespace is needed."""
    if os.geteuid() != 0:
        return False
    with open("/proc/self/status") as file:
        effective = next(int(line.split()[1], 16) for line in file if line.startswith("CapEff"))
    return bool(effective >> 21 & 1 and effective >> 12 & 1)


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    return {"PATH": SEARCH_PATH, "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1", "HOME": "/run/lab", **extra}
