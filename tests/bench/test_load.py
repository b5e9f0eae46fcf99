"""The load counts what it sent, checks every answer, ends by itself, and its tool server answers what was asked."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from bench.load import Load, LoadFault, Target
from bench.scrape import Stages
from bench.toolserver import Connection


@asynccontextmanager
async def _server(protocol: Callable[[], asyncio.Protocol]) -> AsyncIterator[Target]:
    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
    try:
        yield Target("here", server.sockets[0].getsockname()[1], "/mcp")
    finally:
        server.close()


@pytest.mark.parametrize("connections", [1, 5])
async def test_every_call_is_made_and_answered(connections: int) -> None:
    async with _server(Connection) as target:
        measured = await Load(target, connections, 203, 30).run()
    assert measured.calls == 203
    assert 0 < measured.percentile(0) <= measured.percentile(0.5) <= measured.percentile(0.99)
    assert measured.rate > 0


class _Same(asyncio.Protocol):
    """Answers every call as if it were one and the same."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")


class _Closing(_Same):
    def data_received(self, data: bytes) -> None:
        self.transport.close()


@pytest.mark.parametrize("wrong, said", [(_Same, "a wrong answer"), (_Closing, "was closed")])
async def test_what_is_no_answer_to_this_call_ends_the_load(
    wrong: Callable[[], asyncio.Protocol], said: str
) -> None:
    async with _server(wrong) as target:
        with pytest.raises(LoadFault, match=said):
            await Load(target, 2, 10, 30).run()


def test_stages_are_means_of_what_came_in_between() -> None:
    stages = ("parse", "decide", "credential", "record", "upstream")
    before = Stages(dict.fromkeys(stages, 1.0), dict.fromkeys(stages, 10.0))
    after = Stages(
        {"parse": 1.1, "decide": 1.2, "credential": 1.0, "record": 1.3, "upstream": 1.5},
        dict.fromkeys(stages, 20.0),
    )
    mean = after.since(before).per_call()
    assert mean["decide"] == pytest.approx(0.02)
    assert mean["upstream"] == pytest.approx(0.02)  # without the time that the record took
