"""A small HTTP tool server: answers each request with what it was, and notes it in the journal.

python tickets_server.py PORT JOURNAL
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Tickets(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    journal: Path

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        seen = {
            "method": self.command,
            "path": self.path,
            "body": json.loads(body) if body else None,
            "headers": {name.lower(): value for name, value in self.headers.items()},
        }
        with self.journal.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(seen) + "\n")
        status = 404 if self.path == "/tickets/404" else 201 if self.command == "POST" else 200
        if self.path == "/tickets/401":
            status = 401
        told = json.dumps(seen).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Set-Cookie", "session=stolen")
        self.send_header("Content-Length", str(len(told)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(told)

    do_GET = do_HEAD = do_POST = do_DELETE = answer

    def log_message(self, format: str, *args: object) -> None:
        pass


def main() -> None:
    port, journal = sys.argv[1:]
    Tickets.journal = Path(journal)
    ThreadingHTTPServer(("127.0.0.1", int(port)), Tickets).serve_forever()


if __name__ == "__main__":
    main()
