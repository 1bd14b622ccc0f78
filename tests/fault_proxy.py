"""A loopback proxy in front of the S3 server that does one scripted harm per request, to see who survives it.

`proxy.harm("PUT", Answer(503, "SlowDown"), Break.LOST_ANSWER)` hurts the next two PUTs, each in its way; requests
beyond the script pass. Every connection carries one request, so `proxy.seen` counts attempts.
"""

from __future__ import annotations

import http.client
import socket
import struct
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from enum import Enum, auto
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Answer:
    """An error said by the proxy; the server never hears of the request."""

    status: int
    code: str


@dataclass(frozen=True)
class Cut:
    """The server's answer with its full length announced, and the line closed after `count` bytes of the body."""

    count: int


@dataclass(frozen=True)
class Torn:
    """As `Cut`, but with a reset instead of an orderly end."""

    count: int


@dataclass(frozen=True)
class Stall:
    """As `Cut`, but the line stays open for `seconds`, or until the client has had enough of it."""

    count: int
    seconds: float | None = None


@dataclass(frozen=True)
class Drip:
    """The server's answer whole, its body in so many pieces with a pause before each."""

    pieces: int
    pause_s: float


@dataclass(frozen=True)
class Flip:
    """The server's answer with the lowest bit of one byte of its body flipped."""

    position: int


class Break(Enum):
    """A line that breaks without a word."""

    BEFORE = auto()
    """The server never hears of the request, and the line is reset."""
    CLOSED = auto()
    """The server never hears of the request, and the line ends in good order without an answer."""
    LOST_ANSWER = auto()
    """The server did the work, and the answer is lost."""
    HALF_BODY = auto()
    """The request's body is dropped after its first half."""
    SILENCE = auto()
    """The server never hears of the request, and the client nothing at all."""


class Weakness(Enum):
    """What stores do with If-None-Match that should not."""

    NONE = auto()
    IGNORES = auto()
    """Not looked at."""
    RACES = auto()
    """Not looked at while another write of the same object is on its way."""


Harm = Answer | Cut | Torn | Stall | Drip | Flip | Break


class FaultProxy(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = urlsplit(upstream).netloc
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.seen: list[str] = []
        """Each request as `METHOD what was done to it`."""
        self.headers: list[tuple[str, dict[str, str]]] = []
        """Of each request: `METHOD /bucket/key` and its headers, by their names in lower case."""
        self.keys_per_page = 0
        """Of listings, fewer than the server would give; 0 leaves it to the server."""
        self.weakness = Weakness.NONE
        self._writing: Counter[str] = Counter()
        self._harms: defaultdict[str, deque[Harm]] = defaultdict(deque)
        self._lock = threading.Lock()

    def harm(self, method: str, *harms: Harm) -> None:
        """Script the next requests with this method."""
        self._harms[method].extend(harms)

    def forget(self) -> None:
        """Drop the script and the log."""
        self.keys_per_page = 0
        self.weakness = Weakness.NONE
        self._harms.clear()
        self.seen.clear()
        self.headers.clear()

    @contextmanager
    def weakened(self, method: str, path: str) -> Generator[str]:
        """The header, in lower case, that a request loses on its way."""
        with self._lock:
            self._writing[path] += method == "PUT"
            races = self.weakness is Weakness.RACES and self._writing[path] > 1
        try:
            yield "if-none-match" if races or self.weakness is Weakness.IGNORES else ""
        finally:
            with self._lock:
                self._writing[path] -= method == "PUT"

    def next_harm(self, method: str) -> Harm | None:
        with self._lock:
            harm = self._harms[method].popleft() if self._harms[method] else None
            self.seen.append(f"{method} {harm or 'passed'}")
            return harm

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Broken lines are what this server is for."""


Proxy = TypeVar("Proxy", bound=FaultProxy)


@contextmanager
def serving(proxy: Proxy) -> Iterator[Proxy]:
    """The proxy at work in a thread of its own."""
    thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join()


def fault_proxy(upstream: str) -> AbstractContextManager[FaultProxy]:
    return serving(FaultProxy(upstream))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # so that a client that asks to go on before its body is told to
    server: FaultProxy  # pyright: ignore[reportIncompatibleVariableOverride]

    def log_message(self, format: str, *args: Any) -> None:
        """`seen` is the log."""

    def _serve(self) -> None:
        self.close_connection = True
        harm = self.server.next_harm(self.command)
        asked = f"{self.command} {urlsplit(self.path).path}"
        self.server.headers.append((asked, {name.lower(): value for name, value in self.headers.items()}))
        length = int(self.headers.get("Content-Length") or 0)
        if harm is Break.BEFORE:
            return self._reset()
        if harm is Break.HALF_BODY:
            self.rfile.read(length // 2)
            return self._reset()
        body = self.rfile.read(length)
        if harm is Break.CLOSED:
            return None
        if harm is Break.SILENCE:
            return self._wait_for_the_end()
        if isinstance(harm, Answer):
            return self._say(harm)
        self._serve_from_upstream(body, harm)

    def _say(self, error: Answer) -> None:
        text = f"<?xml version='1.0'?><Error><Code>{error.code}</Code><Message>scripted</Message></Error>".encode()
        self._answer(error.status, [("Content-Type", "application/xml")], len(text), text)

    def _serve_from_upstream(self, body: bytes, harm: Harm | None) -> None:
        with self.server.weakened(self.command, self.path) as dropped:
            status, headers, length, data = self._ask(body, dropped)
        if harm is Break.LOST_ANSWER:
            return self._reset()
        if isinstance(harm, (Cut, Torn, Stall)):
            data = data[: harm.count]
        if isinstance(harm, Flip):
            data = data[: harm.position] + bytes([data[harm.position] ^ 1]) + data[harm.position + 1 :]
        self._answer(status, headers, length, data, harm if isinstance(harm, Drip) else None)
        if isinstance(harm, Torn):
            return self._reset()
        if isinstance(harm, Stall):
            self._wait_for_the_end(harm.seconds)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _serve

    def _path(self) -> str:
        limit = self.server.keys_per_page
        is_open = limit and "list-type=2" in self.path and "max-keys" not in self.path
        return f"{self.path}&max-keys={limit}" if is_open else self.path

    def _ask(self, body: bytes, dropped: str) -> tuple[int, list[tuple[str, str]], int, bytes]:
        connection = http.client.HTTPConnection(self.server.upstream, timeout=30)
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() not in ("expect", dropped)}
            connection.request(self.command, self._path(), body=body, headers=headers)
            answer = connection.getresponse()
            data = answer.read()
            kept = [
                (name, value)
                for name, value in answer.getheaders()
                if name.lower() not in ("connection", "content-length", "transfer-encoding")
            ]
            return answer.status, kept, int(answer.getheader("Content-Length") or len(data)), data
        finally:
            connection.close()

    def _answer(
        self, status: int, headers: list[tuple[str, str]], length: int, data: bytes, drip: Drip | None = None
    ) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command == "HEAD":
            return
        pieces, pause_s = (drip.pieces, drip.pause_s) if drip else (1, 0.0)
        for start in range(0, len(data), step := len(data) // pieces + 1):
            time.sleep(pause_s)
            self.wfile.write(data[start : start + step])

    def _wait_for_the_end(self, seconds: float | None = None) -> None:
        """Until the client has had enough, or for so long."""
        self.connection.settimeout(seconds)
        with suppress(ConnectionError, TimeoutError):
            self.connection.recv(1)

    def _reset(self) -> None:
        """Close so that the other side gets a reset, not an orderly end."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()
        self.connection.close()
