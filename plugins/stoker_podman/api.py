"""HTTP over a unix socket, as much of it as a container engine's API needs: one request per connection."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any
from urllib.parse import quote

import anyio
import httptools

from stoker.errors import StokerError

PIECE = 65536
PATIENCE = 60.0
"""Seconds a plain call may take: an engine on a busy disk needs long to remove a container."""


class EngineError(StokerError):
    """The engine has refused a call. `status` is the HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


class EngineLostError(StokerError):
    """There is no engine at the socket, or the connection broke."""


class Engine:
    """The API at one socket. `name` and `remedy` are for people: what serves there, and how it is started."""

    def __init__(self, socket: str, prefix: str, *, name: str, remedy: str) -> None:
        self.socket = socket
        self._prefix = prefix
        self._name = name
        self._remedy = remedy

    async def call(self, method: str, path: str, body: Any = None, **query: str) -> Any:
        """The JSON of the answer, None if there is none. A body of bytes is a tar file.

        Raises EngineError, EngineLostError.
        """
        pieces: list[bytes] = []
        try:
            with anyio.fail_after(PATIENCE):
                await self.stream(method, path, pieces.append, body, **query)
        except TimeoutError:
            raise EngineLostError(
                f"{self._name} has not answered {path} for {PATIENCE:.0f} s; restart {self.socket}"
            ) from None
        text = b"".join(pieces)
        return json.loads(text) if text.strip() else None

    async def there(self, path: str) -> bool:
        """Whether there is an answer to it other than 404. Raises EngineError, EngineLostError."""
        try:
            await self.call("GET", path)
        except EngineError as error:
            if error.status == 404:
                return False
            raise
        return True

    async def stream(
        self, method: str, path: str, take: Callable[[bytes], None], body: Any = None, **query: str
    ) -> None:
        """Hand the body of the answer on as it comes. Raises EngineError, EngineLostError."""
        if "://" in self.socket:
            message = f"is no unix socket of this box, and {self._name} of another box is not for workers"
            raise EngineLostError(f"{self.socket} {message}; use unix:///PATH")
        answer = _Answer(take)
        target = (
            self._prefix
            + path
            + ("?" + "&".join(f"{k}={quote(v)}" for k, v in query.items()) if query else "")
        )
        try:
            # Not by anyio: its sockets complain in the log when a task is cancelled as data arrives.
            reader, writer = await asyncio.open_unix_connection(self.socket)
            with closing(writer):
                writer.write(_request(method, target, body))
                await writer.drain()
                while not answer.complete and (piece := await reader.read(PIECE)):
                    answer.feed(piece)
        except (OSError, httptools.HttpParserError) as error:
            words = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise EngineLostError(
                f"cannot reach {self._name} at {self.socket}: {words}; {self._remedy}"
            ) from error
        if not answer.status:
            raise EngineLostError(f"{self._name} closed the connection at {self.socket} without an answer")
        if answer.status >= 400:
            raise EngineError(answer.status, answer.complaint())


def _request(method: str, target: str, body: Any) -> bytes:
    packed = isinstance(body, bytes)
    content = b"" if body is None else body if packed else json.dumps(body).encode()
    kind = "application/x-tar" if packed else "application/json"
    head = (
        f"{method} {target} HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n"
        f"Content-Type: {kind}\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


class _Answer:
    """Callbacks of the parser; the body of a refusal is kept, that of any other answer is handed on."""

    def __init__(self, take: Callable[[bytes], None]) -> None:
        self.status = 0
        self.complete = False
        self._take = take
        self._refusal = b""
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()

    def on_body(self, piece: bytes) -> None:
        if self.status >= 400:
            self._refusal += piece
        else:
            self._take(piece)

    def on_message_complete(self) -> None:
        self.complete = True

    def complaint(self) -> str:
        """What the engine says, on one line."""
        try:
            said: Mapping[str, Any] = json.loads(self._refusal)
            text = str(said.get("message") or said.get("cause") or said)
        except (ValueError, AttributeError):
            text = self._refusal.decode(errors="replace") or f"HTTP status {self.status}"
        return " ".join(text.split())
