"""Which answer belongs to which request, when several share one pair of pipes: pure.

Over HTTP each request has its answer's stream, and two clients of a task may use one id at the same time. Over stdio
there is one stream, told apart by ids. So each request goes to the server under an id of ours, which is its progress
token too if it has one, and what comes back is given the client's own again::

    client  {"id": 1, "method": "tools/call", "params": {"_meta": {"progressToken": "a"}, …}}
    server  {"id": 17, "method": "tools/call", "params": {"_meta": {"progressToken": 17}, …}}
    server  {"method": "notifications/progress", "params": {"progressToken": 17, …}}    → "a", request 1
    server  {"id": 17, "result": {…}}                                                   → id 1, and it is over
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from taskgrant.model.json import Json, JsonObject

_PROGRESS = "notifications/progress"
CANCELLED = "notifications/cancelled"


class Place(StrEnum):
    """Where a message of the server belongs."""

    ANSWER = "answer"  # to the request, which is over with it
    WITHIN = "within"  # to the request, which goes on
    BESIDE = "beside"  # to no request in particular
    NOWHERE = "nowhere"  # about a request that is over


@dataclass(frozen=True, slots=True)
class Routed:
    place: Place
    token: int
    message: JsonObject


@dataclass(frozen=True, slots=True)
class _Open:
    id: Json
    progress: Json  # None when the client asked for none: a token is a string or a number


class Exchanges:
    """The requests that wait for an answer, by our id for them."""

    def __init__(self) -> None:
        self._last = 0
        self._open: dict[int, _Open] = {}

    def __len__(self) -> int:
        return len(self._open)

    def open(self, request: JsonObject) -> tuple[int, JsonObject]:
        """Our id for a request of the client, and the request as the server gets it."""
        self._last = token = self._last + 1
        params = request.get("params")
        meta = params.get("_meta") if isinstance(params, Mapping) else None
        progress = meta.get("progressToken") if isinstance(meta, Mapping) else None
        sent: dict[str, Json] = {**request, "id": token}
        if progress is not None and isinstance(params, Mapping) and isinstance(meta, Mapping):
            sent["params"] = {**params, "_meta": {**meta, "progressToken": token}}
        self._open[token] = _Open(request.get("id"), progress)
        return token, sent

    def close(self, token: int) -> bool:
        """Nobody waits for the answer any more. False when it has been given."""
        return self._open.pop(token, None) is not None

    def notice(self, message: JsonObject) -> JsonObject | None:
        """A notification of the client as the server gets it; None when it cancels what is not open."""
        params = message.get("params")
        if message.get("method") != CANCELLED or not isinstance(params, Mapping):
            return message
        for token, one in self._open.items():
            if one.id == params.get("requestId") and type(one.id) is type(params.get("requestId")):
                return {**message, "params": {**params, "requestId": token}}
        return None

    def newest(self) -> int | None:
        return next(reversed(self._open), None)

    def route(self, message: JsonObject) -> Routed:
        """Where a message of the server belongs, and the message as the client gets it."""
        method, params = message.get("method"), message.get("params")
        if method is None:
            token = message.get("id")
            one = self._open.pop(token, None) if type(token) is int else None
            if one is None or type(token) is not int:
                return Routed(Place.NOWHERE, 0, message)
            return Routed(Place.ANSWER, token, {**message, "id": one.id})
        if method == _PROGRESS and isinstance(params, Mapping):
            token = params.get("progressToken")
            one = self._open.get(token) if type(token) is int else None
            if one is None or one.progress is None or type(token) is not int:
                return Routed(Place.NOWHERE, 0, message)
            restored = {**message, "params": {**params, "progressToken": one.progress}}
            return Routed(Place.WITHIN, token, restored)
        return Routed(Place.BESIDE, 0, message)
