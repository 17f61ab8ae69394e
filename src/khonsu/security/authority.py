"""The control plane's own certificate authority.

Its key is made once and is the identity of the control plane. Clients pin the key, not a certificate, so that
certificates are made anew at any time and the authority's own needs no end. ECDSA on P-256, which every TLS stack
takes; certificates carry what strict verification asks for (RFC 5280, section 4.2.1; Python is strict from 3.13 on).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from attrs import frozen
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from khonsu.env import Env
from khonsu.errors import UnsafeFile
from khonsu.security.encoding import base32
from khonsu.security.files import PUBLIC_MODE, PrivateDirectory
from khonsu.security.fingerprint import Fingerprint

CERTIFICATE_FILE: Final = "ca.pem"
KEY_FILE: Final = "ca.key"
LOOPBACK_HOSTS: Final = ("localhost", "127.0.0.1", "::1")
SERVER_LIFE: Final = timedelta(days=90)
# A machine without a battery-backed clock wakes up in the past; a day forgives what no time server has mended yet.
BACKDATING: Final = timedelta(days=1)
COMMON_NAME_LENGTH_MAX: Final = 64

# The authority is pinned by its key, so dates would only add a way to fail. RFC 5280, 4.1.2.5: "no well-defined end".
_ALWAYS: Final = (datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))
_CURVE: Final = ec.SECP256R1()
_HOST = re.compile(r"(?=.{1,253}\Z)(?!-)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*", re.ASCII)


@frozen
class Certificate:
    """A certificate with its private key; `chain_pem` ends with the authority's own certificate."""

    chain_pem: bytes
    key: ec.EllipticCurvePrivateKey
    not_before: datetime
    not_after: datetime


class Authority:
    """A key that signs certificates. Made by `Authority.open` in a directory, or by `Authority.new` in memory."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate, env: Env) -> None:
        """Take a key and the certificate that was made with it."""
        self._key = key
        self._certificate = certificate
        self._env = env

    @classmethod
    def new(cls, env: Env) -> Authority:
        """Make an authority that is gone when the process ends."""
        key = _new_key(env)
        return cls(key, _own_certificate(key, env), env)

    @classmethod
    def open(cls, directory: Path | str, env: Env) -> Authority:
        """Open the authority of a directory; make it if there is none. Blocks.

        The key is written first, and a certificate that is missing is made anew from the key: killed in between, or
        run by two processes at once, this still ends with one authority.

        Raises:
            UnsafeFile: A file is damaged, does not belong here, can be used by others, or the key is gone.

        """
        with PrivateDirectory(directory, env.fsync) as files:
            key_pem = files.read(KEY_FILE)
            certificate_pem = files.read(CERTIFICATE_FILE, public=True)
            if key_pem is None:
                if certificate_pem is not None:
                    raise _key_gone(files.path)
                files.create(KEY_FILE, _key_pem(_new_key(env)))
                key_pem = files.read(KEY_FILE) or b""
            key = _load_key(files.path / KEY_FILE, key_pem)
            if certificate_pem is None:
                made = _own_certificate(key, env).public_bytes(serialization.Encoding.PEM)
                files.create(CERTIFICATE_FILE, made, mode=PUBLIC_MODE)
                certificate_pem = files.read(CERTIFICATE_FILE, public=True) or b""
            return cls(key, _load_certificate(files.path / CERTIFICATE_FILE, certificate_pem, key), env)

    @property
    def fingerprint(self) -> Fingerprint:
        """Return what clients pin."""
        return fingerprint_of(self._certificate)

    @property
    def certificate_pem(self) -> str:
        """Return the authority's certificate, the only one that its clients trust."""
        return self._certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")

    def issue_server(self, hosts: Iterable[str]) -> Certificate:
        """Issue a certificate for a server under these names and addresses; those of the loopback come on top.

        Args:
            hosts: Names and IP addresses, without ports. The addresses that mean "all interfaces" name no host and
                are left out.

        Raises:
            ValueError: One is neither a host name nor an address.

        """
        names = _subject_names((*hosts, *LOOPBACK_HOSTS))
        key = _new_key(self._env)
        now = self._env.utc_now()
        common_name = str(names[0].value)
        builder = _builder(key.public_key(), common_name[:COMMON_NAME_LENGTH_MAX], self._env)
        builder = builder.issuer_name(self._certificate.subject)
        builder = builder.not_valid_before(now - BACKDATING).not_valid_after(now + SERVER_LIFE)
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_key_usage(digital_signature=True), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = builder.add_extension(authority, critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        chain = certificate.public_bytes(serialization.Encoding.PEM) + self.certificate_pem.encode()
        return Certificate(chain, key, certificate.not_valid_before_utc, certificate.not_valid_after_utc)


def fingerprint_of(certificate: x509.Certificate) -> Fingerprint:
    """Return the fingerprint of a certificate's public key."""
    public_key = certificate.public_key()
    der = public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return Fingerprint.of_public_key(der)


def _new_key(env: Env) -> ec.EllipticCurvePrivateKey:
    """Make a key of the environment's chance, so that a simulated world has the same one every time.

    FIPS 186-5, A.2.1: 64 bits more than the order has make the remainder's bias negligible.
    """
    order = _CURVE.group_order
    return ec.derive_private_key(int.from_bytes(env.token_bytes(40), "big") % (order - 1) + 1, _CURVE)


def _own_certificate(key: ec.EllipticCurvePrivateKey, env: Env) -> x509.Certificate:
    """Sign an authority's certificate with its own key."""
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest
    builder = _builder(key.public_key(), f"Khonsu authority {base32(identifier)[:8]}", env, authority=True)
    builder = builder.not_valid_before(_ALWAYS[0]).not_valid_after(_ALWAYS[1])
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_key_usage(key_cert_sign=True), critical=True)
    return builder.sign(key, hashes.SHA256())


