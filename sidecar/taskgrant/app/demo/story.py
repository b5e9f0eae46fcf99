"""The demo's story, told by an agent that is an unmodified MCP client, connected once, and its orchestrator."""

import asyncio
import json
import signal
import ssl
from typing import Any

import aiohttp
from mcp import Client

from taskgrant.app.audit import tail, verify
from taskgrant.app.demo.stage import SERVER, Stage, stage
from taskgrant.app.demo.telling import Telling
from taskgrant.client import TaskgrantClient
from taskgrant.errors import TaskgrantError
from taskgrant.identity.contexts import client_context
from taskgrant.identity.csr import new_key
from taskgrant.identity.spiffe import agent_id, guard_dns
from taskgrant.model.catalogue import MODERN_MCP_VERSION
from taskgrant.model.credential import Issued

_ALICE = "alice@example.org"
_MALLORY = "mallory@evil.example"
_PAGES = 100
_STOPPED_SECONDS = 10
_MCP = "io.modelcontextprotocol"

_GRANTS: list[dict[str, Any]] = [
    {
        "server": SERVER,
        "tools": ["send_mail"],
        "arguments": {
            "properties": {"to": {"enum": [_ALICE]}, "subject": {"type": "string", "maxLength": 80}},
            "required": ["to", "subject"],
        },
        "max_uses": 1,
        "expires_in": 300,
        "reason": "answer the reporter",
    },
    {
        "server": SERVER,
        "tools": ["read_ticket", "export_tickets"],
        "arguments": {
            "properties": {"number": {"type": "integer"}, "pages": {"type": "integer", "maximum": _PAGES}}
        },
        "expires_in": 300,
        "reason": "work on the queue",
    },
]


def play() -> int:
    telling = Telling()
    # However we are asked to end (Ctrl-C, a signal, a terminal that closes), what was started ends with us: also where
    # a shell has us ignore Ctrl-C, as it does with what runs in the background of a script.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        telling.note("starting a tool server, a guard in front of it, and the sidecar with its OPA …")
        with stage() as parts:
            asyncio.run(Story(parts, telling).tell())
    except KeyboardInterrupt:
        telling.console.print("\ninterrupted; everything that was started has been stopped")
        return 130
    except TaskgrantError as fault:
        telling.fail(str(fault))
        return 1
    telling.console.print()
    if telling.differences:
        telling.console.print(
            f"[bold red]{telling.differences} differences between what was expected and seen[/bold red]"
        )
        return 1
    telling.console.print("[bold green]Everything that was seen is what was expected.[/bold green]")
    return 0


