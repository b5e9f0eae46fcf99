"""TLS contexts that are made from memory: one per credential, with one trust bundle, shared with nobody.

OpenSSL reads keys from files only: it is handed an anonymous memory file that closes with the call, so
nothing reaches a disk. No context resumes a session: a resumed one would skip the look at the peer's
certificate.
"""

import os
import ssl
from collections.abc import Sequence

from taskgrant.identity.csr import KeyPair

_ALPN = ["http/1.1"]
_ALPN_INTERCEPTING = ["h2", "http/1.1"]


def client_context(
    chain_pem: bytes, key: KeyPair, trust: bytes | None, alpn: Sequence[str] = _ALPN
) -> ssl.SSLContext:
    """Shows this certificate, and trusts ``trust`` (PEM) alone, or the system's roots for None. Host names
    are checked.

    Raises ssl.SSLError when the chain, the key or the bundle cannot be used.
    """
    context = anonymous_context(trust)
    context.set_alpn_protocols(alpn)
    _load(context, chain_pem, key)
    return context


def anonymous_context(trust: bytes | None) -> ssl.SSLContext:
    """The same, showing no certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # CERT_REQUIRED, and host names checked
    _settle(context)
    if trust is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.load_verify_locations(cadata=trust.decode("ascii"))
    return context


def server_context(chain_pem: bytes, key: KeyPair, client_ca_pem: bytes) -> ssl.SSLContext:
    """Shows this certificate and demands one of the client that leads to ``client_ca_pem``.

    Raises ssl.SSLError when the chain, the key or the bundle cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _settle(context)
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.num_tickets = 0  # TLS 1.3; the option below is for 1.2
    context.load_verify_locations(cadata=client_ca_pem.decode("ascii"))
    _load(context, chain_pem, key)
    return context


def intercepting_context(chain_pem: bytes, key: KeyPair, name: str) -> ssl.SSLContext:
    """Stands in for the server of this name towards a client that asks for exactly that one. Asks no
    certificate of it.

    Raises ssl.SSLError when the chain or the key cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _settle(context)
    context.set_alpn_protocols(_ALPN_INTERCEPTING)
    context.num_tickets = 0

    def check(_: ssl.SSLObject | ssl.SSLSocket, asked: str | None, __: ssl.SSLContext) -> int | None:
        # Whoever chose this context has read the name with a reader of its own: OpenSSL must have read the same.
        return (
            None if asked is not None and asked.lower() == name else ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        )

    context.sni_callback = check
    _load(context, chain_pem, key)
    return context


def _settle(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(_ALPN)


def _load(context: ssl.SSLContext, chain_pem: bytes, key: KeyPair) -> None:
    descriptor = os.memfd_create("credential", os.MFD_CLOEXEC)
    with open(descriptor, "wb") as memory:
        memory.write(key.pem() + chain_pem)
        memory.flush()
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
