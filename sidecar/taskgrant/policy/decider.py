"""The ``Decider`` port on OPA. What cannot be decided is a denial.

``policy_unavailable`` when OPA does not answer in time; ``policy_error`` when it answers with an error or with anything
that is no answer. An agent can cause the latter (with an argument that a builtin chokes on), so it says nothing about
OPA's health.
"""

import logging
import secrets
from collections.abc import Sequence

from taskgrant.errors import Refused
from taskgrant.model.codes import Code
from taskgrant.model.decision import Admission, Admitted, Ask, Decision, Query
from taskgrant.model.egress import (
    EgressAction,
    EgressConnection,
    EgressDecision,
    EgressQuery,
    EgressRequest,
)
from taskgrant.model.grant import Grant
from taskgrant.model.task import Task
from taskgrant.model.time import Instant
from taskgrant.policy.client import OpaClient, OpaFault, OpaUnavailable
from taskgrant.policy.decisions import read_admitted, read_decision, read_egress, read_visible
from taskgrant.policy.documents import (
    MAX_VALUES,
    authz_input,
    egress_input,
    grants_input,
    oversized,
    visible_input,
)

_log = logging.getLogger(__name__)

_REASONS = {
    Code.POLICY_UNAVAILABLE: "policy cannot be asked at the moment",
    Code.POLICY_ERROR: "policy could not decide this",
}

_TOO_LARGE = f"the call holds more than {MAX_VALUES} values"


class OpaDecider:
    """Decides by asking OPA. ``revision`` names the policy that it has loaded."""

    def __init__(self, client: OpaClient, revision: str) -> None:
        self._client = client
        self.revision = revision

    async def decide(self, query: Query) -> Decision:
        """Never raises."""
        identity = _new_id()
        call = query.call
        if oversized(call.arguments, call.meta, call.params):
            return Decision(
                False, Code.TOO_LARGE, (_TOO_LARGE,), decision_id=identity, revision=self.revision
            )
        try:
            reply = await self._client.ask("taskgrant/authz", "decision", authz_input(query))
            identity = reply.decision_id or identity
            return read_decision(reply.result, identity, self.revision)
        except Exception as error:
            code = _code(error, identity)
            return Decision(False, code, (_REASONS[code],), decision_id=identity, revision=self.revision)

    async def visible(
        self, task: Task, grants: Sequence[Grant], server: str, tools: Sequence[str], now: Instant
    ) -> frozenset[str]:
        """Raises ``errors.Refused`` when OPA cannot say."""
        identity = _new_id()
        try:
            reply = await self._client.ask(
                "taskgrant/visible", "tools", visible_input(task, grants, server, tools, now)
            )
            return read_visible(reply.result) & frozenset(tools)
        except Exception as error:
            code = _code(error, identity)
            raise Refused(code, _REASONS[code], decision_id=identity) from error

    async def egress(self, query: EgressQuery) -> EgressDecision:
        """Never raises."""
        identity = _new_id()
        about = query.about
        connecting = isinstance(about, EgressConnection)
        if isinstance(about, EgressRequest) and oversized(about.visible, about.members, about.query):
            reason = f"what policy sees of the request holds more than {MAX_VALUES} values"
            return EgressDecision(EgressAction.REFUSE, Code.TOO_LARGE, (reason,), identity, self.revision)
        try:
            reply = await self._client.ask("taskgrant/egress", "decision", egress_input(query))
            identity = reply.decision_id or identity
            return read_egress(reply.result, connecting, identity, self.revision)
        except Exception as error:
            code = _code(error, identity)
            return EgressDecision(EgressAction.REFUSE, code, (_REASONS[code],), identity, self.revision)

    async def admit(self, ask: Ask) -> Admitted:
        """Never raises."""
        identity = _new_id()
        try:
            reply = await self._client.ask("taskgrant/grants", "decision", grants_input(ask))
            identity = reply.decision_id or identity
            return read_admitted(reply.result, identity, self.revision)
        except Exception as error:
            code = _code(error, identity)
            return Admitted(
                Admission.DENY, (), (_REASONS[code],), code=code, decision_id=identity, revision=self.revision
            )


def _new_id() -> str:
    return "decision-" + secrets.token_hex(8)


def _code(error: Exception, identity: str) -> Code:
    """The code of a question without an answer. What OPA said goes to our log, not to the agent."""
    if isinstance(error, OpaUnavailable):
        _log.warning("%s: %s", identity, error)
        return Code.POLICY_UNAVAILABLE
    _log.error(
        "%s: %s", identity, error, exc_info=None if isinstance(error, OpaFault | ValueError) else error
    )
    return Code.POLICY_ERROR
