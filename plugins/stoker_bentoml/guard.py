"""Keeps pickled bodies out. Whoever can send one to a worker can run code in it.

BentoML's services send each other pickles, so a service cannot refuse them from everyone. Each deployment
therefore has a word that only Stoker and its own services know; a pickled body without it is answered with
415, whoever sends it and whatever address it comes in by. The entry service takes none at all.
"""

from __future__ import annotations

import base64
import hmac
import json
from typing import Any

USER = "stoker"
FORBIDDEN = b"application/vnd.bentoml+pickle"


class Guard:
    """An ASGI application around another. `word` "" refuses all pickled bodies. `prefix` is that of the
    service's paths: BentoML's own client does not know of it, so it is put before what that one asks for."""

    def __init__(self, application: Any, word: str, prefix: str = "") -> None:
        self._application = application
        self._prefix = "/" + prefix.strip("/") if prefix.strip("/") else ""
        credentials = base64.b64encode(f"{USER}:{word}".encode())
        self._expected = b"Basic " + credentials if word else b""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] == "http":
            if self._is_known(scope["headers"]):
                scope = self._inner(scope)
            elif _is_pickled(scope["headers"]):
                await _refuse(send)
                return
        await self._application(scope, receive, send)

    def _inner(self, scope: Any) -> Any:
        """A call from within the deployment as the service's own code is to see it: without the word."""
        headers = [pair for pair in scope["headers"] if pair[0] != b"authorization"]
        path = scope["path"]
        if self._prefix and not (path + "/").startswith(self._prefix + "/"):
            path = self._prefix + path
        return {**scope, "headers": headers, "path": path, "raw_path": path.encode()}

    def _is_known(self, headers: Any) -> bool:
        given = [value for name, value in headers if name == b"authorization"]
        return bool(self._expected) and len(given) == 1 and hmac.compare_digest(given[0], self._expected)


def _is_pickled(headers: Any) -> bool:
    return any(name == b"content-type" and FORBIDDEN in value.lower() for name, value in headers)


async def _refuse(send: Any) -> None:
    body = json.dumps(
        {"error": "application/vnd.bentoml+pickle is taken from services of this deployment only"}
    )
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 415, "headers": headers})
    await send({"type": "http.response.body", "body": body.encode()})
