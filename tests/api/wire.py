"""A bare HTTP client for the daemon's socket."""

from __future__ import annotations

import http.client
import json
from typing import Any

from stoker.api.unixsocket import connect


class Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("stoker", timeout=10)
        self.path = path

    def connect(self) -> None:
        self.sock = connect(self.path, 10)


def ask(socket: str, method: str, path: str, body: Any = None) -> tuple[int, str, bytes]:
    """(status, content type, body). `body` is sent as JSON, bytes as they are."""
    connection = Connection(socket)
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    connection.request(method, path, data)
    response = connection.getresponse()
    answer = response.read()
    connection.close()
    return response.status, response.headers["content-type"], answer


def get(socket: str, path: str) -> Any:
    status, _, body = ask(socket, "GET", path)
    assert status == 200, body
    return json.loads(body)


def post(socket: str, path: str, body: Any = None) -> Any:
    status, _, answer = ask(socket, "POST", path, body)
    assert status == 200, answer
    return json.loads(answer)


def refused(socket: str, method: str, path: str, body: Any = None) -> dict[str, Any]:
    """The problem document of a request that is refused."""
    status, kind, answer = ask(socket, method, path, body)
    assert kind == "application/problem+json"
    document = json.loads(answer)
    assert document["status"] == status
    return document
