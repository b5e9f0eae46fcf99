"""The guard's own certificate, and the keys that it believes tokens of: replaced as a pair, without closing a
listener.
"""

import ssl
from collections.abc import Awaitable, Callable

from taskgrant.errors import Refused
from taskgrant.guard.config import GuardConfig
from taskgrant.identity import certificates, contexts, csr, spiffe
from taskgrant.identity.tokens import Keys
from taskgrant.model.codes import Code
from taskgrant.model.credential import Enrolled
from taskgrant.model.time import Instant

_RENEW_AT = 0.66  # of the certificate's life
_TRY_AGAIN_SECONDS = 5.0


class Identity:
    def __init__(self, config: GuardConfig) -> None:
        self._config = config
        self._renew_at = float("inf")
        self.context: ssl.SSLContext | None = None
        self.keys = Keys({"keys": []})

    async def enrol(self, ask: Callable[[str, bytes], Awaitable[Enrolled]], now: Instant) -> None:
        """A new key, and a certificate for it. What ``ask`` raises passes through.

        Raises ``errors.Refused`` (authority_unavailable) when the answer cannot be used: the pair in use
        stays.
        """
        key = csr.new_key()
        guard = spiffe.guard_id(self._config.trust_domain, self._config.server)
        enrolled = await ask(self._config.server, key.csr(guard))
        try:
            keys = Keys(enrolled.jwks)
            context = contexts.server_context(enrolled.certificate, key, enrolled.bundle)
            until = certificates.not_after(enrolled.certificate)
            given = certificates.uri(enrolled.certificate)
        except (ValueError, ssl.SSLError) as error:
            raise Refused(Code.AUTHORITY_UNAVAILABLE, f"the enrolment cannot be used: {error}") from error
        if given != guard:
            # Nobody would get in, and sidecars would not believe us: better to say why than to stand there.
            raise Refused(
                Code.AUTHORITY_UNAVAILABLE, f"the authority takes this guard for {given}, not for {guard}"
            )
        context.sni_callback = self._choose
        self.context, self.keys = context, keys
        self._renew_at = now + (until - now) * _RENEW_AT

    def due(self, now: Instant) -> bool:
        return now >= self._renew_at

    def postpone(self, now: Instant) -> None:
        self._renew_at = now + _TRY_AGAIN_SECONDS

    def _choose(self, connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        """A listener keeps the context that it was opened with; each handshake takes the newest, trust bundle
        included.
        """
        if self.context is not None:
            connection.context = self.context
