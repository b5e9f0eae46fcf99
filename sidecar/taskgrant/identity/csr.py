"""Keys and certificate signing requests (RFC 2986). Keys are ECDSA P-256 and live in memory only.

``csr`` states what the key's owner would like to be called; whoever signs decides what the certificate says.
The request's own signature is what counts: it proves that the asker holds the key (RFC 2986, section 3).
"""

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

_MAX_BYTES = 8192


class KeyPair:
    """A private key that is never written to disk. ``repr`` shows nothing of it."""

    __slots__ = ("_key",)

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key

    def public(self) -> bytes:
        """The public half: DER, SubjectPublicKeyInfo."""
        return public_der(self._key.public_key())

    def csr(self, uri: str) -> bytes:
        """A DER request with an empty subject and ``uri`` as its one alternative name."""
        name = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])
        builder = x509.CertificateSigningRequestBuilder(subject_name=x509.Name([]))
        request = builder.add_extension(name, critical=True).sign(self._key, hashes.SHA256())
        return request.public_bytes(serialization.Encoding.DER)

    def pem(self) -> bytes:
        """The private key, PKCS #8 PEM: for the anonymous memory that OpenSSL reads it from, and for nothing
        else.
        """
        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


def new_key() -> KeyPair:
    return KeyPair(ec.generate_private_key(ec.SECP256R1()))


def read_csr(der: bytes) -> bytes:
    """The public key (DER, SubjectPublicKeyInfo) that a request proves to hold.

    Raises ValueError when the bytes are no request, its signature is not its key's, or its key is not on
    P-256.
    """
    if len(der) > _MAX_BYTES:
        raise ValueError(f"a signing request has at most {_MAX_BYTES} bytes")
    try:
        request = x509.load_der_x509_csr(der)
        key = request.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise ValueError("the key of a signing request must be on P-256")
        signed = request.is_signature_valid
    except (UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise ValueError(f"the signing request is of a kind that is not supported: {error}") from error
    if not signed:
        raise ValueError("the signing request is not signed with its own key")
    return public_der(key)


def public_der(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
