"""What the short way leans on without a promise from pyOpenSSL. When this fails, sessions still work, by the public
way and three times slower: mend `protection.py`."""

from __future__ import annotations

import pytest
from OpenSSL import SSL

from psyne_mesh.webrtc.dtls import protection
from tests.dtls.pair import Pair


@pytest.mark.parametrize("name", ["SSL_write", "SSL_read", "BIO_write", "BIO_read", "ERR_clear_error"])
def test_the_library_has_the_call(name: str) -> None:
    assert callable(getattr(SSL._lib, name))


@pytest.mark.parametrize("name", ["_ssl", "_into_ssl", "_from_ssl"])
def test_a_connection_has_the_handle(name: str) -> None:
    assert getattr(SSL.Connection(SSL.Context(SSL.DTLS_METHOD), None), name)


def test_the_short_way_is_open() -> None:
    assert protection.SHORT_WAY
    assert isinstance(Pair().connect().client._protection, protection.OpenSslRecords)


def test_bytes_go_into_calls_without_a_copy_and_come_out_of_a_buffer() -> None:
    bio = SSL._lib.BIO_new(SSL._lib.BIO_s_mem())
    buffer = SSL._ffi.new("char[]", 16)
    assert SSL._lib.BIO_write(bio, b"a\0b", 3) == 3
    assert SSL._lib.BIO_read(bio, buffer, 16) == 3
    assert SSL._ffi.buffer(buffer)[0:3] == b"a\0b"
    SSL._lib.BIO_free(bio)


def test_a_dropped_record_leaves_no_error_behind_for_others() -> None:
    """OpenSSL's queue of errors belongs to the thread: the next call of any session would be blamed."""
    one, other = Pair().connect(), Pair().connect()
    [foreign] = other.client.send([b"for another session"])
    for _ in range(3):
        assert one.server.receive(foreign, 1.0) == []
        assert SSL._lib.ERR_peek_error() == 0
    assert other.server.receive(foreign, 1.0) == [b"for another session"]


def test_openssls_timer_rests_once_the_handshake_is_over() -> None:
    """Else it would one day write a flight between the records of an open session."""
    pair = Pair().connect()
    for session in (pair.client, pair.server):
        connection = session._protection._connection  # type: ignore[union-attr]
        assert connection.DTLSv1_get_timeout() is None


def test_no_dtls_1_3_yet() -> None:
    """Where the library learns it, sessions stay at 1.2 until flights and records of 1.3 have tests of their own."""
    assert Pair().connect().client.stats.version == "DTLSv1.2"
