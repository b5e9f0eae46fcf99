"""What the control API can be asked, as values: method, path, body, and how to read the answer. Both
clients send them.

An answer that does not fit, and a problem document, raise ``errors.Refused`` with the problem's code.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Generic, TypeVar
from urllib.parse import quote, urlencode

from taskgrant.errors import Refused
from taskgrant.model import documents
from taskgrant.model.codes import Code
from taskgrant.model.credential import Enrolled, Issued
from taskgrant.model.decoding import decode
from taskgrant.model.event import Cursor, Ended, Scope, Verdict
from taskgrant.model.grant import Grant, GrantSpec
from taskgrant.model.json import JsonObject
from taskgrant.model.task import Outcome, Started, Task, TaskSpec
from taskgrant.model.trust import trust_environment

T = TypeVar("T")

#: A grant as a value, or as the document that the API takes.
AskedGrant = GrantSpec | Mapping[str, Any]

PROXY = "http://127.0.0.1:15001"


@dataclass(frozen=True, slots=True)
class Operation(Generic[T]):
    """One request and the reader of its answer. ``path`` includes the query; ``body`` is JSON to be, or
    None."""

    method: str
    path: str
    read: Callable[[bytes], T]
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def payload(self) -> bytes | None:
        return None if self.body is None else json.dumps(self.body, ensure_ascii=False).encode()

    @property
    def all_headers(self) -> dict[str, str]:
        given = {"Accept": "application/json, */*", **self.headers}
        return given if self.body is None else {"Content-Type": "application/json", **given}

    def answer(self, status: int, body: bytes) -> T:
        """Raises Refused for a problem, and for an answer that is not understood."""
        if not 200 <= status < 300:
            raise refusal(status, body)
        try:
            return self.read(body)
        except ValueError as error:
            detail = f"the answer to {self.method} {self.path} is not understood: {error}"
            raise Refused(Code.AUTHORITY_UNAVAILABLE, detail) from None


def refusal(status: int, body: bytes) -> Refused:
    """The problem document of an answer as an error; ``details`` hold ``errors`` and ``status``."""
    try:
        problem = decode(body)
    except ValueError:
        problem = None
    if not isinstance(problem, dict) or not isinstance(problem.get("code"), str):
        return Refused(Code.AUTHORITY_UNAVAILABLE, f"the control API answered {status} without saying why")
    detail = problem.get("detail") or problem.get("title") or f"refused with status {status}"
    return Refused(str(problem["code"]), str(detail), status=status, errors=problem.get("errors") or [])


def unreachable(socket: object, why: object) -> Refused:
    detail = (
        f"the control API on {socket} cannot be reached: {why}; is `taskgrant run` running, with this socket?"
    )
    return Refused(Code.AUTHORITY_UNAVAILABLE, detail, unreachable=True)


def _object(body: bytes) -> dict[str, Any]:
    value = decode(body)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def _reads(read: Callable[[Mapping[str, Any]], T]) -> Callable[[bytes], T]:
    return lambda body: read(_object(body))


def _nothing(body: bytes) -> None:
    return None


def _handle(document: Mapping[str, Any]) -> str:
    handle = document.get("handle")
    if not isinstance(handle, str):
        raise ValueError("no handle in it")
    return handle


def _grant_document(asked: AskedGrant) -> Mapping[str, Any]:
    return documents.grant_spec(asked) if isinstance(asked, GrantSpec) else asked


def _key(key: str | None) -> dict[str, str]:
    return {} if key is None else {"Idempotency-Key": key}


def _id(text: str) -> str:
    """One path segment; identifiers that could leave it are quoted, dots included."""
    return quote(text, safe="").replace(".", "%2E") if text.strip(".") == "" else quote(text, safe="")


def _page(path: str, after: str | None, limit: int) -> str:
    return f"{path}?{urlencode({'limit': limit, **({} if after is None else {'after': after})})}"


def task_request(purpose: str, grants: Sequence[AskedGrant], members: Mapping[str, Any]) -> dict[str, Any]:
    """The body that starts a task; members that are None are left out."""
    given = {name: value for name, value in members.items() if value is not None}
    return {"purpose": purpose, **given, "grants": [_grant_document(one) for one in grants]}


def start(asked: TaskSpec | Mapping[str, Any], key: str | None) -> Operation[Started]:
    body = documents.task_spec(asked) if isinstance(asked, TaskSpec) else asked
    return Operation("POST", "/v1/tasks", _reads(documents.read_started), body, _key(key))


def end(task: str, how: Outcome) -> Operation[Ended]:
    return Operation("POST", f"/v1/tasks/{_id(task)}/{how.value}", _reads(documents.read_ended))


def rotate(task: str) -> Operation[str]:
    return Operation("POST", f"/v1/tasks/{_id(task)}/handle", _reads(_handle))


def request(task: str, grants: Sequence[AskedGrant], key: str | None) -> Operation[tuple[Grant, ...]]:
    body = {"grants": [_grant_document(one) for one in grants]}
    path = f"/v1/tasks/{_id(task)}/grants"
    return Operation("POST", path, _reads(documents.read_grants), body, _key(key))


def show_task(task: str) -> Operation[tuple[Task, tuple[Grant, ...]]]:
    return Operation("GET", f"/v1/tasks/{_id(task)}", _reads(documents.read_task_with_grants))


def list_tasks(after: str | None, limit: int) -> Operation[tuple[Task, ...]]:
    return Operation("GET", _page("/v1/tasks", after, limit), _reads(documents.read_tasks))


def report(task: str) -> Operation[JsonObject]:
    return Operation("GET", f"/v1/tasks/{_id(task)}/report", _object)


def show_grant(grant: str) -> Operation[Grant]:
    return Operation("GET", f"/v1/grants/{_id(grant)}", _reads(documents.read_grant))


def list_grants(after: str | None, limit: int) -> Operation[tuple[Grant, ...]]:
    return Operation("GET", _page("/v1/grants", after, limit), _reads(documents.read_grants))


def judge_grant(grant: str, verdict: Verdict, reason: str) -> Operation[Ended]:
    path = f"/v1/grants/{_id(grant)}/{verdict.value}"
    return Operation("POST", path, _reads(documents.read_ended), {"reason": reason})


def freeze(what: Scope, verdict: Verdict, reason: str) -> Operation[Ended]:
    body = {**documents.scope(what), "reason": reason}
    return Operation("POST", f"/v1/{verdict.value}", _reads(documents.read_ended), body)


def acknowledge(subscriber: str, cursor: Cursor) -> Operation[None]:
    body = {"subscriber": subscriber, "cursor": str(cursor)}
    return Operation("POST", "/v1/events/ack", _nothing, body)


def events(after: Cursor | None, subscriber: str | None) -> Operation[None]:
    query = {} if subscriber is None else {"subscriber": subscriber}
    path = "/v1/events" + (f"?{urlencode(query)}" if query else "")
    resume = {} if after is None else {"Last-Event-ID": str(after)}
    return Operation("GET", path, _nothing, headers={"Accept": "text/event-stream", **resume})


def enrol(server: str, csr: bytes) -> Operation[Enrolled]:
    body = {"csr": documents.csr(csr)}
    return Operation("POST", f"/v1/guards/{_id(server)}/enrol", _reads(documents.read_enrolled), body)


def issue(task: str, audience: str, csr: bytes) -> Operation[Issued]:
    body = {"task": task, "audience": audience, "csr": documents.csr(csr)}
    return Operation("POST", "/v1/credentials", _reads(documents.read_issued), body)


def introspect(token: str, audience: str) -> Operation[JsonObject]:
    return Operation("POST", "/v1/introspect", _object, {"token": token, "audience": audience})


def jwks() -> Operation[JsonObject]:
    return Operation("GET", "/v1/jwks", _object)


def bundle() -> Operation[bytes]:
    return Operation("GET", "/v1/bundle", bytes)


def crl() -> Operation[bytes]:
    return Operation("GET", "/v1/crl", bytes)


def environment(handle: str | None, proxy: str, trust: PurePath | str | None = None) -> dict[str, str]:
    """What a subprocess needs to reach tools under a task: the proxy with the handle as its credentials.

    NO_PROXY is emptied, so that an inherited one cannot lead past the proxy. Without a handle (this answer
    was a replay), the proxy is named without credentials, which is enough where a sidecar runs one task at
    a time.

    ``trust`` is the sidecar's ``listen.trust_dir`` as the subprocess sees it. With it, https goes by the
    proxy too, and the variables that name trusted CAs are set. Without it HTTPS_PROXY is left alone: calls
    are sent as plain HTTP and leave the sidecar under mutual TLS.
    """
    url = proxy
    if handle is not None:
        scheme, _, rest = proxy.partition("://")
        url = f"{scheme}://task:{quote(handle, safe='')}@{rest}"
    variables = {"HTTP_PROXY": url, "http_proxy": url, "NO_PROXY": "", "no_proxy": ""}
    if trust is not None:
        variables |= {"HTTPS_PROXY": url, "https_proxy": url, **trust_environment(trust)}
    return variables if handle is None else {**variables, "TASKGRANT_TASK": handle}