class Story:
    def __init__(self, parts: Stage, telling: Telling) -> None:
        self._stage = parts
        self._telling = telling

    async def tell(self) -> None:
        async with (
            TaskgrantClient(self._stage.control) as orchestrator,
            Client(self._stage.endpoint) as agent,
        ):
            await self._no_task(agent)
            task = await self._granted(orchestrator, agent)
            await self._allowed(agent)
            await self._injected(agent)
            await self._used_up(agent)
            copied = await self._copied(orchestrator, task)
            await self._cut(orchestrator, agent, task)
            await self._replayed(copied)
            second = await self._again(orchestrator, agent)
            await self._accounted(orchestrator, (task, second))

    # -- the steps ---------------------------------------------------------------------------------------------

    async def _no_task(self, agent: Client) -> None:
        self._telling.step("The agent connects. It has no task, so it has nothing.")
        self._telling.check("tools that it sees", [], await _tools(agent))
        await self._try("a call of read_ticket", "no_task", agent, "read_ticket", {"number": 7})

    async def _granted(self, orchestrator: TaskgrantClient, agent: Client) -> str:
        self._telling.step("The orchestrator starts a task with two grants.")
        started = await orchestrator.start(
            {"purpose": "answer ticket 7", "grants": _GRANTS, "expires_in": 600}
        )
        for grant in started.grants:
            uses = "any number of uses" if grant.max_uses is None else f"uses: {grant.max_uses}"
            self._telling.note(f"{grant.id}: {', '.join(grant.tools)}; {uses}")
        expected = ["export_tickets", "read_ticket", "send_mail"]
        self._telling.check("tools that the same connection sees now", expected, await _tools(agent))
        return started.task.id

    async def _allowed(self, agent: Client) -> None:
        self._telling.step("It does its work. Only now is a credential minted, for this task alone.")
        await self._try("read_ticket 7", "allowed", agent, "read_ticket", {"number": 7})
        shown = str(self._stage.journal()[-1]["serial"])
        issued = [record["serial"] for record in self._audit() if record["event"] == "credential.issued"]
        self._telling.note(f"the tool server was shown the certificate {shown}")
        self._telling.check("certificates issued that have that serial", 1, issued.count(shown))

    async def _injected(self, agent: Client) -> None:
        self._telling.step("A ticket carries an injected instruction, and the agent obeys it.")
        await self._try("read_ticket 8", "allowed", agent, "read_ticket", {"number": 8})
        before = len(self._stage.journal())
        mail = {"to": _MALLORY, "subject": "all tickets"}
        await self._try("send_mail to mallory", "arguments_refused", agent, "send_mail", mail)
        await self._try("delete_tickets", "no_grant", agent, "delete_tickets", {})
        reached = len(self._stage.journal()) - before
        self._telling.check("of these two calls, the tool server has seen", 0, reached)

    async def _used_up(self, agent: Client) -> None:
        self._telling.step("A grant of one use is used once.")
        mail = {"to": _ALICE, "subject": "your ticket"}
        await self._try("the first send_mail to alice", "allowed", agent, "send_mail", mail)
        await self._try("the second", "uses_exhausted", agent, "send_mail", mail)
        sent = [call for call in self._stage.journal() if call["tool"] == "send_mail"]
        self._telling.check("mails that the tool server sent", 1, len(sent))

    async def _copied(self, orchestrator: TaskgrantClient, task: str) -> "Copy":
        self._telling.step(
            "Suppose that somebody copies a certificate with its key, and the token bound to it."
        )
        key = new_key()
        issued = await orchestrator.issue(
            task, SERVER, key.csr(agent_id(self._stage.trust_domain, "researcher"))
        )
        copy = Copy(self._stage, issued, client_context(issued.certificate, key, issued.bundle))
        self._telling.check("while the task runs, the guard's status is", 200, await copy.replay())
        return copy

    async def _cut(self, orchestrator: TaskgrantClient, agent: Client, task: str) -> None:
        self._telling.step("The task completes while a slow tool is still streaming.")
        streaming = asyncio.Event()

        async def progress(page: float, total: float | None, message: str | None) -> None:
            if page >= 2:
                streaming.set()

        async with asyncio.TaskGroup() as running:
            call = running.create_task(self._call(agent, "export_tickets", {"pages": _PAGES}, progress))
            await asyncio.wait_for(streaming.wait(), 30)
            self._telling.note(
                f"export_tickets is at page 2 of {_PAGES}; the orchestrator completes the task"
            )
            ended = await orchestrator.complete(task)
        code, said = call.result()
        self._telling.check("guards that have not acknowledged it", [], list(ended.unacknowledged))
        self._telling.check("the streaming call ends", "outcome_unknown", code)
        self._telling.quote(said)
        self._telling.check(f"the tool was stopped before page {_PAGES}", True, await self._stopped())
        self._telling.check("tools that the agent sees now", [], await _tools(agent))
        await self._try("a call of read_ticket", "no_task", agent, "read_ticket", {"number": 7})

    async def _stopped(self) -> bool:
        """Whether the tool itself has noted, soon, that its work was given up."""
        try:
            async with asyncio.timeout(_STOPPED_SECONDS):
                while not any(entry.get("stopped") for entry in self._stage.journal()):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)  # another process writes it
        except TimeoutError:
            return False
        return all(entry.get("page") != _PAGES for entry in self._stage.journal())

    async def _replayed(self, copied: "Copy") -> None:
        self._telling.step("The copy is replayed at the guard, past the sidecar.")
        self._telling.check("the guard's status is", 401, await copied.replay())
        self._telling.note(f"it says: {copied.said}")

    async def _again(self, orchestrator: TaskgrantClient, agent: Client) -> str:
        self._telling.step("A second task, on the connection that the agent has had all along.")
        spec = {"purpose": "answer ticket 8", "grants": [{**_GRANTS[1], "max_uses": 2}], "expires_in": 600}
        started = await orchestrator.start(spec)
        self._telling.check("tools that it sees", ["export_tickets", "read_ticket"], await _tools(agent))
        await self._try("read_ticket 8", "allowed", agent, "read_ticket", {"number": 8})
        serials = {str(call["serial"]) for call in self._stage.journal()}
        self._telling.check("certificates that the tool server has been shown, one a task", 2, len(serials))
        await orchestrator.complete(started.task.id)
        return started.task.id

    async def _accounted(self, orchestrator: TaskgrantClient, tasks: tuple[str, ...]) -> None:
        self._telling.step("Everything is on record.")
        rows = [
            (str(record.get("tool", "")), str(record["code"]), str(record.get("grant", ""))[-12:])
            for record in self._audit()
            if record["event"] == "call.decided" and record.get("tool")
        ]
        self._telling.table(
            "decisions on tool calls, from the audit trail", ("tool", "code", "grant …"), rows
        )
        used = [row for task in tasks for row in await _used(orchestrator, task)]
        self._telling.table("granted against used", ("task …", "tools", "granted", "used"), used)
        self._telling.check("the chain of the audit trail is unbroken", True, verify(self._stage.audit).ok)

    # -- how they are done -------------------------------------------------------------------------------------

    async def _try(
        self, what: str, expected: str, agent: Client, tool: str, arguments: dict[str, Any]
    ) -> None:
        """A call, how it ended, and the text of a denial."""
        code, said = await self._call(agent, tool, arguments)
        self._telling.check(what, expected, code)
        if code != "allowed":
            self._telling.quote(said)

    async def _call(
        self, agent: Client, tool: str, arguments: dict[str, Any], progress: Any = None
    ) -> tuple[str, str]:
        """Calls a tool as any client does: "allowed" or the code of the denial, and the text that came back."""
        result = await agent.call_tool(tool, arguments, progress_callback=progress)
        code = (result.meta or {}).get("taskgrant/code", "allowed")
        return str(code), getattr(result.content[0], "text", "")

    def _audit(self) -> list[dict[str, Any]]:
        return list(tail(self._stage.audit, follow=False))


