"""A CA of this pod's own: it vouches to the agent beside it for the names that the sidecar answers in place of.

It signs nothing but server certificates that the sidecar itself shows, and nobody outside the pod trusts it; no task's
credential comes from here. The agent's processes read their trust once, when they start, and may outlive the sidecar:
so that a restart of the sidecar does not cut them off, the key is kept. It is the one key that is written to files on
purpose, and only to files that are memory: a directory on tmpfs or ramfs that is this user's alone. Whoever can read it
there can read the sidecar's memory as well.
"""

import os
import secrets
import stat
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from taskgrant.errors import ConfigurationError
from taskgrant.identity.csr import KeyPair
from taskgrant.identity.signer import NO_USAGE
from taskgrant.model.time import Clock

_FILE: Final = "ca.pem"
_LIFE: Final = timedelta(days=3650)  # a pod's, at most
_LEAF_LIFE: Final = timedelta(hours=23)
_BACKDATE: Final = timedelta(hours=1)  # with it, a leaf is valid for a day
_MEMORY: Final = frozenset({"tmpfs", "ramfs"})
_MAX_BYTES: Final = 16 * 1024


@dataclass(frozen=True, slots=True)
class Leaf:
    """A server certificate for one name: PEM, and when to stop showing it."""

    chain: bytes
    not_after: datetime


class PodCa:
    """``key`` is the one that all leaves are for."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate, clock: Clock) -> None:
        self._key = key
        self._certificate = certificate
        self._clock = clock
        self._leaf_key = ec.generate_private_key(ec.SECP256R1())

    @classmethod
    def open(cls, directory: Path, clock: Clock) -> "PodCa":
        """The CA that the directory holds, or a new one in it.

        A directory that is not there is made. Raises ``errors.ConfigurationError`` for one that is not memory or not
        private, and for a file in it that cannot be used: a CA is never replaced under a running agent.
        """
        try:
            directory.mkdir(mode=0o700, exist_ok=True)
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise ConfigurationError(
                [f"{directory} cannot be used for the pod's CA: {error.strerror}"]
            ) from error
        try:
            if (why := _objection(descriptor)) is not None:
                raise ConfigurationError([f"{directory} cannot hold the pod's CA: {why}"])
            now = datetime.fromtimestamp(clock.now(), UTC)
            key, certificate = _load(descriptor, now) or _create(descriptor, now)
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise ConfigurationError([f"{directory / _FILE} is no CA of this pod: {error}"]) from error
        finally:
            os.close(descriptor)
        return cls(key, certificate, clock)

    @property
    def certificate(self) -> bytes:
        """PEM: what the agent must trust. Not the key."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def leaf_key(self) -> KeyPair:
        return KeyPair(self._leaf_key)

    def leaf(self, name: str) -> Leaf:
        """A certificate for this DNS name alone, for servers only, valid for a day at most.

        Raises ValueError for what is no DNS name.
        """
        now = datetime.fromtimestamp(int(self._clock.now()), UTC)
        not_after = min(now + _LEAF_LIFE, self._certificate.not_valid_after_utc)
        issuer = self._certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        certificate = (
            _builder(x509.Name([]), self._certificate.subject, self._leaf_key.public_key())
            .not_valid_before(now - _BACKDATE)
            .not_valid_after(not_after)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=True)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(**{**NO_USAGE, "digital_signature": True}), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )
        return Leaf(certificate.public_bytes(serialization.Encoding.PEM), not_after)


def _objection(descriptor: int, mounts: Callable[[], str] | None = None) -> str | None:
    """Why a directory must not hold the key; None if it may."""
    found = os.fstat(descriptor)
    if found.st_uid != os.geteuid():
        return "it belongs to another user"
    if stat.S_IMODE(found.st_mode) & 0o077:
        return "others than its owner can get at it; its mode must be 0700"
    device = f"{os.major(found.st_dev)}:{os.minor(found.st_dev)}"
    kinds = {
        kind for mounted, kind in _mounts(_mount_table() if mounts is None else mounts()) if mounted == device
    }
    # A device that no mount tells of is none that we know to be memory.
    return None if kinds and kinds <= _MEMORY else "it is not in memory (tmpfs or ramfs)"


def _mount_table() -> str:
    return Path("/proc/self/mountinfo").read_text(errors="replace")


def _mounts(table: str) -> list[tuple[str, str]]:
    """Device (``major:minor``) and file system of each mount: proc(5), ``/proc/pid/mountinfo``."""
    found = []
    for line in table.splitlines():
        before, separator, after = line.partition(" - ")
        if separator:
            found.append((before.split()[2], after.split()[0]))
    return found


def _load(directory: int, now: datetime) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate] | None:
    """Raises ValueError for a file that is not a CA of ours that is good now, OSError when it cannot be read."""
    try:
        descriptor = os.open(_FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return None
    with open(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if (
            found.st_uid != os.geteuid()
            or stat.S_IMODE(found.st_mode) & 0o077
            or not stat.S_ISREG(found.st_mode)
        ):
            raise ValueError("it is not this user's alone")
        pem = file.read(_MAX_BYTES)
    key = serialization.load_pem_private_key(pem, password=None)
    certificate = x509.load_pem_x509_certificate(pem)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise ValueError("the key is not the certificate's")
    try:
        certificate.verify_directly_issued_by(certificate)
    except InvalidSignature as error:
        raise ValueError("the certificate is not its own issuer's") from error
    if not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
        raise ValueError("the certificate is no CA's")
    if not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc - _LEAF_LIFE:
        raise ValueError("the certificate is not valid any more, or not yet")
    return key, certificate


def _create(directory: int, now: datetime) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _self_signed(key, now.replace(microsecond=0))
    pem = KeyPair(key).pem() + certificate.public_bytes(serialization.Encoding.PEM)
    draft = f".{_FILE}.{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with open(os.open(draft, flags, 0o600, dir_fd=directory), "wb") as file:
            file.write(pem)
        # Whole or not at all; and of two that start at once, both go on with the first one's.
        os.link(draft, _FILE, src_dir_fd=directory, dst_dir_fd=directory)
    except FileExistsError:
        return _load(directory, now) or _create(directory, now)
    finally:
        os.unlink(draft, dir_fd=directory)
    return key, certificate


def _self_signed(key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    # Clients look issuers up by name: it must tell this pod's from others'.
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"taskgrant pod {secrets.token_hex(16)}")])
    return (
        _builder(name, name, key.public_key())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + _LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(**{**NO_USAGE, "key_cert_sign": True}), critical=True)
        .sign(key, hashes.SHA256())
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder(issuer_name=issuer, subject_name=subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )
