"""HTTP as Go's server writes it is read however it arrives; what is anything else, or another's answer, never is."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from taskgrant.policy.session import UnixSession


class Told(Exception):
    pass


class Server:
    """Answers each request with the next of ``answers``, byte strings that are written one after the other."""

    def __init__(self, answers: Sequence[Sequence[bytes]]) -> None:
        self.answers = list(answers)
        self.requests: list[bytes] = []
        self.connections = 0
        self.written = asyncio.Event()
        self.ended = asyncio.Semaphore(0)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.partition(b"Content-Length: ")[2].split(b"\r\n")[0])
                self.requests.append(head + await reader.readexactly(length))
                for piece in self.answers.pop(0):
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
                self.written.set()
        except (asyncio.IncompleteReadError, ConnectionError, IndexError):
            writer.close()
            self.ended.release()


@asynccontextmanager
async def _session(socket: Path, *answers: Sequence[bytes]) -> AsyncIterator[tuple[UnixSession, Server]]:
    server = Server(answers)
    listener = await asyncio.start_unix_server(server.serve, socket)
    session = UnixSession(socket, Told)
    try:
        yield session, server
    finally:
        await session.close()
        for _ in range(server.connections):
            await server.ended.acquire()
        listener.close()
        await listener.wait_closed()


OK = b'HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{"result": 1}'
CHUNKED = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n{"result\r\n5\r\n": 1}\r\n0\r\n\r\n'


@pytest.mark.parametrize("whole", [OK, CHUNKED])
async def test_an_answer_in_one_piece_and_byte_by_byte(tmp_path: Path, whole: bytes) -> None:
    single = [whole[at : at + 1] for at in range(len(whole))]
    async with _session(tmp_path / "s", [whole], single, [whole]) as (session, server):
        for _ in range(3):
            response = await session.request("POST", "http://opa:80/v1/data/p/r?a=true", json={"x": "é"})
            response.raise_for_status()
            assert await response.json() == {"result": 1}
    assert server.connections == 1
    assert server.requests[0].startswith(b"POST /v1/data/p/r?a=true HTTP/1.1\r\nHost: opa\r\n")
    assert server.requests[0].endswith(b'{"x":"\\u00e9"}')


async def test_an_error_has_its_status_and_body(tmp_path: Path) -> None:
    bad = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 3\r\n\r\nwhy"
    async with _session(tmp_path / "s", [bad]) as (session, _):
        response = await session.request("POST", "http://opa/x", json={})
        with pytest.raises(Told, match="500, b'why'"):
            response.raise_for_status()


@pytest.mark.parametrize(
    "after", [OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), OK + b"HTTP/1.1 200"]
)
async def test_a_connection_that_ends_or_holds_more_is_not_used_again(tmp_path: Path, after: bytes) -> None:
    async with _session(tmp_path / "s", [after], [OK]) as (session, server):
        for _ in range(2):
            assert await (await session.request("POST", "http://opa/x", json={})).json() == {"result": 1}
    assert server.connections == 2


async def test_a_late_answer_is_never_the_next_question_s(tmp_path: Path) -> None:
    async with _session(tmp_path / "s", [b"HTTP/1.1 200"], [OK]) as (session, server):
        asking = asyncio.create_task(session.request("POST", "http://opa/x", json={"late": 1}))
        await server.written.wait()
        asking.cancel()
        await asyncio.wait((asking,))
        assert await (await session.request("POST", "http://opa/x", json={"next": 1})).json() == {"result": 1}
    assert server.connections == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n1",
        b"HTTP/1.1 2x0 OK\r\nContent-Length: 1\r\n\r\n1",
        b"HTTP/1.1 200 OK\r\n\r\n1",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n1",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n1",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n1",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFF\r\n",
        b"x" * 20_000,
    ],
)
async def test_what_is_no_answer(tmp_path: Path, answer: bytes) -> None:
    async with _session(tmp_path / "s", [answer]) as (session, _):
        with pytest.raises(ValueError):  # noqa: PT011
            await session.request("POST", "http://opa/x", json={})


async def test_closing_ends_what_is_under_way(tmp_path: Path) -> None:
    async with _session(tmp_path / "s", [b"HTTP/1.1 200"]) as (session, server):
        asking = asyncio.create_task(session.request("POST", "http://opa/x", json={}))
        await server.written.wait()
        await session.close()
        with pytest.raises(ConnectionError):
            await asking
