import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from taskgrant.identity import certificates, csr, spiffe
from taskgrant.identity.signer import LocalSigner
from taskgrant.model.ports import LeafProfile
from taskgrant.model.time import Instant
from tests.identity.support import AGENT, DOMAIN, Domain, SetClock

URI = spiffe.credential_id(AGENT, "task-1", "mail")
DAY = 86400.0


def _profile(clock: SetClock, **changed: object) -> LeafProfile:
    fields = {
        "uri": URI,
        "not_before": clock.at - 60,
        "not_after": clock.at + 120,
        "serial": 0xABC,
        **changed,
    }
    return LeafProfile(**fields)  # type: ignore[arg-type]


def _crls(pem: bytes) -> list[x509.CertificateRevocationList]:
    end = b"-----END X509 CRL-----\n"
    return [x509.load_pem_x509_crl(part + end) for part in pem.split(end) if part]


def test_a_leaf_is_an_x509_svid(domain: Domain, clock: SetClock) -> None:
    key = csr.new_key()
    leaf, issuer = x509.load_pem_x509_certificates(domain.signer.certificate(_profile(clock), key.public()))
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert list(names.value) == [x509.UniformResourceIdentifier(URI)]
    assert names.critical
    assert not list(leaf.subject)
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.digital_signature
    assert not usage.value.key_cert_sign
    assert not usage.value.crl_sign
    assert list(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [
        ExtendedKeyUsageOID.CLIENT_AUTH,
        ExtendedKeyUsageOID.SERVER_AUTH,
    ]
    basic = leaf.extensions.get_extension_for_class(x509.BasicConstraints)
    assert basic.critical
    assert not basic.value.ca
    assert leaf.serial_number == 0xABC
    assert leaf.not_valid_before_utc.timestamp() == clock.at - 60
    assert leaf.not_valid_after_utc.timestamp() == clock.at + 120
    assert csr.public_der(leaf.public_key()) == key.public()  # type: ignore[arg-type]
    above = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert above.ca
    assert above.path_length == 0
    assert leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier == (
        issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    )


def test_the_chain_leads_to_the_bundle_and_to_no_other(domain: Domain, clock: SetClock) -> None:
    chain = domain.signer.certificate(_profile(clock), csr.new_key().public())
    assert certificates.verify_chain(chain, domain.signer.bundle(), clock.now()) == certificates.leaf_of(
        chain
    )
    with pytest.raises(certificates.CertificateFault):
        certificates.verify_chain(chain, Domain(clock).signer.bundle(), clock.now())
    with pytest.raises(certificates.CertificateFault):
        certificates.verify_chain(chain, domain.signer.bundle(), Instant(clock.at + 121))


def test_a_leaf_never_lasts_longer_than_asked_nor_than_its_issuer(domain: Domain, clock: SetClock) -> None:
    key = csr.new_key().public()
    assert certificates.not_after(
        domain.signer.certificate(_profile(clock, not_after=clock.at + 9.9), key)
    ) == (clock.at + 9)
    leaf, issuer = x509.load_pem_x509_certificates(
        domain.signer.certificate(_profile(clock, not_after=clock.at + 365 * DAY), key)
    )
    assert leaf.not_valid_after_utc == issuer.not_valid_after_utc


def test_issuers_are_renewed_under_the_same_root(domain: Domain, clock: SetClock) -> None:
    key, issuers = csr.new_key().public(), set()
    for _ in range(30):  # sixty days, in steps of two
        chain = domain.signer.certificate(_profile(clock), key)
        certificates.verify_chain(chain, domain.signer.bundle(), clock.now())
        issuers.add(x509.load_pem_x509_certificates(chain)[1].subject)
        clock.at += 2 * DAY
    assert len(issuers) > 10
    assert len(_crls(domain.signer.crl([], clock.now()))) <= 3  # those that are over are forgotten


@pytest.mark.parametrize("uri", ["spiffe://other.org/agent/a", "spiffe://example.org/agent/a/", "mail"])
def test_a_uri_of_another_domain_is_not_signed(domain: Domain, clock: SetClock, uri: str) -> None:
    with pytest.raises(ValueError, match=r"trust domain|SPIFFE"):
        domain.signer.certificate(_profile(clock, uri=uri), csr.new_key().public())


def test_a_key_on_another_curve_is_not_signed(domain: Domain, clock: SetClock) -> None:
    key = csr.public_der(ec.generate_private_key(ec.SECP384R1()).public_key())
    with pytest.raises(ValueError, match="P-256"):
        domain.signer.certificate(_profile(clock), key)


def test_a_leaf_that_would_never_be_valid_is_not_signed(domain: Domain, clock: SetClock) -> None:
    with pytest.raises(ValueError, match="not valid"):
        domain.signer.certificate(_profile(clock, not_after=clock.at - 61), csr.new_key().public())


def test_a_bad_trust_domain_is_refused(clock: SetClock) -> None:
    with pytest.raises(ValueError, match="trust domain"):
        LocalSigner.create("Example.org", clock)


def test_crls_name_what_was_revoked_and_their_number_rises(domain: Domain, clock: SetClock) -> None:
    (first, root), (second, _) = (
        _crls(domain.signer.crl([("abc", Instant(clock.at - 1))], clock.now())) for _ in range(2)
    )
    assert [entry.serial_number for entry in first] == [0xABC]
    assert list(root) == []
    numbers = [
        made.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number for made in (first, second)
    ]
    assert numbers == [1, 2]
    assert first.next_update_utc is not None
    assert first.next_update_utc.timestamp() == clock.at + 120


def test_openssl_accepts_the_chain_and_refuses_what_is_revoked(
    domain: Domain, clock: SetClock, tmp_path: Path
) -> None:
    chain = domain.signer.certificate(_profile(clock), csr.new_key().public())
    leaf, issuer = (
        cert.public_bytes(serialization.Encoding.PEM) for cert in x509.load_pem_x509_certificates(chain)
    )
    for name, content in {"leaf": leaf, "issuer": issuer, "root": domain.signer.bundle()}.items():
        (tmp_path / name).write_bytes(content)

    def verify(revoked: list[tuple[str, Instant]], purpose: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "crl").write_bytes(domain.signer.crl(revoked, clock.now()))
        command = [
            "openssl",
            "verify",
            "-x509_strict",
            "-crl_check_all",
            "-purpose",
            purpose,
            "-CRLfile",
            "crl",
        ]
        command += ["-CAfile", "root", "-untrusted", "issuer", "leaf"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    for purpose in ("sslclient", "sslserver"):
        passed = verify([("def", clock.now())], purpose)
        assert passed.returncode == 0, passed.stderr
    failed = verify([("abc", clock.now())], "sslclient")
    assert failed.returncode != 0
    assert "certificate revoked" in failed.stderr
    assert (
        DOMAIN
        in subprocess.run(
            ["openssl", "x509", "-in", "leaf", "-noout", "-text"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    )
