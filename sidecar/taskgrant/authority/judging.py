"""Verdicts of people and of orchestrators: approve, reject, revoke, freeze, unfreeze; and who may give them."""

from taskgrant.authority import effects as fx
from taskgrant.authority import lifecycle
from taskgrant.authority.engine import Engine
from taskgrant.authority.freezes import check_scope, covers_task
from taskgrant.authority.lifecycle import Step, TaskLife
from taskgrant.authority.revocation import Revoker
from taskgrant.authority.store import statements
from taskgrant.errors import Refused
from taskgrant.model.codes import Code
from taskgrant.model.event import Ended, EventKind, Scope, ScopeKind, Verdict
from taskgrant.model.grant import Grant, GrantState
from taskgrant.model.ids import GrantId, TaskId
from taskgrant.model.json import JsonObject
from taskgrant.model.principal import Principal, Role
from taskgrant.model.record import Record
from taskgrant.model.time import Instant


def require(by: Principal, *roles: Role) -> None:
    """Raises ``Refused`` (forbidden) when the principal has none of the roles."""
    if not any(by.has(role) for role in roles):
        names = " or ".join(role.value for role in roles)
        raise Refused(Code.FORBIDDEN, f"{by.id} is no {names}")


class Judge:
    def __init__(self, engine: Engine, revoker: Revoker) -> None:
        self._engine = engine
        self._revoker = revoker

    async def judge(self, what: Scope, verdict: Verdict, by: Principal, reason: str) -> Ended:
        self._engine.check_fence()
        check_scope(what)
        match verdict:
            case Verdict.APPROVE:
                return await self._approve(self._grant(what), by)
            case Verdict.REJECT:
                return await self._reject(self._grant(what), by, reason)
            case Verdict.REVOKE:
                return await self._revoke(what, by, reason)
            case Verdict.FREEZE:
                return await self._freeze(what, by, reason)
            case Verdict.UNFREEZE:
                return await self._unfreeze(what, by)

    def _grant(self, what: Scope) -> Grant:
        if what.kind is not ScopeKind.GRANT:
            raise Refused(Code.INVALID, "only grants are approved and rejected")
        grant_id = GrantId(what.id)
        return self._owner(grant_id).grants[grant_id]

    def _owner(self, grant: GrantId) -> TaskLife:
        life = self._engine.registry.of_grant(grant)
        if life is None:
            raise Refused(Code.NOT_FOUND, "there is no such grant of a live task")
        return life

    # --- people --------------------------------------------------------------------------------------------------

    def _may_judge(self, grant: Grant, by: Principal) -> None:
        require(by, Role.APPROVER)
        if by.id == grant.requested_by:
            raise Refused(Code.FORBIDDEN, "nobody approves or rejects what they asked for")
        if grant.approvers and by.id not in grant.approvers:
            raise Refused(Code.FORBIDDEN, "policy names other approvers for this grant")

    async def _approve(self, grant: Grant, by: Principal) -> Ended:
        self._may_judge(grant, by)
        freezes, life = self._engine.freezes, self._owner(grant.id)

        def allowed() -> None:
            freezes.check(life.task, [(grant.server, tool) for tool in grant.tools])

        allowed()
        await self._engine.permit(grant.task, fx.Approved(grant.id, by.id), allowed=allowed)
        now = self._engine.clock.now()
        return Ended(now, now, grants=(grant.id,))

    async def _reject(self, grant: Grant, by: Principal, reason: str) -> Ended:
        self._may_judge(grant, by)
        event = fx.Rejected(grant.id, by.id, reason)
        step = lifecycle.apply(self._owner(grant.id), event, self._engine.clock.now())
        return await self._revoker.carry([step], reason or "rejected")

    # --- revoking ------------------------------------------------------------------------------------------------

    async def _revoke(self, what: Scope, by: Principal, reason: str) -> Ended:
        require(by, Role.ADMIN, Role.ORCHESTRATOR)
        reason = reason or f"revoked by {by.id}"
        now = self._engine.clock.now()
        if what.kind is ScopeKind.GRANT:
            life = self._owner(GrantId(what.id))
            self._may_end(life, by)
            steps = [lifecycle.apply(life, fx.Revoked(by.id, reason, frozenset({GrantId(what.id)})), now)]
        elif what.kind is ScopeKind.TASK:
            life = self._engine.registry.require(TaskId(what.id))
            self._may_end(life, by)
            steps = [lifecycle.apply(life, fx.Revoked(by.id, reason), now)]
        else:
            require(by, Role.ADMIN)
            steps = self._ends(what, by, reason, now)
        return await self._revoker.carry(steps, reason, scope=what)

    def _may_end(self, life: TaskLife, by: Principal) -> None:
        if not by.has(Role.ADMIN) and by.id != life.task.created_by:
            raise Refused(Code.FORBIDDEN, f"the task is not {by.id}'s")

    def _ends(self, what: Scope, by: Principal, reason: str, now: Instant) -> list[Step]:
        """The ends of everything live that the scope covers."""
        steps = []
        for life in tuple(self._engine.registry.lives.values()):
            if covers_task(what, life.task):
                steps.append(lifecycle.apply(life, fx.Revoked(by.id, reason), now))
            elif what.kind is ScopeKind.TOOL:
                hit = frozenset(grant.id for grant in life.grants.values() if _uses(grant, what.id))
                if hit:
                    steps.append(lifecycle.apply(life, fx.Revoked(by.id, reason, hit), now))
        return steps

    # --- freezing ------------------------------------------------------------------------------------------------

    async def _freeze(self, what: Scope, by: Principal, reason: str) -> Ended:
        require(by, Role.ADMIN)
        if what.kind is ScopeKind.GRANT:
            raise Refused(Code.INVALID, "a grant is revoked, not frozen")
        reason = reason or f"frozen by {by.id}"
        now = self._engine.clock.now()
        self._engine.freezes.add(what)
        fields: JsonObject = {"kind": what.kind.value, "id": what.id, "by": by.id, "reason": reason}
        return await self._revoker.carry(
            self._ends(what, by, reason, now),
            reason,
            extra=[statements.freeze(what)],
            records=[Record("freeze.set", now, fields)],
            publish=[fx.Publish(EventKind.FREEZE, {"kind": what.kind.value, "id": what.id, "frozen": True})],
            sync=True,  # a kill switch has to outlive a power cut
            scope=what,
        )

    async def _unfreeze(self, what: Scope, by: Principal) -> Ended:
        require(by, Role.ADMIN)
        freezes = self._engine.freezes
        mark = freezes.mark(what)
        if mark is None:
            raise Refused(Code.CONFLICT, "that is not frozen")
        now = self._engine.clock.now()
        record = Record("freeze.lifted", now, {"kind": what.kind.value, "id": what.id, "by": by.id})
        try:
            await self._engine.store.writer.submit([statements.unfreeze(what)], [record])
        except BaseException:
            self._engine.store.writer.owe([statements.freeze(what)])  # it holds on, here and in the database
            raise
        if not freezes.remove(what, mark):
            raise Refused(Code.CONFLICT, "that was frozen again meanwhile")
        self._engine.events.publish(
            EventKind.FREEZE, {"kind": what.kind.value, "id": what.id, "frozen": False}
        )
        now = self._engine.clock.now()
        return Ended(now, now)


def _uses(grant: Grant, tool: str) -> bool:
    """Whether a grant that is not over names the tool, ``server`` or ``server/tool``."""
    if not (grant.state.live or grant.state is GrantState.PENDING):
        return False
    return tool == grant.server or any(tool == f"{grant.server}/{each}" for each in grant.tools)
