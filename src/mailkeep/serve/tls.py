"""Certificates: a server's TLS context, its reload, and a self-signed certificate for loopback.

A `TlsConfig` is shared by all listeners; `current` is what new connections use. `reload` swaps it whole, so a
connection in the middle keeps the context and the channel binding that it began with.
"""

import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization

from mailkeep.errors import ConfigError

_CERTIFICATE_DAYS = 825


@dataclass(frozen=True, slots=True)
class TlsMaterial:
    context: ssl.SSLContext
    end_point: bytes | None  # tls-server-end-point (RFC 5929 section 4.1); None: its hash is not defined for this key


class TlsConfig:
    """Certificate chain and key, as files. Raises ConfigError when they cannot be used."""

    __slots__ = ("_certificate", "_key", "current")

    def __init__(self, certificate: Path, key: Path | None = None) -> None:
        self._certificate = certificate
        self._key = key or certificate
        self.current = self._load()

    def reload(self) -> None:
        """Read the files again. On an error the old ones stay in use and ConfigError says why."""
        self.current = self._load()

    def _load(self) -> TlsMaterial:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
        context.num_tickets = 1  # mail clients resume rarely; each ticket costs a write at every handshake
        try:
            # A key behind a pass phrase would make OpenSSL ask on the terminal: refuse instead.
            context.load_cert_chain(self._certificate, self._key, password=_no_password)
            pem = self._certificate.read_bytes()
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or "cannot be read"
            raise ConfigError(f"Certificate {self._certificate} with key {self._key}: {reason}") from error
        return TlsMaterial(context, _end_point(pem))


def _no_password() -> str:
    raise ValueError("the key is encrypted")


def _end_point(pem: bytes) -> bytes | None:
    """The certificate's hash by its own signature's hash function, SHA-256 in place of MD5 and SHA-1."""
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        algorithm = certificate.signature_hash_algorithm
    except (ValueError, UnsupportedAlgorithm):
        return None
    if algorithm is None:  # Ed25519 and the like: RFC 5929 leaves it undefined
        return None
    if isinstance(algorithm, hashes.MD5 | hashes.SHA1):
        algorithm = hashes.SHA256()
    return certificate.fingerprint(algorithm)


def make_self_signed(directory: Path, *, hostname: str) -> tuple[Path, Path]:
    """(certificate, key) for loopback in `directory`, made when not there or within a week of their end.

    ECDSA P-256: its handshake costs the loop a tenth of what RSA does.
    """
    certificate_path, key_path = directory / "loopback.crt", directory / "loopback.key"
    if not _usable(certificate_path) or not key_path.exists():
        directory.mkdir(parents=True, exist_ok=True)
        certificate, key = _generate(hostname)
        _write_private(key_path, key)
        _write_private(certificate_path, certificate)
    return certificate_path, key_path


def _usable(path: Path) -> bool:
    import datetime

    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        return False
    week = datetime.timedelta(days=7)
    return certificate.not_valid_after_utc > datetime.datetime.now(datetime.UTC) + week


def _write_private(path: Path, data: bytes) -> None:
    import os

    temporary = path.with_suffix(path.suffix + f".{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    temporary.replace(path)


def _generate(hostname: str) -> tuple[bytes, bytes]:
    import datetime
    import ipaddress

    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, hostname[:64] or "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names: list[x509.GeneralName] = [x509.DNSName("localhost")]
    if hostname.isascii() and hostname not in {"", "localhost"}:
        names.append(x509.DNSName(hostname))
    names += [x509.IPAddress(ipaddress.ip_address(address)) for address in ("127.0.0.1", "::1")]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=_CERTIFICATE_DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    return (
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )
