"""The local signer: root → issuer (``pathlen:0``) → leaf, and tokens under a key of their own. All keys die
with the process.

The root lasts as long as the process may run. Issuers are short and are renewed at half their life; an issuer
that is no longer signed with keeps its place in the CRL until it has expired. Every leaf is an X.509-SVID
(X509-SVID standard, sections 2 to 4): an empty subject, one URI and therefore a critical alternative name,
``digitalSignature``, both extended usages.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from taskgrant.identity import spiffe, tokens
from taskgrant.model.json import JsonObject
from taskgrant.model.ports import LeafProfile
from taskgrant.model.time import Clock, Instant

_ROOT_LIFE: Final = timedelta(days=3650)
_ISSUER_LIFE: Final = timedelta(days=7)
_BACKDATE: Final = timedelta(hours=1)  # clocks of the machines that verify may be behind
NO_USAGE: Final = {
    "digital_signature": False,
    "content_commitment": False,
    "key_encipherment": False,
    "data_encipherment": False,
    "key_agreement": False,
    "key_cert_sign": False,
    "crl_sign": False,
    "encipher_only": False,
    "decipher_only": False,
}


@dataclass(frozen=True, slots=True)
class _Ca:
    """A signing certificate with its key."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def not_after(self) -> datetime:
        return self.certificate.not_valid_after_utc

    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)


class LocalSigner:
    """Implements ``model.ports.Signer`` with keys in this process's memory."""

    def __init__(
        self, trust_domain: str, clock: Clock, root: _Ca, issuer: _Ca, token_key: tokens.SigningKey
    ) -> None:
        self._trust_domain = trust_domain
        self._clock = clock
        self._root = root
        self._issuers = [issuer]  # the last one signs
        self._token_key = token_key
        self._crl_number = 0

    @classmethod
    def create(cls, trust_domain: str, clock: Clock) -> "LocalSigner":
        """A new trust domain: new root, issuer and token key. Raises ValueError for a name that is no trust
        domain.
        """
        now = _datetime(clock.now())
        root = _authority(trust_domain, "root", now, _ROOT_LIFE, parent=None)
        issuer = _authority(trust_domain, "issuer", now, _ISSUER_LIFE, parent=root)
        return cls(trust_domain, clock, root, issuer, tokens.SigningKey.create())

    def certificate(self, profile: LeafProfile, public_key: bytes) -> bytes:
        """Signs a leaf. ``not_after`` is cut to the issuer's; sub-second times are rounded down, so a leaf
        never lasts longer.

        Raises ValueError for a key that is not on P-256, a URI that is no SPIFFE ID, or a leaf that would
        never be valid.
        """
        key = serialization.load_der_public_key(public_key)
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise ValueError("a certificate is signed for a key on P-256 only")
        if spiffe.parse(profile.uri).trust_domain != self._trust_domain:
            raise ValueError(f"{profile.uri!r} is not of the trust domain {self._trust_domain!r}")
        issuer = self._issuer()
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(profile.uri)]
        names += [x509.DNSName(name) for name in profile.dns]
        not_after = min(_datetime(profile.not_after), issuer.not_after)
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        builder = (
            _builder(x509.Name([]), issuer.certificate.subject, key, profile.serial)
            .not_valid_before(_datetime(profile.not_before))
            .not_valid_after(not_after)
            .add_extension(x509.SubjectAlternativeName(names), critical=True)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(**{**NO_USAGE, "digital_signature": True}), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(_authority_key(issuer), critical=False)
        )
        leaf = builder.sign(issuer.key, hashes.SHA256())
        return leaf.public_bytes(serialization.Encoding.PEM) + issuer.pem()

    def token(self, claims: JsonObject) -> str:
        return self._token_key.sign(claims)

    def bundle(self) -> bytes:
        """The root, PEM."""
        return self._root.pem()

    def jwks(self) -> JsonObject:
        """A JWK Set (RFC 7517, section 5) with the public half of the token key."""
        return self._token_key.jwks()

    def crl(self, serials: Sequence[tuple[str, Instant]], now: Instant, lifetime: float = 120.0) -> bytes:
        """CRLs (RFC 5280, section 5), PEM, one after another: one for each issuer that is not over, and an
        empty one for the root.

        ``serials`` are hex serials with the instant of their revocation. Verifiers that check every
        certificate of a chain need the root's too. ``lifetime`` (seconds) sets ``nextUpdate``: a CRL that has
        run out refuses everyone, on purpose.
        """
        self._crl_number += 1
        made, next_update = _datetime(now), _datetime(now) + timedelta(seconds=lifetime)
        entries = [
            x509.RevokedCertificateBuilder(int(serial, 16), _datetime(min(at, now))).build()
            for serial, at in serials
        ]
        lists = []
        for authority, revoked in [*((issuer, entries) for issuer in self._issuers), (self._root, [])]:
            builder = (
                x509.CertificateRevocationListBuilder(
                    authority.certificate.subject, made, next_update, revoked_certificates=revoked
                )
                .add_extension(x509.CRLNumber(self._crl_number), critical=False)
                .add_extension(_authority_key(authority), critical=False)
            )
            lists.append(
                builder.sign(authority.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
            )
        return b"".join(lists)

    def _issuer(self) -> _Ca:
        now = _datetime(self._clock.now())
        self._issuers = [issuer for issuer in self._issuers if issuer.not_after > now]
        if not self._issuers or self._issuers[-1].not_after - now < _ISSUER_LIFE / 2:
            self._issuers.append(
                _authority(self._trust_domain, "issuer", now, _ISSUER_LIFE, parent=self._root)
            )
        return self._issuers[-1]


def _authority(trust_domain: str, role: str, now: datetime, life: timedelta, parent: _Ca | None) -> _Ca:
    key = ec.generate_private_key(ec.SECP256R1())
    serial = x509.random_serial_number()
    # Verifiers look issuers up by name: it must tell this certificate from those of other processes and times.
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"taskgrant {role} {serial:x}"[:64])])
    identity = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(spiffe.issuer(trust_domain))])
    usage = x509.KeyUsage(**{**NO_USAGE, "key_cert_sign": True, "crl_sign": True})
    not_after = now + life if parent is None else min(now + life, parent.not_after)
    builder = (
        _builder(name, name if parent is None else parent.certificate.subject, key.public_key(), serial)
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(not_after)
        .add_extension(x509.BasicConstraints(ca=True, path_length=1 if parent is None else 0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(identity, critical=False)
    )
    if parent is not None:
        builder = builder.add_extension(_authority_key(parent), critical=False)
    return _Ca(key, builder.sign(key if parent is None else parent.key, hashes.SHA256()))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, serial: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder(issuer_name=issuer, subject_name=subject)
        .public_key(key)
        .serial_number(serial)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _authority_key(authority: _Ca) -> x509.AuthorityKeyIdentifier:
    own = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def _datetime(at: float) -> datetime:
    """X.509 times have whole seconds: rounded down."""
    return datetime.fromtimestamp(int(at), UTC)
