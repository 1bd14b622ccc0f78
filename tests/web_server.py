"""An HTTP server on this machine that breaks off, lies about sizes and serves the wrong file, as it is told."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

BODY = bytes(range(256)) * 2000


@dataclass
class Web:
    """How the server answers. `answers` are taken one a request: bytes of the body after which it breaks off, or None
    for all of it, or a status without a body; when they are used up, all of it."""

    url: str = ""
    body: bytes = BODY
    answers: list[int | str | None] = field(default_factory=list)
    ranges: bool = True
    length: int | None = None
    seen: list[str] = field(default_factory=list)
    held: threading.Event | None = None


@pytest.fixture
def web() -> Iterator[Web]:
    web = Web()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked = self.headers.get("Range", "")
            web.seen.append(asked)
            if web.held is not None:
                web.held.wait(10)
            answer = web.answers.pop(0) if web.answers else None
            if isinstance(answer, str):
                self.send_response(int(answer))
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            found = re.fullmatch(r"bytes=(\d+)-", asked)
            start = int(found[1]) if found and web.ranges else 0
            rest = web.body[start:]
            self.send_response(206 if found and web.ranges else 200)
            if found and web.ranges:
                self.send_header("Content-Range", f"bytes {start}-{len(web.body) - 1}/{len(web.body)}")
            self.send_header("Content-Length", str(len(rest) if web.length is None else web.length))
            self.end_headers()
            self.wfile.write(rest if answer is None else rest[:answer])
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        web.url = f"http://127.0.0.1:{server.server_port}/weights.pth"
        yield web
        server.shutdown()
        thread.join()
