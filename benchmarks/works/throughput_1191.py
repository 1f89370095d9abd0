"""The same as throughput with SCTP packets held at 1191 bytes, which a path over the internet carries.

The other stacks never send larger ones (libwebrtc and aiortc: about 1200 bytes), so only ours is told to.
"""

from __future__ import annotations

from benchmarks.stacks.registry import Stack
from benchmarks.work import PAIRS, Figures, Scale, Work
from benchmarks.works import throughput

RECORD_BYTES = 37  # of DTLS 1.2 around an SCTP packet
SETTINGS = {"path_mtu_max": 1191 + RECORD_BYTES}


async def measure(stack: Stack, scale: Scale) -> Figures:
    return await throughput.measure(stack, scale, SETTINGS if stack.is_ours else None)


WORK = Work("throughput_1191", throughput.FIGURES, PAIRS, measure, __doc__ or "")
