"""What a path says of itself."""

from __future__ import annotations

import pytest

from psyne_mesh.webrtc.ice import Path


@pytest.mark.parametrize(
    ("path", "stays"),
    [
        (Path(kind="host", local=("127.0.0.1", 5000), remote=("127.0.0.1", 5001)), True),
        (Path(kind="host", local=("2001:db8::1", 5000), remote=("2001:db8::1", 5001)), True),
        (Path(kind="host", local=("192.0.2.1", 5000), remote=("192.0.2.2", 5001)), False),
        (Path(kind="srflx", local=("192.0.2.1", 5000), remote=("192.0.2.1", 5001)), False),  # hairpin
        (Path(kind="relay", local=("192.0.2.1", 5000), remote=("192.0.2.1", 5001)), False),  # one relay for both
    ],
)
def test_only_a_host_path_between_equal_addresses_stays_on_this_machine(path: Path, stays: bool) -> None:
    assert path.stays_on_this_machine is stays
