"""Serves the API on a unix socket, and on TCP where that is asked for, inside the daemon's own event loop;
asleep while nobody asks."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import anyio
import uvicorn
from anyio.abc import TaskStatus
from starlette.applications import Starlette
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from stoker.api.answers import JSONResponse
from stoker.api.guard import Guard
from stoker.api.problems import MEDIA_TYPE, plain_problem
from stoker.api.roles import Role
from stoker.api.unixsocket import Peer, identity_of, listen, peer_of, remove, role_of

GRACE = 3
"""Seconds that running answers get at the end."""
MOST_CONNECTIONS = 512
"""On TCP; more are answered with 503, and beyond twice as many hung up on: each takes a descriptor."""
LARGEST_HEAD = 64 * 1024
HEAD_SECONDS = 20.0
TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


async def serve(
    app: Starlette,
    path: str,
    *,
    allowed_uids: frozenset[int] = frozenset(),
    operators: int | None = None,
    task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; started once the socket accepts. Root, the daemon's own uid, `allowed_uids`
    and members of the socket's group are let in, by the kernel's word; where `operators` names a group by its
    id, the others of the socket's group may look only.

    Needs anyio's asyncio backend. Raises ConflictError if another daemon answers at `path`, StokerError
    if the socket cannot be made.
    """
    listener = listen(path)
    identity = identity_of(path)
    gid = os.stat(path).st_gid
    uids = allowed_uids | {os.geteuid()}
    app.state.admit = lambda peer: role_of(peer, uids=uids, gid=gid, operators=operators)
    app.state.lookers = Guard(app, now=anyio.current_time, role="view")
    server = _server(Guard(app, now=anyio.current_time, role="operate"), CheckedProtocol)
    try:
        await _serve(server, listener, app, task_status)
    finally:
        listener.close()
        remove(path, identity)


async def serve_tcp(
    app: Starlette,
    listener: socket.socket,
    tokens: Mapping[str, Role],
    names: tuple[str, ...] = (),
    *,
    tls: ssl.SSLContext | None = None,
    task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Serve on a TCP listener until cancelled, to those who hold one of the tokens, as what it is good for.
    `names` are host names by which the box may be called. The listener is closed at the end."""
    guard = Guard(app, now=anyio.current_time, tokens=tokens, names=names)
    try:
        server = _server(guard, LimitedProtocol, most=MOST_CONNECTIONS, tls=tls)
        await _serve(server, listener, app, task_status)
    finally:
        listener.close()


async def _serve(
    server: QuietServer, listener: socket.socket, app: Starlette, task_status: TaskStatus[None]
) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(_run, server, listener)
        try:
            await server.opened.wait()
            task_status.started()
            await anyio.sleep_forever()
        finally:
            app.state.closing.set()
            server.ask_to_stop()


async def _run(server: QuietServer, listener: socket.socket) -> None:
    with anyio.CancelScope(shield=True):  # it ends by being asked to, so that answers are finished
        await server.serve(sockets=[listener])


class LimitedProtocol(HttpToolsProtocol):
    """HTTP from peers that send a request's head in reasonable size and time, or not at all."""

    _head_bytes = 0
    _in_head = True
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The clock runs from here."""
        super().connection_made(transport)
        most = self.config.limit_concurrency
        if most is not None and len(self.connections) > 2 * most:
            transport.abort()
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """It stops here at the latest."""
        self._forget_deadline()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._head_bytes, self._in_head = 0, True
        self._expect_head()

    def on_headers_complete(self) -> None:
        """It is there."""
        self._in_head = False
        self._forget_deadline()
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Pass on what comes, until a head is too large."""
        super().data_received(data)
        self._head_bytes += len(data)
        if self._in_head and self._head_bytes > LARGEST_HEAD:
            self.transport.write(TOO_LARGE)
            self.transport.close()

    def _expect_head(self) -> None:
        self._forget_deadline()
        self._deadline = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class CheckedProtocol(LimitedProtocol):
    """HTTP with peers that are allowed; to the others every request is refused."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Ask the kernel who it is."""
        super().connection_made(transport)
        peer = _peer(transport.get_extra_info("socket"))
        app: Any = self.config.app
        role = None if peer is None else app.state.admit(peer)
        if role is None:
            # Answered like a request, not by hanging up: a client that still writes would see only that.
            self.app = refusal(peer)
        elif role == "view":
            self.app = app.state.lookers


class QuietServer(uvicorn.Server):
    """uvicorn without its signal handlers and without its ten wake-ups a second."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.opened = anyio.Event()
        self._stop = anyio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the daemon's business."""
        yield

    async def main_loop(self) -> None:
        """Accepting now; sleep until the end."""
        self.opened.set()
        await self._stop.wait()

    def ask_to_stop(self) -> None:
        """Finish what is being answered, then end."""
        self.should_exit = True
        self._stop.set()


def _server(
    app: Guard,
    protocol: type[LimitedProtocol],
    *,
    most: int | None = None,
    tls: ssl.SSLContext | None = None,
) -> QuietServer:
    config = uvicorn.Config(
        app,
        http=protocol,
        limit_concurrency=most,
        log_level="error",  # malformed requests are the sender's trouble; bugs of ours are logged
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        date_header=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=GRACE,
    )
    config.load()
    config.ssl = tls  # made by us: uvicorn's own is never read again
    return QuietServer(config)


def _peer(connection: socket.socket) -> Peer | None:
    try:
        return peer_of(connection)
    except OSError:
        return None


def refusal(peer: Peer | None) -> JSONResponse:
    """The application a peer gets that may not talk to the daemon."""
    who = f"uid {peer.uid}" if peer else "an unknown peer"
    detail = f"{who} may not talk to this daemon: it is neither its user nor in the socket's group"
    return JSONResponse(
        plain_problem(403, "Forbidden", detail),
        status_code=403,
        media_type=MEDIA_TYPE,
        headers={"connection": "close"},
    )
