"""A guard enrols as who it was told to be, or not at all."""

import pytest

from taskgrant.errors import Refused
from taskgrant.guard.config import GuardConfig
from taskgrant.guard.identity import Identity
from taskgrant.model.codes import Code
from tests.guard.support import TestAuthority
from tests.identity.support import DOMAIN


def identity(trust_domain: str) -> Identity:
    return Identity(
        GuardConfig.model_validate(
            {
                "server": "mail",
                "trust_domain": trust_domain,
                "listen": "127.0.0.1:0",
                "upstream": "http://localhost/",
            }
        )
    )


async def test_the_authority_of_another_trust_domain_is_not_ours(authority: TestAuthority) -> None:
    mistaken = identity("elsewhere.example")
    with pytest.raises(Refused) as refused:
        await mistaken.enrol(authority.enrol, authority.domain.clock.now())
    assert refused.value.code == Code.AUTHORITY_UNAVAILABLE
    assert f"spiffe://{DOMAIN}/guard/mail" in refused.value.reason
    assert mistaken.context is None


async def test_what_it_enrolled_with_is_in_use_until_it_is_due(authority: TestAuthority) -> None:
    enrolled, now = identity(DOMAIN), authority.domain.clock.now()
    await enrolled.enrol(authority.enrol, now)
    assert enrolled.context is not None
    assert not enrolled.due(now)
