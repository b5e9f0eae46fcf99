"""The TLS side of credentials: a key made in memory, shown to OpenSSL once, and gone when its credential is dropped."""

import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

from taskgrant.errors import Refused
from taskgrant.identity.contexts import client_context
from taskgrant.identity.csr import new_key
from taskgrant.identity.spiffe import guard_dns
from taskgrant.model.catalogue import Catalogue, ServerProtocol
from taskgrant.model.codes import Code
from taskgrant.model.credential import Issued

_ALPN = {
    ServerProtocol.MCP: ["http/1.1"],
    ServerProtocol.HTTP: ["http/1.1"],
    ServerProtocol.GRPC: ["h2"],
}


class Keyring:
    """Makes a key per credential, and at once the TLS context of the one pool that may use it.

    The private key itself is held by nobody afterwards: it lives inside that context and dies with it.
    """

    def __init__(self, catalogue: Catalogue, trust_domain: str, subject: str) -> None:
        """Raises OSError when a file of roots that the catalogue names cannot be read."""
        self._catalogue = catalogue
        self._trust_domain = trust_domain
        self._subject = subject
        self._roots = {
            server.name: Path(server.trust).read_bytes()
            for server in catalogue.servers
            if server.trust not in ("taskgrant", "system")
        }
        self._contexts: dict[str, tuple[ssl.SSLContext, str | None]] = {}

    def __len__(self) -> int:
        return len(self._contexts)

    async def mint(self, server: str, issue: Callable[[bytes], Awaitable[Issued]]) -> Issued:
        """What ``issue`` makes of the CSR (DER) of a new key. What ``issue`` raises passes through."""
        key = new_key()
        issued = await issue(key.csr(self._subject))
        # A server behind a guard is vouched for by our own trust domain, under the guard's DNS name, whatever address
        # it has; any other by the system's roots or by the file that the catalogue names, under the name dialled.
        spoken = self._catalogue.by_name[server]
        trust, alpn = spoken.trust, _ALPN[spoken.protocol]
        if trust == "taskgrant":
            context = client_context(issued.certificate, key, issued.bundle, alpn)
            self._contexts[issued.serial] = (context, guard_dns(self._trust_domain, server))
        else:
            roots = self._roots.get(server)
            self._contexts[issued.serial] = (client_context(issued.certificate, key, roots, alpn), None)
        return issued

    def context(self, issued: Issued, server: str) -> tuple[ssl.SSLContext, str | None]:
        """The context for a pool, and the name to verify the server by (None: the name that is dialled).

        Raises ``errors.Refused`` (revoked) when the credential was dropped meanwhile.
        """
        try:
            return self._contexts[issued.serial]
        except KeyError:
            raise Refused(Code.REVOKED, f"the credential for {server} was withdrawn") from None

    def drop(self, serial: str) -> None:
        self._contexts.pop(serial, None)
