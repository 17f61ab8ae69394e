from __future__ import annotations

import ipaddress
import os
import shutil
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from khonsu.env import SystemEnv
from khonsu.errors import UnsafeFile
from khonsu.security.authority import Authority
from tests.security.conftest import WallClock


def _extension(certificate: x509.Certificate, kind: type[x509.ExtensionType]) -> tuple[bool, object]:
    found = certificate.extensions.get_extension_for_class(kind)
    return found.critical, found.value


def _server(authority: Authority, *hosts: str) -> x509.Certificate:
    return x509.load_pem_x509_certificates(authority.issue_server(hosts).chain_pem)[0]


def test_two_starts_have_one_authority(tmp_path: Path, env: SystemEnv) -> None:
    """A restart keeps the authority, bytes and all."""
    first = Authority.open(tmp_path / "d", env)
    before = {path.name: path.read_bytes() for path in (tmp_path / "d").iterdir()}
    second = Authority.open(tmp_path / "d", env)
    assert first.fingerprint == second.fingerprint
    assert first.certificate_pem == second.certificate_pem
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "d").iterdir()}
    assert set(before) == {"ca.pem", "ca.key"}


def test_the_key_is_private(tmp_path: Path, env: SystemEnv) -> None:
    """The key is for its owner only; the certificate is for everybody to read."""
    Authority.open(tmp_path, env)
    assert stat.S_IMODE((tmp_path / "ca.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "ca.pem").stat().st_mode) == 0o644


def test_two_directories_have_two_authorities(tmp_path: Path, env: SystemEnv) -> None:
    """Every control plane is its own authority, in memory too."""
    fingerprints = {
        str(authority.fingerprint)
        for authority in (
            Authority.open(tmp_path / "a", env),
            Authority.open(tmp_path / "b", env),
            Authority.new(env),
            Authority.new(env),
        )
    }
    assert len(fingerprints) == 4


def test_the_same_chance_makes_the_same_key() -> None:
    """In a simulated world an authority is the same in every run."""

    class Seeded(SystemEnv):
        def token_bytes(self, count: int) -> bytes:
            return bytes(range(count))

    assert Authority.new(Seeded()).fingerprint == Authority.new(Seeded()).fingerprint


def test_a_missing_certificate_is_made_anew_from_the_key(tmp_path: Path, env: SystemEnv) -> None:
    """Killed between the two files, the next start goes on with the same key."""
    before = Authority.open(tmp_path, env).fingerprint
    (tmp_path / "ca.pem").unlink()
    assert Authority.open(tmp_path, env).fingerprint == before


def test_many_processes_at_once_make_one_authority(tmp_path: Path) -> None:
    """Starting several at once ends with one authority."""
    program = (
        "import sys; from khonsu.env import SystemEnv; from khonsu.security.authority import Authority\n"
        "sys.stdin.read(); print(Authority.open(sys.argv[1], SystemEnv()).fingerprint)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "d")]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert len({process.communicate()[0] for process in processes}) == 1
    assert sorted(os.listdir(tmp_path / "d")) == ["ca.key", "ca.pem"]


def _other_key(kind: str) -> bytes:
    if kind == "ed25519":
        key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey = ed25519.Ed25519PrivateKey.generate()
    else:
        key = ec.generate_private_key(ec.SECP384R1())
    encryption = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


@pytest.mark.parametrize("content", [b"", b"nonsense", _other_key("ed25519"), _other_key("p384")])
def test_a_damaged_key_is_refused_and_left(tmp_path: Path, env: SystemEnv, content: bytes) -> None:
    """A key file that holds no key of ours is never replaced."""
    Authority.open(tmp_path, env)
    (tmp_path / "ca.key").write_bytes(content)
    with pytest.raises(UnsafeFile, match=r"ca\.key holds no unencrypted private key"):
        Authority.open(tmp_path, env)
    assert (tmp_path / "ca.key").read_bytes() == content


def test_a_lost_key_is_not_replaced_silently(tmp_path: Path, env: SystemEnv) -> None:
    """Without its key an authority is not made anew, since that would lock out every agent."""
    Authority.open(tmp_path, env)
    (tmp_path / "ca.key").unlink()
    with pytest.raises(UnsafeFile, match=r"ca\.key is gone.*join anew"):
        Authority.open(tmp_path, env)
    assert not (tmp_path / "ca.key").exists()


@pytest.mark.parametrize("content", ["nonsense", "other"])
def test_a_foreign_certificate_is_refused(tmp_path: Path, env: SystemEnv, content: str) -> None:
    """A certificate that is damaged or of another key is refused, and the message says what mends it."""
    Authority.open(tmp_path, env)
    (tmp_path / "ca.pem").write_text(content if content == "nonsense" else Authority.new(env).certificate_pem)
    with pytest.raises(UnsafeFile, match=r"ca\.pem is not the certificate of the key.*Remove it"):
        Authority.open(tmp_path, env)
    (tmp_path / "ca.pem").unlink()
    Authority.open(tmp_path, env)


def test_a_key_that_others_can_read_is_refused(tmp_path: Path, env: SystemEnv) -> None:
    """A key file with the wrong mode is not used."""
    Authority.open(tmp_path, env)
    (tmp_path / "ca.key").chmod(0o640)
    with pytest.raises(UnsafeFile, match=r"ca\.key can be used by others"):
        Authority.open(tmp_path, env)


def test_the_authority_has_what_strict_verification_asks_for(env: SystemEnv) -> None:
    """The authority's certificate may sign certificates and nothing else, and has no end."""
    certificate = x509.load_pem_x509_certificate(Authority.new(env).certificate_pem.encode())
    assert _extension(certificate, x509.BasicConstraints) == (True, x509.BasicConstraints(ca=True, path_length=0))
    critical, usage = _extension(certificate, x509.KeyUsage)
    assert critical
    assert isinstance(usage, x509.KeyUsage)
    assert (usage.key_cert_sign, usage.crl_sign, usage.digital_signature) == (True, True, False)
    assert not _extension(certificate, x509.SubjectKeyIdentifier)[0]
    assert certificate.not_valid_before_utc < datetime(1980, 1, 1, tzinfo=UTC)
    assert certificate.not_valid_after_utc.year == 9999


def test_a_server_certificate_has_what_strict_verification_asks_for(env: SystemEnv) -> None:
    """A server's certificate names its authority's key, and is for servers only."""
    authority = Authority.new(env)
    certificate = _server(authority, "home.example")
    issuer = x509.load_pem_x509_certificate(authority.certificate_pem.encode())
    certificate.verify_directly_issued_by(issuer)
    _, issuer_key = _extension(issuer, x509.SubjectKeyIdentifier)
    _, named = _extension(certificate, x509.AuthorityKeyIdentifier)
    assert isinstance(named, x509.AuthorityKeyIdentifier)
    assert isinstance(issuer_key, x509.SubjectKeyIdentifier)
    assert named.key_identifier == issuer_key.digest
    assert _extension(certificate, x509.BasicConstraints) == (True, x509.BasicConstraints(ca=False, path_length=None))
    _, usages = _extension(certificate, x509.ExtendedKeyUsage)
    assert usages == x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH])
    critical, usage = _extension(certificate, x509.KeyUsage)
    assert isinstance(usage, x509.KeyUsage)
    assert (critical, usage.digital_signature, usage.key_cert_sign) == (True, True, False)


def test_a_server_certificate_has_all_its_names(env: SystemEnv) -> None:
    """Every name and address is in the certificate once, those of the loopback always."""
    hosts = ("Home.Example.", "192.168.1.5", "home.example", "fd00::1", "fe80::1%eth0", "0.0.0.0", "::", "nas_1")
    _, names = _extension(_server(Authority.new(env), *hosts), x509.SubjectAlternativeName)
    assert isinstance(names, x509.SubjectAlternativeName)
    assert names.get_values_for_type(x509.DNSName) == ["home.example", "nas_1", "localhost"]
    addresses = ["192.168.1.5", "fd00::1", "fe80::1", "127.0.0.1", "::1"]
    assert names.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address(address) for address in addresses]


