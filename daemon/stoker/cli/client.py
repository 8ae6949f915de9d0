"""The daemon's API over its unix socket, with nothing but the standard library: start-up time counts."""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode

from stoker.api.unixsocket import connect, peer_of
from stoker.cli.exits import ApiError, NoDaemonError, config_problem
from stoker.errors import ConfigError, StokerError

TIMEOUT = 30.0
"""Seconds an answer may take; planning reads files and may have to wait for the loop."""


class Client:
    """Asks the daemon. `sockets` are tried in order; the first that exists is the one."""

    def __init__(self, sockets: list[str], timeout: float = TIMEOUT) -> None:
        self.socket = next((path for path in sockets if os.path.exists(path)), sockets[0])
        self._timeout = timeout

    def get(self, path: str, **query: str | int | float | None) -> dict[str, Any]:
        """The document at `path`. Raises NoDaemonError, ApiError, ConfigError."""
        return self._document("GET", _url(path, query), None)

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Ask for a change. Raises NoDaemonError, ApiError, ConfigError."""
        return self._document("POST", path, json.dumps(body or {}).encode())

    def lines(self, path: str, **query: str | int | float | None) -> Iterator[str]:
        """An endless answer line by line, until the daemon ends it."""
        with _Connection(self.socket, self._timeout) as connection:
            response = _ask(connection, "GET", _url(path, query), None, self.socket)
            if connection.sock:
                connection.sock.settimeout(None)  # quiet is normal from here on
            if response.status >= 400:
                raise _refusal(response.status, response.read())
            try:
                while line := response.readline():
                    yield line.decode("utf-8", "replace").rstrip("\n")
            except (OSError, http.client.HTTPException):
                return  # the daemon ended in the middle of it

    def alive(self) -> bool:
        """Whether a daemon answers at all."""
        try:
            connect(self.socket, 2).close()
        except OSError:
            return False
        return True

    def _document(self, method: str, path: str, body: bytes | None) -> dict[str, Any]:
        with _Connection(self.socket, self._timeout) as connection:
            response = _ask(connection, method, path, body, self.socket)
            data = response.read()
        if response.status >= 400:
            raise _refusal(response.status, data)
        document: dict[str, Any] = json.loads(data)
        return document


def story_path(replica: str) -> str:
    """The path of a replica's story."""
    return f"/v1/story/{quote(replica, safe='')}"


def _url(path: str, query: Mapping[str, str | int | float | None]) -> str:
    given = {name: value for name, value in query.items() if value is not None}
    return f"{path}?{urlencode(given)}" if given else path


class _Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("stoker", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = connect(self._path, self.timeout)
        peer = peer_of(self.sock)
        if peer.uid not in {0, os.geteuid(), os.stat(self._path).st_uid}:
            self.sock.close()
            raise StokerError(f"{self._path} is served by uid {peer.uid}, to whom it does not belong")

    def __enter__(self) -> _Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _ask(
    connection: _Connection, method: str, path: str, body: bytes | None, where: str
) -> http.client.HTTPResponse:
    headers = {"content-type": "application/json"} if body is not None else {}
    try:
        connection.request(method, path, body, headers)
        return connection.getresponse()
    except TimeoutError:
        raise StokerError(f"the daemon at {where} does not answer; its log may say why") from None
    except PermissionError:
        raise StokerError(
            f"no permission to talk to the daemon at {where}; be its user, or in the socket's group"
        ) from None
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, http.client.BadStatusLine | ConnectionResetError | BrokenPipeError):
            raise NoDaemonError(f"the daemon at {where} ended before it answered") from None
        raise NoDaemonError(
            f"no daemon answers at {where}; start one with `stoker up`, or name its socket with --socket"
        ) from None


def _refusal(status: int, data: bytes) -> StokerError:
    try:
        document = json.loads(data)
    except ValueError:
        return ApiError(status, f"the daemon answered {status} without a reason")
    if document.get("errors"):
        return ConfigError(*(config_problem(entry) for entry in document["errors"]))
    return ApiError(status, str(document.get("detail") or document.get("title") or status))
