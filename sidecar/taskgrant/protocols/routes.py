"""The catalogue's HTTP operations as routes: ``POST /tickets/{id}/comments`` matches three segments, one of them any.

Where one operation is a special case of another, it wins; where neither is, the catalogue is refused. One tool is one
operation.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from taskgrant.model.catalogue import Operation
from taskgrant.protocols.paths import PathFault, split_path
from taskgrant.protocols.strictjson import fold

_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_.-]*)\}")
_METHOD = re.compile(r"[A-Z]{1,20}")
_NEVER = frozenset({"TRACE", "CONNECT"})


class RouteFault(ValueError):
    """The catalogue's operations cannot be told apart, or say something that we cannot encode."""


@dataclass(frozen=True, slots=True)
class Route:
    """``segments`` are literals, or None where ``names`` has the placeholder of the same position."""

    operation: Operation
    segments: tuple[str | None, ...]
    names: tuple[str | None, ...]

    def match(self, segments: tuple[str, ...]) -> dict[str, str] | None:
        """The placeholders' values, or None."""
        if len(segments) != len(self.segments):
            return None
        values: dict[str, str] = {}
        for wanted, name, segment in zip(self.segments, self.names, segments, strict=True):
            if name is not None:
                values[name] = segment
            elif wanted != segment:
                return None
        return values

    @property
    def placeholders(self) -> frozenset[str]:
        return frozenset(name for name in self.names if name is not None)


@dataclass(frozen=True, slots=True)
class Routes:
    by_tool: Mapping[str, Route]
    by_method: Mapping[str, tuple[Route, ...]]

    def find(self, method: str, segments: tuple[str, ...]) -> tuple[Route, dict[str, str]] | None:
        for route in self.by_method.get(method, ()):
            if (values := route.match(segments)) is not None:
                return route, values
        return None


@lru_cache(maxsize=1024)
def compile_routes(operations: tuple[Operation, ...]) -> Routes:
    """Raises RouteFault. Configuration calls it before a socket is bound; after that it cannot fail."""
    by_tool: dict[str, Route] = {}
    by_method: dict[str, list[Route]] = {}
    for operation in operations:
        route = _route(operation)
        if operation.tool in by_tool:
            raise RouteFault(f"two operations are the tool {operation.tool!r}")
        for other in by_method.setdefault(operation.method, []):
            if _ambiguous(route.segments, other.segments):
                raise RouteFault(
                    f"{operation.method}: some paths match both {operation.path} and {other.operation.path}, "
                    "and neither is the more specific"
                )
        by_tool[operation.tool] = route
        by_method[operation.method].append(route)
    for routes in by_method.values():
        routes.sort(key=lambda route: tuple(name is not None for name in route.names))
    return Routes(by_tool, {method: tuple(routes) for method, routes in by_method.items()})


def _ambiguous(one: tuple[str | None, ...], other: tuple[str | None, ...]) -> bool:
    """Whether some path matches both, without one being a special case of the other: routers differ on those."""
    if len(one) != len(other):
        return False
    pairs = list(zip(one, other, strict=True))
    if any(mine is not None and yours is not None and mine != yours for mine, yours in pairs):
        return False
    return all(mine is not None or yours is None for mine, yours in pairs) == all(
        yours is not None or mine is None for mine, yours in pairs
    )


def _route(operation: Operation) -> Route:
    where = f"{operation.method} {operation.path}"
    if not _METHOD.fullmatch(operation.method) or operation.method in _NEVER:
        raise RouteFault(f"{where}: the method cannot be an operation")
    if operation.websocket and operation.method != "GET":
        raise RouteFault(f"{where}: a WebSocket is opened by GET")
    segments: list[str | None] = []
    names: list[str | None] = []
    for raw in operation.path.removeprefix("/").split("/") if operation.path != "/" else ():
        if (placeholder := _PLACEHOLDER.fullmatch(raw)) is not None:
            segments.append(None)
            names.append(placeholder.group(1))
            continue
        try:
            (literal,) = split_path("/" + raw)
        except (PathFault, ValueError):
            raise RouteFault(f"{where}: {raw!r} is neither a plain segment nor one placeholder") from None
        segments.append(literal)
        names.append(None)
    if not operation.path.startswith("/"):
        raise RouteFault(f"{where}: the path must begin with /")
    given = [name for name in names if name is not None] + list(operation.query)
    if len({fold(name) for name in given}) != len(given):
        raise RouteFault(f"{where}: two arguments have the same name")
    return Route(operation, tuple(segments), tuple(names))
