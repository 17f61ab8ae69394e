from __future__ import annotations

import os
import socket
import ssl
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from khonsu.security.authority import Authority
from khonsu.security.serving import server_context
from khonsu.security.trust import client_context
from tests.security.conftest import ServeTLS, WallClock

DAY_SECONDS = 86_400.0
# A leaf's dates are checked with the machine's own clock, so the test's clock begins there.
NOW = 1_900_000_000.0


def _serial(port: int, authority: Authority) -> str:
    """Return the serial number of the certificate that a handshake sees, its dates aside."""
    context = client_context(authority.certificate_pem)
    context.verify_flags |= ssl.VerifyFlags(0x200000)  # X509_V_FLAG_NO_CHECK_TIME
    with (
        socket.create_connection(("127.0.0.1", port), timeout=5) as connection,
        context.wrap_socket(connection, server_hostname="localhost") as tls,
    ):
        assert tls.recv(5) == b"hello"
        certificate = tls.getpeercert()
        assert certificate is not None
        return str(certificate["serialNumber"])


def test_the_certificate_is_made_anew_at_two_thirds_of_its_life(serve_tls: ServeTLS) -> None:
    """Handshakes see one certificate until it is old, and then another one, without a restart."""
    env = WallClock(NOW)
    authority = Authority.new(env)
    port = serve_tls(server_context(authority, [], env))
    first = _serial(port, authority)
    env.wall += 59 * DAY_SECONDS
    assert _serial(port, authority) == first
    env.wall += DAY_SECONDS
    second = _serial(port, authority)
    assert second != first
    assert _serial(port, authority) == second
    env.wall += 70 * DAY_SECONDS
    assert _serial(port, authority) not in {first, second}


def test_a_clock_that_was_wrong_is_no_harm(serve_tls: ServeTLS) -> None:
    """A server that started in 1970, or in the far future, has a valid certificate once its clock is set."""
    env = WallClock(0.0)
    authority = Authority.new(env)
    port = serve_tls(server_context(authority, [], env))
    seen = [_serial(port, authority)]
    for wall in (NOW, NOW * 2, NOW):
        env.wall = wall
        seen.append(_serial(port, authority))
    assert len(set(seen)) == 4


def test_a_client_with_the_right_clock_verifies_a_renewed_certificate(serve_tls: ServeTLS) -> None:
    """After the clock is set, a client that checks dates is served."""
    env = WallClock(0.0)
    authority = Authority.new(env)
    port = serve_tls(server_context(authority, [], env))
    context = client_context(authority.certificate_pem)

    def greeting() -> bytes:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=5) as connection,
            context.wrap_socket(connection, server_hostname="127.0.0.1") as tls,
        ):
            return tls.recv(5)

    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        greeting()
    env.wall = time.time()
    assert greeting() == b"hello"


def test_a_full_disk_keeps_the_old_certificate(
    serve_tls: ServeTLS, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """When a certificate cannot be made anew the server goes on with the old one, says so, and tries again."""
    env = WallClock(NOW)
    authority = Authority.new(env)
    port = serve_tls(server_context(authority, [], env))
    first = _serial(port, authority)
    env.wall += 61 * DAY_SECONDS
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "tempdir", "/nonexistent")
        assert _serial(port, authority) == first
    assert "could not be made anew" in caplog.text
    assert _serial(port, authority) != first


def test_no_key_is_left_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key passes through a private file, encrypted, that is gone at once."""
    seen: list[tuple[int, int, bytes]] = []
    load: Callable[..., None] = ssl.SSLContext.load_cert_chain

    def spy(context: ssl.SSLContext, file: Path, *, password: bytes) -> None:
        seen.append((file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777, file.read_bytes()))
        load(context, file, password=password)

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", spy)
    env = WallClock(NOW)
    before = os.umask(0)
    try:
        server_context(Authority.new(env), [], env)
    finally:
        os.umask(before)
    assert list(tmp_path.iterdir()) == []
    [(mode, directory_mode, content)] = seen
    assert (mode, directory_mode) == (0o600, 0o700)
    assert b"BEGIN ENCRYPTED PRIVATE KEY" in content
    assert b"BEGIN PRIVATE KEY" not in content


def test_wrong_hosts_are_refused_at_once() -> None:
    """A server with a name that is none does not start."""
    env = WallClock(NOW)
    with pytest.raises(ValueError, match="neither a host name"):
        server_context(Authority.new(env), ["a b"], env)
