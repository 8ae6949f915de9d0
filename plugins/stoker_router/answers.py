"""The answers that the router gives itself. Pure."""

from __future__ import annotations

import json
from http import HTTPStatus

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def error(
    status: int, reason: str, *, keep: bool, retry_after: int | None = None, bodyless: bool = False
) -> bytes:
    """Return a whole response with the body `{"error": reason}`; `bodyless`: to a HEAD request."""
    body = json.dumps({"error": reason}).encode() + b"\n"
    lines = [
        b"HTTP/1.1 %d %b" % (status, HTTPStatus(status).phrase.encode()),
        b"Content-Type: application/json",
        b"Content-Length: %d" % len(body),
    ]
    if retry_after is not None:
        lines.append(b"Retry-After: %d" % retry_after)
    if not keep:
        lines.append(b"Connection: close")
    return b"\r\n".join(lines) + b"\r\n\r\n" + (b"" if bodyless else body)