@pytest.mark.parametrize(
    "host", ["", "a b", "http://a", "a:4747", "a/b", "*", "*.example", "-a", "é.example", "a" * 254]
)
def test_what_is_no_host_is_refused(env: SystemEnv, host: str) -> None:
    """A name that is none is an error, not a certificate that nobody can use."""
    with pytest.raises(ValueError, match="neither a host name nor an address"):
        Authority.new(env).issue_server([host])


def test_a_long_name_fits(env: SystemEnv) -> None:
    """A name longer than a common name may be is still a name of the server."""
    host = ".".join(["a" * 60] * 4)
    _, names = _extension(_server(Authority.new(env), host), x509.SubjectAlternativeName)
    assert isinstance(names, x509.SubjectAlternativeName)
    assert host in names.get_values_for_type(x509.DNSName)


def test_a_server_certificate_lives_ninety_days_and_a_day_back() -> None:
    """A certificate is valid for clocks that are a day late, and runs out."""
    wall = datetime(2030, 1, 1, tzinfo=UTC)
    certificate = _server(Authority.new(WallClock(wall.timestamp())), "a")
    assert certificate.not_valid_before_utc == wall - timedelta(days=1)
    assert certificate.not_valid_after_utc == wall + timedelta(days=90)


def test_serial_numbers_differ(env: SystemEnv) -> None:
    """No two certificates have the same number."""
    authority = Authority.new(env)
    assert len({_server(authority, "a").serial_number for _ in range(20)}) == 20


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_openssl_verifies_the_chain_strictly(tmp_path: Path, env: SystemEnv) -> None:
    """Another implementation takes the certificates, at its strictest."""
    authority = Authority.open(tmp_path / "d", env)
    (tmp_path / "server.pem").write_bytes(authority.issue_server(["home.example"]).chain_pem)
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", "home.example"]
    command += ["-CAfile", str(tmp_path / "d" / "ca.pem"), str(tmp_path / "server.pem")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
