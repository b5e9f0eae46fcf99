import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given
from hypothesis import strategies as st

from taskgrant.identity import csr

URI = "spiffe://example.org/agent/a/task/task-1/aud/mail"
DER = csr.new_key().csr(URI)


def _request(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    made = x509.CertificateSigningRequestBuilder(subject_name=x509.Name([])).sign(key, algorithm)
    return made.public_bytes(serialization.Encoding.DER)


def test_a_request_proves_its_key() -> None:
    key = csr.new_key()
    assert csr.read_csr(key.csr(URI)) == key.public()


def test_each_key_is_new_and_its_repr_shows_nothing() -> None:
    key = csr.new_key()
    assert key.public() != csr.new_key().public()
    assert "PRIVATE" not in repr(key)


@pytest.mark.parametrize(
    "key", [ec.generate_private_key(ec.SECP384R1()), ed25519.Ed25519PrivateKey.generate()]
)
def test_another_kind_of_key_is_refused(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> None:
    with pytest.raises(ValueError, match="P-256"):
        csr.read_csr(_request(key))


def test_a_request_that_another_key_signed_is_refused() -> None:
    mine, other = csr.new_key(), csr.new_key()
    forged = mine.csr(URI).replace(mine.public()[-64:], other.public()[-64:])
    with pytest.raises(ValueError, match="not signed with its own key"):
        csr.read_csr(forged)


def test_a_request_that_is_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="at most"):
        csr.read_csr(b"\x30" * 9000)


@given(st.integers(0, len(DER) - 1), st.integers(1, 255))
def test_a_request_in_which_a_byte_was_changed_is_refused_or_proves_the_same_key(
    at: int, change: int
) -> None:
    changed = bytearray(DER)
    changed[at] ^= change
    with pytest.raises(ValueError):  # noqa: PT011 - which check notices depends on the byte
        csr.read_csr(bytes(changed))
