import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from taskgrant.identity import certificates, contexts, csr, spiffe
from tests.identity.support import DOMAIN, Domain

NAME = spiffe.guard_dns(DOMAIN, "mail")


@asynccontextmanager
async def _server(context: ssl.SSLContext) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Answers ``ok`` to each connection; keeps the certificates that it was shown."""
    shown: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        shown.append(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
        writer.write(b"ok")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1], shown


async def _ask(port: int, context: ssl.SSLContext, name: str = NAME) -> tuple[bytes, ssl.SSLObject]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
    try:
        return await reader.read(), writer.get_extra_info("ssl_object")
    finally:
        writer.close()


async def _refused(port: int, context: ssl.SSLContext) -> None:
    """A client learns of it when it reads: in TLS 1.3 its side of the handshake is over before the server has
    looked.
    """
    try:
        answer, _ = await _ask(port, context)
    except (ssl.SSLError, ConnectionError):
        return
    assert answer == b""


def _server_context(domain: Domain, clients: bytes | None = None) -> ssl.SSLContext:
    key = csr.new_key()
    return contexts.server_context(domain.guard(key), key, clients or domain.signer.bundle())


async def test_both_sides_prove_themselves(domain: Domain) -> None:
    credential = domain.credential()
    client = contexts.client_context(credential.chain, credential.key, domain.signer.bundle())
    async with _server(_server_context(domain)) as (port, shown):
        answer, tls = await _ask(port, client)
        assert answer == b"ok"
        assert tls.version() == "TLSv1.3"
        assert tls.selected_alpn_protocol() == "http/1.1"
    assert shown == [credential.leaf]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_no_session_is_resumed(domain: Domain, version: ssl.TLSVersion) -> None:
    credential = domain.credential()
    client = contexts.client_context(credential.chain, credential.key, domain.signer.bundle())
    client.options &= ~ssl.OP_NO_TICKET  # a client that would like to
    client.maximum_version = version
    async with _server(_server_context(domain)) as (port, _):
        _, tls = await _ask(port, client)
        session = tls.session
        assert session is None or not session.has_ticket


async def test_old_protocols_are_refused(domain: Domain) -> None:
    credential = domain.credential()
    for context in (
        _server_context(domain),
        contexts.client_context(credential.chain, credential.key, domain.signer.bundle()),
    ):
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2
        assert context.verify_mode is ssl.CERT_REQUIRED


async def test_a_client_of_another_trust_domain_is_refused(domain: Domain) -> None:
    stranger = Domain(domain.clock).credential()
    client = contexts.client_context(stranger.chain, stranger.key, domain.signer.bundle())
    async with _server(_server_context(domain)) as (port, shown):
        await _refused(port, client)
    assert shown == []


async def test_a_client_without_a_certificate_is_refused(domain: Domain) -> None:
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(cadata=domain.signer.bundle().decode())
    async with _server(_server_context(domain)) as (port, shown):
        await _refused(port, client)
    assert shown == []


async def test_an_expired_credential_is_refused(domain: Domain) -> None:
    credential = domain.credential(life=-1)
    client = contexts.client_context(credential.chain, credential.key, domain.signer.bundle())
    async with _server(_server_context(domain)) as (port, _):
        await _refused(port, client)


async def test_a_server_of_another_name_or_domain_is_refused(domain: Domain) -> None:
    credential = domain.credential()
    client = contexts.client_context(credential.chain, credential.key, domain.signer.bundle())
    async with _server(_server_context(domain)) as (port, _):
        with pytest.raises(ssl.SSLCertVerificationError):
            await _ask(port, client, name=spiffe.guard_dns(DOMAIN, "files"))
    async with _server(_server_context(Domain(domain.clock), domain.signer.bundle())) as (port, _):
        with pytest.raises(ssl.SSLCertVerificationError):
            await _ask(port, client)


async def test_an_agents_credential_cannot_stand_for_a_guard(domain: Domain) -> None:
    credential, posing = domain.credential(), domain.credential()
    client = contexts.client_context(credential.chain, credential.key, domain.signer.bundle())
    server = contexts.server_context(posing.chain, posing.key, domain.signer.bundle())
    async with _server(server) as (port, _):
        with pytest.raises(ssl.SSLCertVerificationError):
            await _ask(port, client)


def test_the_systems_roots_are_used_when_asked_for(domain: Domain) -> None:
    credential = domain.credential()
    context = contexts.client_context(credential.chain, credential.key, None)
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED


def test_a_key_that_is_not_the_certificates_is_refused(domain: Domain) -> None:
    with pytest.raises(ssl.SSLError):
        contexts.client_context(domain.credential().chain, csr.new_key(), domain.signer.bundle())


def test_what_a_chain_says_of_its_leaf(domain: Domain) -> None:
    credential = domain.credential(life=300)
    assert certificates.not_after(credential.chain) == domain.clock.at + 300
