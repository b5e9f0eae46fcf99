"""The files by which an agent's programs trust the pod's CA (``model.trust`` says which and why). Nothing is secret.

The directory is shared with the agent, which must only be able to read it: whoever can replace these files decides
whom the agent trusts, which is why the sidecar itself never reads them.
"""

import os
import secrets
import ssl
import warnings
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption
from cryptography.hazmat.primitives.serialization.pkcs12 import (
    PKCS12Certificate,
    serialize_java_truststore,
)
from cryptography.utils import CryptographyDeprecationWarning

from taskgrant.errors import ConfigurationError
from taskgrant.model import trust

#: Where distributions keep the roots, beside what OpenSSL was built to read.
_PLACES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
)


def write(directory: Path, ca: bytes, roots: bytes | None = None) -> None:
    """Makes the directory if it is not there, and replaces each file as a whole.

    ``ca`` and ``roots`` (the system's, by default) are PEM. Raises ``errors.ConfigurationError``.
    """
    known = system_roots() if roots is None else roots
    try:
        certificates = [*x509.load_pem_x509_certificates(ca), *_readable(known)]
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        _replace(directory, trust.CA, ca)
        _replace(
            directory,
            trust.BUNDLE,
            b"".join((known, b"" if known.endswith(b"\n") or not known else b"\n", ca)),
        )
        _replace(directory, trust.JAVA, _java(certificates))
    except OSError as error:
        raise ConfigurationError([f"{directory} cannot be written: {error.strerror}"]) from error


def system_roots() -> bytes:
    """PEM; empty where there are none, as in images without certificates: then only the pod's CA is trusted."""
    paths = ssl.get_default_verify_paths()
    for place in (paths.cafile, paths.openssl_cafile, *_PLACES):
        if place and os.path.isfile(place):
            return Path(place).read_bytes()
    return b""


def _readable(pem: bytes) -> list[x509.Certificate]:
    """Without those that our reader finds fault with: a distribution's old root must not keep us from starting."""
    found = []
    for part in pem.split(b"-----BEGIN CERTIFICATE-----")[1:]:
        try:
            with warnings.catch_warnings(action="ignore", category=CryptographyDeprecationWarning):
                found.append(x509.load_pem_x509_certificate(b"-----BEGIN CERTIFICATE-----" + part))
        except ValueError:
            continue
    return found


def _java(certificates: list[x509.Certificate]) -> bytes:
    """PKCS #12 whose entries carry Java's mark of a trusted certificate."""
    entries = [
        PKCS12Certificate(certificate, b"taskgrant-%d" % number)
        for number, certificate in enumerate(certificates)
    ]
    return serialize_java_truststore(entries, BestAvailableEncryption(trust.JAVA_PASSWORD.encode()))


def _replace(directory: Path, name: str, content: bytes) -> None:
    draft = directory / f".{name}.{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with open(os.open(draft, flags, 0o644), "wb") as file:
            os.fchmod(file.fileno(), 0o644)  # whatever the umask says
            file.write(content)
        os.replace(draft, directory / name)
    finally:
        draft.unlink(missing_ok=True)
