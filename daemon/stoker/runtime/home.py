"""Follows the addresses that a daemon on another box tells: a stream of JSON lines over HTTP or HTTPS."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import anyio
import httptools
from anyio.abc import ByteStream

from stoker.errors import StokerError

PATIENCE = 30.0
"""Seconds without even a sign of life after which a connection counts as dead; one comes every ten."""
LARGEST = 64 << 20
"""Bytes of one line; 10,000 services take 2 MB."""
PATH = "/v1/routes?follow=true"


class RefusedError(StokerError):
    """The daemon answers, and will not tell us."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """Where the deployment's daemon is asked. `authority`: a file of certificates to trust in place of the
    system's."""

    url: str
    token: str = field(repr=False)
    authority: str | None = None

    @property
    def host(self) -> str:
        """The box it is on."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """The port of its API."""
        found = urlsplit(self.url)
        return found.port or (443 if found.scheme == "https" else 80)

    def trust(self) -> ssl.SSLContext | None:
        """How it is recognised; None where it speaks in the clear. Raises StokerError."""
        if urlsplit(self.url).scheme != "https":
            return None
        try:
            return ssl.create_default_context(cafile=self.authority)
        except OSError as error:
            words = f"cannot read certificates from {self.authority}: {error.strerror or error}"
            raise StokerError(words) from error


def check(url: str) -> str:
    """The address as it is used. Raises StokerError for what is none."""
    text = url.rstrip("/")
    try:
        found = urlsplit(text)
        good = found.scheme in {"http", "https"} and found.hostname and found.path == "" and found.port != 0
    except ValueError:
        good = False
    if not good or found.username is not None:
        words = "is no daemon's address; write https://HOST:PORT, as its `stoker ui` shows"
        raise StokerError(f"{url!r} {words}")
    return text


async def follow(home: Home, trust: ssl.SSLContext | None) -> AsyncIterator[dict[str, Any] | None]:
    """What it tells, as it tells it; None for a sign of life. Ends with the connection. Raises OSError or
    anyio's errors where there is none, RefusedError where it is refused."""
    async with _connection(home, trust) as stream:
        await stream.send(_request(home))
        lines = _Lines()
        parser = httptools.HttpResponseParser(lines)
        while True:
            with anyio.fail_after(PATIENCE):
                data = await stream.receive()
            try:
                parser.feed_data(data)
            except httptools.HttpParserError as error:
                raise RefusedError(f"{home.url} does not speak HTTP: {error}") from error
            if lines.headed and parser.get_status_code() != 200:
                if not lines.over:
                    continue
                raise RefusedError(_refusal(home, parser.get_status_code(), lines.take_rest()))
            for line in lines.take():
                yield json.loads(line) if line else None
            if lines.over:
                return


@asynccontextmanager
async def _connection(home: Home, trust: ssl.SSLContext | None) -> AsyncIterator[ByteStream]:
    with anyio.fail_after(PATIENCE):
        stream: ByteStream
        if trust is None:
            stream = await anyio.connect_tcp(home.host, home.port)
        else:
            stream = await anyio.connect_tcp(home.host, home.port, ssl_context=trust)
    async with stream:
        yield stream


def _request(home: Home) -> bytes:
    lines = (
        f"GET {PATH} HTTP/1.1",
        f"host: {urlsplit(home.url).netloc}",
        f"authorization: Bearer {home.token}",
    )
    return "\r\n".join((*lines, "", "")).encode("latin-1")


def _refusal(home: Home, status: int, body: bytes) -> str:
    try:
        detail = json.loads(body)["detail"]
    except (ValueError, KeyError, TypeError):
        detail = "without a reason"
    return f"{home.url} refuses ({status}): {detail}"


class _Lines:
    """Callbacks of the parser: a body as lines."""

    def __init__(self) -> None:
        self.headed = self.over = False
        self._buffer = b""

    def on_headers_complete(self) -> None:
        """The status is known."""
        self.headed = True

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._buffer += body
        if len(self._buffer) > LARGEST:
            raise ValueError("a line without an end")

    def on_message_complete(self) -> None:
        """Nothing more comes."""
        self.over = True

    def take(self) -> list[bytes]:
        """The lines that are complete."""
        *lines, self._buffer = self._buffer.split(b"\n")
        return lines

    def take_rest(self) -> bytes:
        """All that came."""
        return self._buffer
