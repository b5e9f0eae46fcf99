"""The agent's side of many conversations: each case is one connection, by its bytes, and what came of it.

``python talk.py`` reads a list of cases as JSON on standard input: ``{"host", "port", "sni", "said", "end", "keep"}``.
``sni`` is the name for TLS, "" for TLS that names nobody, absent for none; ``said`` is sent (hexadecimal); ``end`` ends
our side of the TCP connection afterwards. All connections with ``keep`` are opened before any is read from. Prints a
list of ``{"alert": …}`` (the name of the error that TLS or TCP ended with), or ``{"statuses": […], "body": …, "names":
[…]}`` with the names in the certificate. Standard library only.
"""

import errno
import functools
import json
import re
import socket
import ssl
import sys
from typing import Any

SECONDS = 30
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) ")


@functools.cache
def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    return context


class Talk:
    def __init__(self, case: dict[str, Any]) -> None:
        self.told: dict[str, Any] = {}
        self.case = case
        self.sock: socket.socket | None = None
        self._guarded(self._open)

    def result(self) -> dict[str, Any]:
        if self.sock is not None:
            self._guarded(self._read)
            self.sock.close()
        return self.told

    def _guarded(self, call: Any) -> None:
        try:
            call()
        except ssl.SSLError as error:
            self.told["alert"] = error.reason or type(error).__name__
        except OSError as error:
            self.told["alert"] = errno.errorcode.get(error.errno or 0, type(error).__name__)

    def _open(self) -> None:
        case = self.case
        sock = socket.create_connection((case["host"], case["port"]), SECONDS)
        self.sock = sock
        tcp = sock
        if "sni" in case:
            self.sock = None  # closed when there is no agreement
            self.sock = sock = trusting().wrap_socket(sock, server_hostname=case["sni"] or None)
            found: Any = sock.getpeercert() or {}
            self.told["names"] = [name for _, name in found.get("subjectAltName", ())]
        sock.sendall(bytes.fromhex(case["said"]))
        if case.get("end"):
            socket.socket.shutdown(tcp if "sni" not in case else sock, socket.SHUT_WR)

    def _read(self) -> None:
        assert self.sock is not None
        answer = b""
        try:
            while data := self.sock.recv(65536):
                answer += data
        finally:
            self.told["statuses"] = [int(found) for found in _STATUS.findall(answer)]
            self.told["body"] = answer.rpartition(b"\r\n\r\n")[2].decode("utf-8", "replace")


def main(cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    kept = [Talk(case) for case in cases if case.get("keep")]
    answers = iter([each.result() for each in kept])
    return [next(answers) if case.get("keep") else Talk(case).result() for case in cases]


if __name__ == "__main__":
    print(json.dumps(main(json.load(sys.stdin))))  # noqa: T201 - that is what it is for
