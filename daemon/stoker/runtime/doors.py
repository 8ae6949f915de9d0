"""Ways into the API: the unix socket, and TCP listeners, opened only when somebody asks for one."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

import anyio
from anyio.abc import TaskGroup

from stoker.errors import StokerError
from stoker.model.event import Event, Notice

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from stoker.api.tls import Certificate
    from stoker.runtime.facade import Facade
    from stoker.runtime.options import DaemonOptions


class TcpDoors:
    """The open listeners of one daemon, with TLS where a certificate is given. `app` is set once the API
    exists. Raises StokerError where the certificate cannot be used."""

    def __init__(
        self,
        *,
        tasks: TaskGroup,
        state_dir: str,
        post: Callable[[Event], None],
        tls: tuple[str, str] | None = None,
    ) -> None:
        self.app: Starlette | None = None
        self.open: dict[str, str] = {}
        """What was asked for -> HOST:PORT."""
        self._tasks = tasks
        self._state_dir = state_dir
        self._post = post
        self._certificate = _certificate(tls, self._renewed) if tls else None

    @property
    def encrypted(self) -> bool:
        """Whether they speak TLS."""
        return self._certificate is not None

    async def listen(self, address: str) -> str:
        """Open one until the daemon ends; returns HOST:PORT. Raises StokerError."""
        from stoker.api import tcp
        from stoker.api.server import serve_tcp

        if self.app is None:
            raise StokerError("the daemon is still starting; ask again in a moment")
        if address in self.open or address in self.open.values():
            return self.open.get(address, address)
        tokens = tcp.tokens(self._state_dir)
        listener = tcp.listen(address)
        host, _ = tcp.split_address(address)
        opened = tcp.join_address(host, listener.getsockname()[1])
        names = (host, socket.gethostname())
        tls = self._certificate.context if self._certificate else None
        await self._tasks.start(partial(serve_tcp, self.app, listener, tokens, names, tls=tls))
        self.open[address] = opened
        scheme = "https" if tls else "http"
        words = f"the page is at {scheme}://{opened}/; `stoker ui` shows it with its token"
        if tls or tcp.loopback(host):
            self._post(Notice(message=words))
        else:
            # A token that travels in the clear is worth a line, not a refusal: networks can be trusted.
            message = f"{words}. It is not encrypted: anyone on the way can read the token (--tls-cert)"
            self._post(Notice(message=message, severity="warning"))
        return opened

    async def begin(self, address: str, *, needed: bool) -> None:
        """Open the one that the daemon was started with. Where it is not `needed`, trouble is told and the
        daemon goes on without. Raises StokerError."""
        try:
            await self.listen(address)
        except StokerError as error:
            if needed:
                raise
            self._post(Notice(message=str(error), severity="error"))

    def _renewed(self, words: str, severity: str) -> None:
        self._post(Notice(message=words, severity=severity))


async def open_api(facade: Facade, tasks: TaskGroup, options: DaemonOptions) -> None:
    """Open the API where the daemon is started to. What it is made of is loaded beside the loop, which may
    have workers in hand already. Raises StokerError."""
    app, server = await anyio.to_thread.run_sync(_program)
    doors = facade.whole.doors
    doors.app = app.build(facade)
    await tasks.start(partial(server.serve, doors.app, options.socket, operators=options.operators))
    if options.listen:
        await doors.begin(options.listen, needed=options.stop_on_exit)


def _program() -> tuple[ModuleType, ModuleType]:
    return import_module("stoker.api.app"), import_module("stoker.api.server")


def _certificate(files: tuple[str, str], changed: Callable[[str, str], None]) -> Certificate:
    from stoker.api.tls import Certificate

    return Certificate(*files, changed)