class Copy:
    """A credential outside of the sidecar, with its key: what a thief would have."""

    def __init__(self, parts: Stage, issued: Issued, context: ssl.SSLContext) -> None:
        self._stage = parts
        self._issued = issued
        self._context = context
        self.said = ""

    async def replay(self) -> int:
        """Lists the tools at the guard with the copied credential; the status of its answer."""
        meta = {f"{_MCP}/protocolVersion": MODERN_MCP_VERSION, f"{_MCP}/clientCapabilities": {}}
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": meta}}
        headers = {
            "authorization": f"Bearer {self._issued.token}",
            "accept": "application/json, text/event-stream",
            "mcp-protocol-version": MODERN_MCP_VERSION,
            "mcp-method": "tools/list",
        }
        name = guard_dns(self._stage.trust_domain, SERVER)
        url = f"https://127.0.0.1:{self._stage.guard_port}/mcp"
        async with aiohttp.ClientSession() as session:
            asked = session.post(url, json=body, headers=headers, ssl=self._context, server_hostname=name)
            async with asked as answer:
                self.said = _detail(await answer.text())
                return answer.status


def _detail(body: str) -> str:
    """What a problem document says (RFC 9457); any other body as it is."""
    try:
        problem = json.loads(body)
        return f"{problem['detail']} ({problem['code']})"
    except (ValueError, LookupError, TypeError):
        return body.strip()


async def _tools(agent: Client) -> list[str]:
    return sorted(tool.name for tool in (await agent.list_tools()).tools)


async def _used(orchestrator: TaskgrantClient, task: str) -> list[tuple[str, ...]]:
    """A task's grants: what each allowed, and what was used of it."""
    _, grants = await orchestrator.show_task(task)
    return [
        (task[-12:], ", ".join(grant.tools), str(grant.max_uses or "any number"), str(grant.used))
        for grant in grants
    ]