def _builder(
    public_key: ec.EllipticCurvePublicKey, common_name: str, env: Env, *, authority: bool = False
) -> x509.CertificateBuilder:
    """Begin a certificate: subject, serial number (RFC 5280, 4.1.2.2: positive, at most 20 bytes) and key."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    serial = int.from_bytes(env.token_bytes(16), "big") | 1
    builder = x509.CertificateBuilder().subject_name(name).serial_number(serial).public_key(public_key)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    return builder.issuer_name(name) if authority else builder


def _key_usage(*, digital_signature: bool = False, key_cert_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=key_cert_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _subject_names(hosts: Iterable[str]) -> list[x509.DNSName | x509.IPAddress]:
    """Return each name and address once, in their order."""
    names: dict[x509.DNSName | x509.IPAddress, None] = {}
    for host in hosts:
        try:
            address = ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            lowered = host.lower().rstrip(".")
            if not _HOST.fullmatch(lowered):
                raise ValueError(f"{host!r} is neither a host name nor an address") from None
            names[x509.DNSName(lowered)] = None
        else:
            if not address.is_unspecified:
                names[x509.IPAddress(address)] = None
    return list(names)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    unencrypted = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, unencrypted)


def _load_key(path: Path, pem: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != _CURVE.name:
        hint = "Put the right file back from a copy; without it every agent must join anew"
        raise UnsafeFile(str(path), f"holds no unencrypted private key on {_CURVE.name}", hint=hint)
    return key


def _load_certificate(path: Path, pem: bytes, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    try:
        certificate = x509.load_pem_x509_certificate(pem)
    except ValueError:
        certificate = None
    if certificate is None or certificate.public_key() != key.public_key():
        hint = f"Remove it: it is made anew from {KEY_FILE}"
        raise UnsafeFile(str(path), f"is not the certificate of the key in {KEY_FILE}", hint=hint)
    return certificate


def _key_gone(directory: Path) -> UnsafeFile:
    return UnsafeFile(
        str(directory / KEY_FILE),
        f"is gone, though {CERTIFICATE_FILE} is there",
        hint=f"Put it back from a copy. To begin anew, remove {CERTIFICATE_FILE} as well: then every agent must "
        "join anew and every profile log in anew",
    )
