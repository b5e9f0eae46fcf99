"""Certificates that are shown to us: what a chain that TLS has verified says about its holder (X509-SVID,
sections 4 and 5).

TLS proves that a chain leads to the trust bundle and that the peer holds the key. It does not say that the
certificate is a credential: an issuer signs guards' too. ``peer`` reads the leaf and accepts nothing but a
credential's shape.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from taskgrant.identity import spiffe
from taskgrant.identity.spiffe import CredentialId
from taskgrant.identity.tokens import thumbprint
from taskgrant.model.time import Instant

# What the X.509 parser raises for bytes that a peer made up.
_UNREADABLE = (
    ValueError,
    TypeError,
    x509.InvalidVersion,
    x509.ExtensionNotFound,
    x509.DuplicateExtension,
    UnsupportedAlgorithm,
)


class CertificateFault(Exception):
    """Why a certificate is no credential."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Peer:
    """Who stands behind a connection. ``serial`` is lower-case hex without leading zeros."""

    id: CredentialId
    serial: str
    not_before: Instant
    not_after: Instant
    thumbprint: str


def peer(der: bytes, trust_domain: str) -> Peer:
    """The holder of a verified leaf. Raises CertificateFault when it is no credential of ``trust_domain``."""
    try:
        leaf = x509.load_der_x509_certificate(der)
        uri = _check(leaf)
        identity = spiffe.parse_credential_id(uri, trust_domain)
    except CertificateFault:
        raise
    except _UNREADABLE as error:
        raise CertificateFault(f"the certificate is no credential: {error}") from error
    return Peer(
        id=identity,
        serial=format(leaf.serial_number, "x"),
        not_before=Instant(leaf.not_valid_before_utc.timestamp()),
        not_after=Instant(leaf.not_valid_after_utc.timestamp()),
        thumbprint=thumbprint(der),
    )


def leaf_of(chain_pem: bytes) -> bytes:
    """The first certificate of a PEM chain, DER. Raises ValueError when there is none."""
    return x509.load_pem_x509_certificates(chain_pem)[0].public_bytes(serialization.Encoding.DER)


def uri(chain_pem: bytes) -> str:
    """The one URI that the first certificate of a PEM chain is named by. Raises ValueError when there is none."""
    try:
        extensions = x509.load_pem_x509_certificates(chain_pem)[0].extensions
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except _UNREADABLE as error:
        raise ValueError(f"the certificate names nobody: {error}") from error
    found = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(found) != 1:
        raise ValueError("the certificate is not named by one URI")
    return found[0]


def not_after(chain_pem: bytes) -> Instant:
    """When the first certificate of a PEM chain runs out. Raises ValueError when there is none."""
    return Instant(x509.load_pem_x509_certificates(chain_pem)[0].not_valid_after_utc.timestamp())


def verify_chain(chain: bytes, bundle: bytes, now: Instant) -> bytes:
    """Verifies a PEM chain, leaf first, as a client's against a PEM bundle, without TLS: answers the leaf,
    DER.

    Raises CertificateFault when it does not lead there now.
    """
    try:
        leaf, *intermediates = x509.load_pem_x509_certificates(chain)
        store = Store(x509.load_pem_x509_certificates(bundle))
        verifier = PolicyBuilder().store(store).time(datetime.fromtimestamp(now, UTC)).build_client_verifier()
        verifier.verify(leaf, intermediates)
    except (*_UNREADABLE, VerificationError) as error:
        raise CertificateFault(f"the chain cannot be verified: {error}") from error
    return leaf.public_bytes(serialization.Encoding.DER)


def _check(leaf: x509.Certificate) -> str:
    """The leaf's one URI, if it is shaped as a credential."""
    if leaf.serial_number <= 0:
        raise CertificateFault("the certificate's serial is not positive")
    extensions = leaf.extensions
    names = list(extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    if len(names) != 1 or not isinstance(names[0], x509.UniformResourceIdentifier):
        raise CertificateFault("the certificate does not have one URI and nothing else as its name")
    if extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
        raise CertificateFault("the certificate is a signing certificate")
    usage = extensions.get_extension_for_class(x509.KeyUsage).value
    if not usage.digital_signature or usage.key_cert_sign or usage.crl_sign:
        raise CertificateFault("the certificate's key usage is not a leaf's")
    extended = list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    if ExtendedKeyUsageOID.CLIENT_AUTH not in extended:
        raise CertificateFault("the certificate is not for clients")
    return names[0].value
