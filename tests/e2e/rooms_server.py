"""A tool server that speaks WebSocket: echoes, and notes each handshake and message in the journal.

python rooms_server.py PORT JOURNAL
"""

import json
import sys
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web

JOURNAL = Path(sys.argv[2])


def note(**entry: Any) -> None:
    with JOURNAL.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(entry) + "\n")


async def live(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(protocols=("chat",))
    await socket.prepare(request)
    note(path=request.path_qs, headers={name.lower(): value for name, value in request.headers.items()})
    async for message in socket:
        if message.type is WSMsgType.TEXT:
            note(text=message.data)
            await socket.send_str(message.data)
        elif message.type is WSMsgType.BINARY:
            await socket.send_bytes(message.data)
    return socket


app = web.Application()
app.router.add_get("/rooms/{room}/live", live)

if __name__ == "__main__":
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)
