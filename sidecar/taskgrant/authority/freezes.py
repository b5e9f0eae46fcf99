"""The kill switch: what is frozen, and what that covers. Lifting a freeze revives nothing that it ended."""

from collections.abc import Iterable, Iterator

from taskgrant.errors import Refused
from taskgrant.model.codes import Code
from taskgrant.model.event import Scope, ScopeKind
from taskgrant.model.task import Task


class Freezes:
    def __init__(self, scopes: Iterable[Scope] = ()) -> None:
        self._scopes = dict.fromkeys(scopes, 0)
        self._marks = 0

    def __iter__(self) -> Iterator[Scope]:
        return iter(sorted(self._scopes, key=lambda scope: (scope.kind.value, scope.id)))

    def add(self, scope: Scope) -> None:
        self._marks += 1
        self._scopes[scope] = self._marks

    def mark(self, scope: Scope) -> int | None:
        """Tells this freeze from a later one of the same scope; None when the scope is not frozen."""
        return self._scopes.get(scope)

    def remove(self, scope: Scope, mark: int) -> bool:
        """Lifts the freeze, unless the scope was frozen again since it was marked."""
        if self._scopes.get(scope) != mark:
            return False
        del self._scopes[scope]
        return True

    def covers_task(self, task: Task) -> bool:
        return bool(self._scopes) and any(covers_task(scope, task) for scope in self._scopes)

    def covers_all(self) -> bool:
        """Whether the agent is frozen whatever its task, and so without one too: an authority has one agent."""
        return any(scope.kind in (ScopeKind.ALL, ScopeKind.AGENT) for scope in self._scopes)

    def covers_tool(self, server: str, tool: str | None) -> bool:
        """``tool`` of None asks for the server as a whole."""
        if not self._scopes:
            return False
        return Scope(ScopeKind.TOOL, server) in self._scopes or (
            tool is not None and Scope(ScopeKind.TOOL, f"{server}/{tool}") in self._scopes
        )

    def check(self, task: Task, tools: Iterable[tuple[str, str | None]] = ()) -> None:
        """Raises ``Refused`` (frozen) when the task or one of its tools is frozen."""
        if self.covers_task(task):
            raise Refused(Code.FROZEN, "an administrator has frozen this agent, task or session")
        for server, tool in tools:
            if self.covers_tool(server, tool):
                raise Refused(Code.FROZEN, f"an administrator has frozen {server}/{tool}")


def covers_task(scope: Scope, task: Task) -> bool:
    """Whether the scope takes in the whole task."""
    match scope.kind:
        case ScopeKind.ALL:
            return True
        case ScopeKind.AGENT:
            return scope.id == task.agent
        case ScopeKind.TASK:
            return scope.id == task.id
        case ScopeKind.SESSION:
            return scope.id == task.session
        case ScopeKind.TOOL | ScopeKind.GRANT:
            return False


def check_scope(scope: Scope) -> None:
    """Raises ``Refused`` (invalid) for a scope that says nothing, or too much."""
    if (scope.kind is ScopeKind.ALL) != (scope.id == ""):
        raise Refused(Code.INVALID, f"the scope {scope.kind.value!r} needs {'no' if scope.id else 'an'} id")
