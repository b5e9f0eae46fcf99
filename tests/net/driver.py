"""The agent of the tests: runs what it is told, one command a line, and answers what came of it.

``python driver.py SOCKET``: listens on a Unix socket, each client in a thread. A line is ``{"command": […], "input":
"…"}``, an answer ``{"status": …, "out": "…", "err": "…"}``.
"""

import json
import os
import socket
import subprocess
import sys
import threading


def main(path: str) -> None:
    note_what_was_given(os.path.dirname(path))
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        while True:
            client, _ = listening.accept()
            threading.Thread(target=serve, args=(client,), daemon=True).start()


def note_what_was_given(directory: str) -> None:
    """The descriptors that we were started with, for a test to look at."""
    found = {}
    for number in os.listdir("/proc/self/fd"):
        try:
            found[number] = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:  # the listing's own
            continue
    with open(os.path.join(directory, "inherited"), "w") as file:
        json.dump(found, file)


def serve(client: socket.socket) -> None:
    with client, client.makefile("rw") as lines:
        for line in lines:
            lines.write(json.dumps(run(json.loads(line))) + "\n")
            lines.flush()


def run(asked: dict[str, object]) -> dict[str, object]:
    done = subprocess.run(
        asked["command"],  # type: ignore[call-overload]
        input=asked.get("input"),
        capture_output=True,
        text=True,
        timeout=60,
        env={name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")},
        check=False,
    )
    return {"status": done.returncode, "out": done.stdout, "err": done.stderr}


if __name__ == "__main__":
    main(sys.argv[1])
