"""The works, one file each; a file's docstring says what its figures mean."""

from __future__ import annotations

from benchmarks.work import Work
from benchmarks.works import (
    floor,
    gossip,
    growth,
    hostile_sctp,
    join,
    lossy,
    memory,
    mesh16,
    mesh16_processes,
    poll,
    rtt,
    setup,
    small,
    throughput,
    throughput_1191,
)

WORKS: dict[str, Work] = {
    work.name: work
    for work in (
        floor.WORK,
        setup.WORK,
        rtt.WORK,
        throughput.WORK,
        throughput_1191.WORK,
        small.WORK,
        memory.WORK,
        mesh16.WORK,
        mesh16_processes.WORK,
        join.WORK,
        lossy.WORK,
        poll.WORK,
        gossip.WORK,
        growth.WORK,
        hostile_sctp.WORK,
    )
}
