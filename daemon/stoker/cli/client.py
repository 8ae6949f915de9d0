"""The daemon's API as the commands use it. Nothing heavy is loaded here: start-up time counts."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from stoker.cli.exits import ApiError, NoDaemonError, config_problem
from stoker.cli.wire import Exchange
from stoker.errors import ConfigError, StokerError

TIMEOUT = 30.0
"""Seconds an answer may take; planning reads files and may have to wait for the loop."""
SEE_LOG = "its log says why (journalctl -u stoker, or daemon.log in its state directory)"


class Client:
    """Asks the daemon. `sockets` are tried in order; the first that exists is the one. `left`: what a daemon
    that is gone has left running, for people; it is called when none answers."""

    def __init__(
        self, sockets: list[str], timeout: float = TIMEOUT, *, left: Callable[[], object] = str
    ) -> None:
        self.socket = next((path for path in sockets if os.path.exists(path)), sockets[0])
        self._timeout = timeout
        self._left = left

    def get(self, path: str, **query: str | int | float | None) -> dict[str, Any]:
        """The document at `path`. Raises NoDaemonError, ApiError, ConfigError."""
        return self._document("GET", _url(path, query), None)

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Ask for a change. Raises NoDaemonError, ApiError, ConfigError."""
        return self._document("POST", path, json.dumps(body or {}).encode())

    def lines(self, path: str, **query: str | int | float | None) -> Iterator[str]:
        """An endless answer line by line, until the daemon ends it."""
        with self._exchange("GET", _url(path, query), None) as exchange:
            try:
                for line in exchange.lines():
                    yield line.decode("utf-8", "replace")
            except (OSError, EOFError):
                return  # the daemon ended in the middle of it

    def alive(self) -> bool:
        """Whether a daemon answers at all."""
        try:
            with Exchange(self.socket, 2):
                return True
        except OSError:
            return False

    def _document(self, method: str, path: str, body: bytes | None) -> dict[str, Any]:
        with self._exchange(method, path, body) as exchange:
            try:
                document: dict[str, Any] = json.loads(exchange.read())
            except (OSError, EOFError):
                raise NoDaemonError(
                    f"the daemon at {self.socket} ended in the middle of its answer; {SEE_LOG}"
                ) from None
            return document

    @contextmanager
    def _exchange(self, method: str, path: str, body: bytes | None) -> Iterator[Exchange]:
        """An answer that is no refusal. What goes wrong on the way there is told in the user's terms."""
        where = self.socket
        try:
            exchange = Exchange(where, self._timeout)
        except PermissionError:
            raise StokerError(
                f"no permission to talk to the daemon at {where}; be its user, or in the socket's group"
            ) from None
        except OSError:
            raise NoDaemonError(f"no daemon answers at {where}{self._remedy()}") from None
        with exchange:
            try:
                exchange.ask(method, path, body)
                refusal = exchange.read() if exchange.status >= 400 else None
            except TimeoutError:
                raise StokerError(f"the daemon at {where} does not answer; {SEE_LOG}") from None
            except (OSError, EOFError):
                raise NoDaemonError(f"the daemon at {where} ended before it answered; {SEE_LOG}") from None
            if refusal is not None:
                raise _refusal(exchange.status, refusal)
            yield exchange

    def _remedy(self) -> str:
        if left := self._left():
            return (
                f", but {left} of the last one run on; "
                "start it again to take them over, or stop them with `stoker down`"
            )
        return "; start one with `stoker up`, or name its socket with --socket"


def story_path(replica: str) -> str:
    """The path of a replica's story."""
    from urllib.parse import quote

    return f"/v1/story/{quote(replica, safe='')}"


def _url(path: str, query: Mapping[str, str | int | float | None]) -> str:
    given = {name: value for name, value in query.items() if value is not None}
    if not given:
        return path
    from urllib.parse import urlencode

    return f"{path}?{urlencode(given)}"


def _refusal(status: int, data: bytes) -> StokerError:
    try:
        document = json.loads(data)
    except ValueError:
        return ApiError(status, f"the daemon answered {status} without a reason")
    if document.get("errors"):
        return ConfigError(*(config_problem(entry) for entry in document["errors"]))
    return ApiError(status, str(document.get("detail") or document.get("title") or status))
