"""The real client of the `mcp` package against our codec and answers: every request that it makes is understood."""

from dataclasses import replace

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from taskgrant.model.call import Answer, Call, Head, Kind, Malformed, Refusal
from taskgrant.model.catalogue import MCP_VERSIONS, Server
from taskgrant.model.codes import Code
from taskgrant.protocols.framing import check_head
from taskgrant.protocols.mcp import answers
from tests.protocols.mcp.support import CODEC, LEGACY, MODERN, SERVER


class Sidecar:
    """Answers as a sidecar without a task does: it has no tools, and refuses every call."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.seen: list[Call] = []

    async def __call__(self, request: httpx2.Request) -> httpx2.Response:
        head = check_head(request.method, request.url.raw_path.decode(), (1, 1), request.headers.raw)
        assert isinstance(head, Head), head
        parsed = CODEC.parse(self.server, head, await request.aread())
        answer = self.answer(parsed)
        headers = {**dict(answer.headers), "content-type": answer.content_type}
        return httpx2.Response(answer.status, headers=headers, content=answer.body)

    def answer(self, parsed: Call | Malformed) -> Answer:
        if isinstance(parsed, Malformed):
            return CODEC.refuse(parsed, Refusal(parsed.code, parsed.detail))
        self.seen.append(parsed)
        if parsed.action == "initialize":
            return answers.initialize(parsed, self.server, session_id="session-1")
        if parsed.action == "server/discover":
            return answers.discover(parsed, self.server)
        if parsed.action == "DELETE":
            return answers.session_ended()
        if parsed.kind is Kind.NOTICE:
            return answers.accepted()
        if parsed.kind is Kind.LIST:
            return answers.empty_list(parsed)
        if parsed.kind is Kind.SESSION:
            return answers.pong(parsed)
        return CODEC.refuse(parsed, Refusal(Code.NO_TASK, "no task is running", can_ask=False))


@pytest.mark.parametrize(
    ("versions", "spoken"),
    [((), LEGACY), ((LEGACY,), LEGACY), (MCP_VERSIONS, MODERN), ((MODERN,), MODERN)],
    ids=["unknown", "legacy", "both", "modern"],
)
async def test_an_unmodified_client_gets_the_era_that_the_server_speaks(versions, spoken):
    sidecar = Sidecar(replace(SERVER, versions=versions))
    async with httpx2.AsyncClient(transport=httpx2.MockTransport(sidecar)) as http:
        transport = streamable_http_client(SERVER.upstream, http_client=http)
        async with Client(transport) as client:
            assert (await client.list_tools()).tools == []
            result = await client.call_tool("send", {"to": "a@example.org", "größe": 1})
    assert result.is_error
    assert result.content[0].text.startswith('"send" was refused: no task is running.')  # type: ignore[union-attr]
    (sent,) = [call for call in sidecar.seen if call.kind is Kind.TOOL]
    assert (sent.tool, sent.arguments) == ("send", {"to": "a@example.org", "größe": 1})
    assert sent.version == spoken
    assert sent.session == (None if spoken == MODERN else "session-1")
