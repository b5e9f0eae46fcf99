"""gRPC in the pipeline: nothing is answered here; a call goes to the server and comes back message by message."""

from dataclasses import replace

from taskgrant.errors import Refused
from taskgrant.model.call import Call, Headers, Refusal
from taskgrant.model.catalogue import Server
from taskgrant.model.codes import Code
from taskgrant.model.ids import TaskId
from taskgrant.model.ports import Exchange
from taskgrant.model.task import Task
from taskgrant.protocols.grpc.codec import GrpcCodec, timeout
from taskgrant.protocols.grpc.status import UNAUTHENTICATED, trailers
from taskgrant.proxy.forward import credential, send
from taskgrant.proxy.parts import Parts, Permitted
from taskgrant.wire.http2.upstream import GrpcUpstream


class GrpcFlow:
    def __init__(self, parts: Parts, codec: GrpcCodec, upstream: GrpcUpstream) -> None:
        self._parts = parts
        self._codec = codec
        self._upstream = upstream

    async def answer(self, exchange: Exchange, server: Server, call: Call, task: Task | None) -> bool:
        if not exchange.trailers:
            raise Refused(Code.UNSUPPORTED, "gRPC is spoken over HTTP/2")
        return False

    async def forward(self, permitted: Permitted) -> None:
        exchange = permitted.exchange
        issued = await credential(self._parts, permitted)
        out = self._codec.encode(permitted.server, permitted.call)
        left = min(permitted.grant.expires_at, permitted.task.deadline) - self._parts.clock.now()
        out = replace(out, headers=(("grpc-timeout", timeout(permitted.call, left)),))
        async with send(self._parts, permitted, out, issued, upstream=self._upstream) as reply:
            async for message in reply.chunks():
                if not exchange.begun:
                    await exchange.begin(200, reply.headers)
                await exchange.write(message)
            if ("grpc-status", str(UNAUTHENTICATED)) in reply.trailers:
                reason = f"{permitted.server.name} did not accept this task's credential"
                raise Refused(Code.CREDENTIAL_REFUSED, reason)
            if not exchange.begun:
                await exchange.begin(200, reply.headers)
            await exchange.finish(reply.trailers)

    def refuse_event(self, call: Call, refusal: Refusal) -> bytes | None:
        return None

    def refuse_trailers(self, call: Call, refusal: Refusal) -> Headers:
        return trailers(call, refusal)

    def forget(self, task: TaskId) -> None:
        """Calls keep nothing between them."""
