"""A tool server on standard input and output that does what a server must not. The tool's name says what."""

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any


def say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


said: list[Any] = []  # to this process, all of it
for line in sys.stdin:
    message = json.loads(line)
    said.append(message)
    method, params = message.get("method"), message.get("params", {})
    if method != "tools/call":
        if method is not None and "id" in message:
            say({"id": message["id"], "result": {"for": method}})
        continue
    name, arguments = params["name"], params["arguments"]
    if name == "banner":
        write("Welcome to rogue!")
    elif name == "complains":
        sys.stderr.write("something is amiss\n" + "x" * 5000 + "\nlast words")
        sys.stderr.flush()
        os._exit(1)
    elif name == "chatter":
        write("on and on\n" * 200)
    elif name == "garbage":
        write('{"jsonrpc": "2.0", "id"')
        continue
    elif name == "batch":
        write(json.dumps([{"jsonrpc": "2.0", "id": message["id"], "result": {}}]))
        continue
    elif name == "infinite":
        write(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": {"n": 0}}).replace("0}", "1e999}"))
        continue
    elif name == "endless":
        write(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": "x" * 100_000}))
        continue
    elif name == "unbroken":
        sys.stdout.write("x" * 100_000)
        sys.stdout.flush()
        continue
    elif name == "stranger":
        say({"id": 12345, "result": {}})
        say({"id": str(message["id"]), "result": {}})
        say({"id": True, "result": {}})
    elif name == "dies":
        os._exit(3)
    elif name == "answers_and_dies":
        say({"id": message["id"], "result": {"last": True}})
        os._exit(0)
    elif name == "mute":
        os.close(1)
        continue
    elif name == "deaf":
        time.sleep(600)
    elif name == "silent":
        continue
    elif name == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen(["sleep", "600"])
        say({"method": "notifications/message", "params": {"pids": [os.getpid(), child.pid]}})
        continue
    elif name == "reports":
        token = params["_meta"]["progressToken"]
        say({"method": "notifications/progress", "params": {"progressToken": token, "progress": 1}})
        say({"method": "notifications/progress", "params": {"progressToken": 999, "progress": 2}})
    elif name == "asks":
        say({"id": "q-1", "method": "elicitation/create", "params": {}})
    elif name == "announces":
        say({"id": message["id"], "result": {}})
        say({"method": "notifications/resources/updated", "params": {"uri": "a:b"}})
        continue
    result = {"pid": os.getpid(), "line": line, "said": said, "environment": dict(os.environ)}
    say({"id": message["id"], "result": result if arguments.get("all") else {"pid": os.getpid()}})
