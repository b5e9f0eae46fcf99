from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from taskgrant.identity import certificates, csr, spiffe, tokens
from taskgrant.identity.certificates import CertificateFault
from taskgrant.model.time import Instant
from tests.identity.support import AGENT, DOMAIN, Domain, SetClock

URI = spiffe.credential_id(AGENT, "task-1", "mail")


def _usage(**on: bool) -> x509.KeyUsage:
    names = [
        *(
            "digital_signature",
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
        ),
        *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    ]
    return x509.KeyUsage(**{name: on.get(name, False) for name in names})


def _leaf(
    names: list[x509.GeneralName] | None = None,
    ca: bool = False,
    usage: x509.KeyUsage | None = None,
    extended: tuple[x509.ObjectIdentifier, ...] = (ExtendedKeyUsageOID.CLIENT_AUTH,),
    leave_out: type[x509.ExtensionType] | None = None,
) -> bytes:
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    builder = (
        x509.CertificateBuilder(issuer_name=x509.Name([]), subject_name=x509.Name([]))
        .public_key(key.public_key())
        .serial_number(5)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(minutes=2))
    )
    extensions: list[x509.ExtensionType] = [
        x509.SubjectAlternativeName([x509.UniformResourceIdentifier(URI)] if names is None else names),
        x509.BasicConstraints(ca=ca, path_length=None),
        usage or _usage(digital_signature=True),
        x509.ExtendedKeyUsage(extended),
    ]
    for extension in extensions:
        if leave_out is None or not isinstance(extension, leave_out):
            builder = builder.add_extension(extension, critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def test_a_credential_names_its_holder(domain: Domain, clock: SetClock) -> None:
    credential = domain.credential()
    peer = certificates.peer(credential.leaf, DOMAIN)
    assert str(peer.id) == URI
    assert peer.serial == credential.serial
    assert peer.not_before == clock.at - 60
    assert peer.not_after == clock.at + 120
    assert peer.thumbprint == tokens.thumbprint(credential.leaf)


def test_a_guards_certificate_is_no_credential(domain: Domain) -> None:
    with pytest.raises(CertificateFault):
        certificates.peer(certificates.leaf_of(domain.guard(csr.new_key())), DOMAIN)


def test_a_credential_of_another_domain_is_none_here(domain: Domain) -> None:
    with pytest.raises(CertificateFault, match="not a credential"):
        certificates.peer(domain.credential().leaf, "other.org")


@pytest.mark.parametrize(
    "der",
    [
        pytest.param(_leaf(names=[]), id="no name"),
        pytest.param(_leaf(names=[x509.UniformResourceIdentifier(URI)] * 2), id="two URIs"),
        pytest.param(
            _leaf(names=[x509.UniformResourceIdentifier(URI), x509.DNSName("a.org")]), id="a DNS name too"
        ),
        pytest.param(_leaf(names=[x509.DNSName("a.org")]), id="a DNS name only"),
        pytest.param(
            _leaf(names=[x509.UniformResourceIdentifier("spiffe://example.org/guard/mail")]), id="a guard"
        ),
        pytest.param(_leaf(ca=True), id="a signing certificate"),
        pytest.param(_leaf(usage=_usage()), id="cannot sign"),
        pytest.param(_leaf(usage=_usage(digital_signature=True, crl_sign=True)), id="may sign CRLs"),
        pytest.param(
            _leaf(usage=_usage(digital_signature=True, key_cert_sign=True)), id="may sign certificates"
        ),
        pytest.param(_leaf(extended=(ExtendedKeyUsageOID.SERVER_AUTH,)), id="for servers only"),
        pytest.param(_leaf(leave_out=x509.SubjectAlternativeName), id="no alternative name"),
        pytest.param(_leaf(leave_out=x509.BasicConstraints), id="no basic constraints"),
        pytest.param(_leaf(leave_out=x509.KeyUsage), id="no key usage"),
        pytest.param(_leaf(leave_out=x509.ExtendedKeyUsage), id="no extended key usage"),
    ],
)
def test_another_shape_is_no_credential(der: bytes) -> None:
    with pytest.raises(CertificateFault):
        certificates.peer(der, DOMAIN)


def test_the_shape_that_those_differ_from_is_a_credential() -> None:
    assert certificates.peer(_leaf(), DOMAIN).serial == "5"


@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_no_certificate(der: bytes) -> None:
    with pytest.raises(CertificateFault):
        certificates.peer(der, DOMAIN)
    with pytest.raises(CertificateFault):
        certificates.verify_chain(der, der, Instant(0))


LEAF = _leaf()


@pytest.mark.filterwarnings("ignore:Parsed a serial number")  # cryptography warns of it, we refuse it
@given(st.integers(0, len(LEAF) - 1), st.integers(1, 255))
def test_a_certificate_in_which_a_byte_was_changed_is_refused_or_is_another(at: int, change: int) -> None:
    changed = bytearray(LEAF)
    changed[at] ^= change
    try:
        read = certificates.peer(bytes(changed), DOMAIN)
    except CertificateFault:
        return
    assert read.thumbprint != tokens.thumbprint(LEAF)


def test_the_uri_of_a_chain(domain: Domain) -> None:
    def pem(names: list[x509.GeneralName], leave_out: type[x509.ExtensionType] | None = None) -> bytes:
        leaf = x509.load_der_x509_certificate(_leaf(names, leave_out=leave_out))
        return leaf.public_bytes(serialization.Encoding.PEM)

    one, other = x509.UniformResourceIdentifier(URI), x509.UniformResourceIdentifier("spiffe://other")
    assert certificates.uri(pem([one, x509.DNSName("mail.example")])) == URI
    for chain in (
        pem([one, other]),
        pem([x509.DNSName("mail.example")]),
        pem([one], x509.SubjectAlternativeName),
        b"",
    ):
        with pytest.raises(ValueError, match="certificate"):
            certificates.uri(chain)
