"""A certificate that this machine signs itself, for its names and addresses, kept from start to start."""
from __future__ import annotations

import hashlib
import ipaddress
import os
import ssl
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from models.info import BadInput

# The package cryptography is imported where it is used: whoever stays on this machine does not need it.

FILE = "lan.pem"                               # the key and its certificate in one, so that they always fit
DAYS = 397                                     # browsers take no certificate that is valid for longer
LEFT = 7                                       # days before its end at which another one is made
ALWAYS = ("localhost", "127.0.0.1", "::1")


def certificate(folder: Path, names: Sequence[str], now: datetime | None = None) -> Path:
    """A file with a key and a certificate for these names and addresses: the one kept there, if it fits.

    Each new certificate costs everybody another warning of the browser, so none is made without need.
    """
    file, now = folder / FILE, now or datetime.now(UTC)
    wanted = frozenset((*ALWAYS, *names))
    if not _fits(file, wanted, now):
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            _write(file, _made(sorted(wanted), now))
        except OSError as problem:
            raise BadInput(f"the certificate for https cannot be kept in {folder}: {problem.strerror}; let "
                           "SEEWHY_CACHE name a folder that can be written to") from None
    return file


def fingerprint(file: Path) -> str:
    """What a browser shows of the certificate, so that two people can compare it."""
    pem = file.read_text("ascii")
    der = ssl.PEM_cert_to_DER_cert(pem[pem.index("-----BEGIN CERTIFICATE"):])
    return hashlib.sha256(der).digest().hex(":").upper()


def _fits(file: Path, wanted: frozenset[str], now: datetime) -> bool:
    """Whether it is there, for exactly these names, for some time to come, and nobody else's to read."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        data = file.read_bytes()
        if os.name == "posix" and file.stat().st_mode & 0o077:
            return False                       # others may have read the key
        key = load_pem_private_key(data, None)
        kept = x509.load_pem_x509_certificate(data)
        has = kept.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, TypeError, x509.ExtensionNotFound):
        return False
    names = {*has.get_values_for_type(x509.DNSName), *map(str, has.get_values_for_type(x509.IPAddress))}
    return (names == wanted and key.public_key() == kept.public_key()
            and kept.not_valid_before_utc <= now < kept.not_valid_after_utc - timedelta(days=LEFT))


def _made(names: Sequence[str], now: datetime) -> bytes:
    """A new key and its certificate, as PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Seewhy on this network")])
    usage = dict.fromkeys(("content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
                           "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"), False)
    extensions: list[tuple[Any, bool]] = [
        (x509.SubjectAlternativeName([_named(name) for name in names]), False),
        (x509.BasicConstraints(ca=False, path_length=None), True),     # whoever trusts it trusts nothing more
        (x509.KeyUsage(digital_signature=True, **usage), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)]
    builder = x509.CertificateBuilder(
        issuer_name=who, subject_name=who, public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=now - timedelta(hours=1),                     # a phone's clock may be behind
        not_valid_after=now + timedelta(days=DAYS) - timedelta(hours=1))
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    made = builder.sign(key, hashes.SHA256())
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                             serialization.NoEncryption()) + made.public_bytes(serialization.Encoding.PEM)


def _named(name: str) -> Any:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _write(file: Path, data: bytes) -> None:
    """All of it or nothing, and from its first moment nobody else's to read."""
    part = file.with_name(f"{file.name}.{os.getpid()}")
    with suppress(FileNotFoundError):
        part.unlink()
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        out.write(data)
    os.replace(part, file)
