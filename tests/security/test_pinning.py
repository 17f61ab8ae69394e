from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from khonsu.env import SystemEnv
from khonsu.errors import Unreachable, WrongAuthority, from_problem, to_problem
from khonsu.security.authority import Authority
from khonsu.security.pinning import fetch_ca, fingerprint_of_pem
from khonsu.security.serving import server_context
from khonsu.security.trust import client_context
from tests.security.conftest import ServeTLS


def _greeting(port: int, context: ssl.SSLContext, name: str = "127.0.0.1") -> bytes:
    with (
        socket.create_connection(("127.0.0.1", port), timeout=5) as connection,
        context.wrap_socket(connection, server_hostname=name) as tls,
    ):
        assert tls.version() == "TLSv1.3"
        return tls.recv(5)


def _context_of(tmp_path: Path, key: ec.EllipticCurvePrivateKey, *chain: x509.Certificate) -> ssl.SSLContext:
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    for certificate in chain:
        pem += certificate.public_bytes(serialization.Encoding.PEM)
    (tmp_path / "chain.pem").write_bytes(pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "chain.pem")
    return context


def _self_signed(key: ec.EllipticCurvePrivateKey, issuer: x509.Name | None = None) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "forged")])
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer or name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )


def test_learns_the_authority_of_the_pinned_server(serve_tls: ServeTLS, env: SystemEnv) -> None:
    """From a fingerprint alone a client learns the certificate with which it then verifies everything."""
    authority = Authority.new(env)
    port = serve_tls(server_context(authority, ["home.example"], env))
    for host in ("127.0.0.1", "localhost"):
        assert fetch_ca(host, port, authority.fingerprint) == authority.certificate_pem
    context = client_context(authority.certificate_pem)
    assert _greeting(port, context) == b"hello"
    assert _greeting(port, context, "localhost") == b"hello"
    assert _greeting(port, context, "home.example") == b"hello"


def test_a_known_certificate_has_its_authoritys_fingerprint(env: SystemEnv) -> None:
    """What a client pinned as a file is the same as what it would have pinned as a fingerprint."""
    authority = Authority.new(env)
    assert fingerprint_of_pem(authority.certificate_pem) == authority.fingerprint


def test_another_authority_is_refused_with_both_fingerprints(serve_tls: ServeTLS, env: SystemEnv) -> None:
    """A server of another authority gets nothing, and the error shows what was expected and found."""
    found, expected = Authority.new(env), Authority.new(env)
    port = serve_tls(server_context(found, [], env))
    with pytest.raises(WrongAuthority) as caught:
        fetch_ca("127.0.0.1", port, expected.fingerprint)
    error = caught.value
    assert str(expected.fingerprint) in str(error)
    assert str(found.fingerprint) in str(error)
    assert f"127.0.0.1:{port}" in str(error)
    assert isinstance(error, Unreachable)
    assert not error.retryable
    assert to_problem(from_problem(to_problem(error))) == to_problem(error)


def test_the_real_authority_behind_a_forged_certificate_is_refused(
    serve_tls: ServeTLS, tmp_path: Path, env: SystemEnv
) -> None:
    """Showing the pinned certificate does not help who cannot sign with its key."""
    authority = Authority.new(env)
    real = x509.load_pem_x509_certificate(authority.certificate_pem.encode())
    key = ec.generate_private_key(ec.SECP256R1())
    for forged in (_self_signed(key), _self_signed(key, issuer=real.subject)):
        port = serve_tls(_context_of(tmp_path, key, forged, real))
        with pytest.raises(WrongAuthority, match="did not sign"):
            fetch_ca("127.0.0.1", port, authority.fingerprint)


def test_a_forged_authority_with_the_real_key_is_refused(serve_tls: ServeTLS, tmp_path: Path, env: SystemEnv) -> None:
    """A certificate that only carries the pinned key, signed by somebody else, is not the authority."""
    authority = Authority.new(env)
    real = x509.load_pem_x509_certificate(authority.certificate_pem.encode())
    key = ec.generate_private_key(ec.SECP256R1())
    real_key = real.public_key()
    assert isinstance(real_key, ec.EllipticCurvePublicKey)
    now = datetime.now(UTC)
    forged = (
        x509.CertificateBuilder()
        .subject_name(real.subject)
        .issuer_name(real.subject)
        .public_key(real_key)
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    port = serve_tls(_context_of(tmp_path, key, _self_signed(key, issuer=real.subject), forged))
    with pytest.raises(WrongAuthority, match="did not sign"):
        fetch_ca("127.0.0.1", port, authority.fingerprint)


def test_a_certificate_without_its_authority_is_refused(serve_tls: ServeTLS, tmp_path: Path, env: SystemEnv) -> None:
    """A server that shows no authority, as a proxy in front would, is not the pinned one."""
    key = ec.generate_private_key(ec.SECP256R1())
    port = serve_tls(_context_of(tmp_path, key, _self_signed(key)))
    with pytest.raises(WrongAuthority, match="without its authority"):
        fetch_ca("127.0.0.1", port, Authority.new(env).fingerprint)


def test_a_server_that_pins_its_own_certificate_is_refused(serve_tls: ServeTLS, tmp_path: Path, env: SystemEnv) -> None:
    """The authority's own key does not serve: a server shows a certificate of its own."""
    authority = Authority.open(tmp_path / "d", env)
    key = serialization.load_pem_private_key((tmp_path / "d" / "ca.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    certificate = x509.load_pem_x509_certificate(authority.certificate_pem.encode())
    port = serve_tls(_context_of(tmp_path, key, certificate))
    with pytest.raises(WrongAuthority):
        fetch_ca("127.0.0.1", port, authority.fingerprint)


def test_nobody_there_is_unreachable(env: SystemEnv) -> None:
    """A closed port is no answer, and may be tried again."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(Unreachable, match="Check the address") as caught:
        fetch_ca("127.0.0.1", port, Authority.new(env).fingerprint)
    assert caught.value.retryable
    assert not isinstance(caught.value, WrongAuthority)


@contextmanager
def _plain_server(answer: bytes) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
def test_a_server_without_tls_is_unreachable(env: SystemEnv, answer: bytes) -> None:
    """What does not speak TLS is named as such."""
    with _plain_server(answer) as port, pytest.raises(Unreachable, match=r"TLS handshake|[Cc]onnection|EOF"):
        fetch_ca("127.0.0.1", port, Authority.new(env).fingerprint)


def test_a_silent_server_times_out(env: SystemEnv) -> None:
    """A server that accepts and says nothing does not hold a client for ever."""
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(Unreachable, match="timed out"):
        fetch_ca("127.0.0.1", listener.getsockname()[1], Authority.new(env).fingerprint, timeout_seconds=0.05)


def test_the_client_trusts_its_authority_only(serve_tls: ServeTLS, env: SystemEnv) -> None:
    """A certificate of another authority is refused in the handshake."""
    port = serve_tls(server_context(Authority.new(env), [], env))
    with pytest.raises(ssl.SSLCertVerificationError, match=r"self-signed|unable to get"):
        _greeting(port, client_context(Authority.new(env).certificate_pem))


@pytest.mark.parametrize("name", ["other.example", "10.0.0.1"])
def test_the_client_checks_the_name(serve_tls: ServeTLS, env: SystemEnv, name: str) -> None:
    """A certificate for another name is refused, even of the right authority."""
    authority = Authority.new(env)
    port = serve_tls(server_context(authority, ["home.example"], env))
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        _greeting(port, client_context(authority.certificate_pem), name)


def test_old_versions_of_tls_are_refused(serve_tls: ServeTLS, env: SystemEnv) -> None:
    """Neither side speaks anything older than TLS 1.3."""
    authority = Authority.new(env)
    old_client = client_context(authority.certificate_pem)
    old_client.minimum_version = old_client.maximum_version = ssl.TLSVersion.TLSv1_2
    port = serve_tls(server_context(authority, [], env))
    with pytest.raises(ssl.SSLError, match=r"(?i)protocol.version"):
        _greeting(port, old_client)
    old_server = server_context(authority, [], env)
    old_server.minimum_version = old_server.maximum_version = ssl.TLSVersion.TLSv1_2
    old_port = serve_tls(old_server)
    with pytest.raises(ssl.SSLError, match=r"(?i)protocol.version"):
        _greeting(old_port, client_context(authority.certificate_pem))
    with pytest.raises(Unreachable, match="TLS handshake failed"):
        fetch_ca("127.0.0.1", old_port, authority.fingerprint)


def test_a_text_without_certificate_is_an_error() -> None:
    """A client is not made without an authority to trust."""
    with pytest.raises(ssl.SSLError):
        client_context("nonsense")
