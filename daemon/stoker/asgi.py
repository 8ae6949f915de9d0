"""Serves a `python:` target: `python -m stoker.asgi module:attribute --host HOST --port PORT`, or
`--socket PATH` for a unix socket.

The target is any ASGI application, an object or a factory (a callable that needs no argument and
returns one); the attribute is `app` unless it is named. SIGTERM and SIGINT end it gracefully: no new
connections, open requests finish, exit 0. Exit 2: the target cannot be found or is no ASGI application.
Exit 1: its own code failed, or the address is taken.
"""

from __future__ import annotations

import argparse
import asyncio
import difflib
import importlib
import inspect
import os
import pkgutil
import signal
import socket
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from email.utils import formatdate
from typing import Any

import uvicorn
import uvloop

from stoker.errors import StokerError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Mapping[str, Any], Receive, Send], Awaitable[None]]

_KEEP_ALIVE = 75
"""Seconds. Longer than the router keeps an idle connection, so that the router is the one that closes."""


class TargetError(StokerError):
    """The target cannot be served as it is written."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal comes; return the exit code."""
    given = _parser().parse_args(arguments)
    sys.path.insert(0, os.getcwd())
    try:
        # Bound first: a taken port should not cost the time that it takes to load a model.
        listener = _bind_path(given.socket) if given.socket else _bind(given.host, given.port)
    except OSError as error:
        where = given.socket or f"{given.host}:{given.port}"
        return _complain(f"cannot listen on {where}: {error.strerror}", 1)
    with listener:
        try:
            found = load(given.target)
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                return runner.run(_serve(given.target, found, listener))
        except TargetError as error:
            return _complain(str(error), 2)
        except Exception as error:  # noqa: BLE001 - the user's code; it may raise anything
            _show(error)
            return 1


def load(target: str) -> Application | Awaitable[Any]:
    """Import `module:attribute` and return the application, called if it is a factory.

    The result of an asynchronous factory is still to be awaited. Raises TargetError, and whatever the
    target's own code raises.
    """
    module_name, _, path = target.partition(":")
    path = path or "app"
    if not all(part.isidentifier() for part in f"{module_name}.{path}".split(".")):
        raise TargetError(f"{target!r} is not of the form module:attribute, for example `shop.web:app`")
    found: Any = _import(module_name)
    for done, name in enumerate(parts := path.split(".")):
        if not hasattr(found, name):
            inside = ".".join([module_name, *parts[:done]])
            raise TargetError(f"{inside} has no attribute {name!r}{_nearest(name, dir(found))}")
        found = getattr(found, name)
    if not _is_factory(found):
        return as_application(found, target)
    made = found()
    return made if inspect.isawaitable(made) else as_application(made, f"{target}()")


def as_application(found: object, name: str) -> Application:
    """The object as an ASGI 3 application. Raises TargetError if it is none."""
    if not callable(found):
        raise TargetError(f"{name} is no ASGI application but of type {type(found).__name__}")
    if _accepts(found, 3):
        return found
    if _accepts(found, 1):
        return _from_two_calls(found)
    if _accepts(found, 2):
        raise TargetError(
            f"{name} takes two arguments, as WSGI applications do; wrap it for ASGI "
            "(a2wsgi.WSGIMiddleware) or start its own server with `command`"
        )
    raise TargetError(f"{name} is no ASGI application: it does not take (scope, receive, send)")


def _is_factory(found: object) -> bool:
    """Whether it can be called without arguments. An application can as well if its arguments have
    defaults or are `*args`; then it is one if it is asynchronous, as applications are."""
    if not callable(found) or not _accepts(found, 0):
        return False
    if inspect.isclass(found) or not _accepts(found, 3):
        return True
    return not (inspect.iscoroutinefunction(found) or inspect.iscoroutinefunction(found.__call__))


def _accepts(found: Callable[..., Any], count: int) -> bool:
    try:
        inspect.signature(found).bind(*[None] * count)
    except TypeError:
        return False
    except ValueError:
        return count == 3  # compiled code without a signature: taken at its word
    return True


def _from_two_calls(found: Callable[..., Any]) -> Application:
    """ASGI 2: the application is called with the scope, its answer with the two channels."""

    async def application(scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        await found(scope)(receive, send)

    return application


def _import(name: str) -> object:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name != missing and not name.startswith(f"{missing}."):
            raise  # found, but something that it imports itself is not
        parent, _, last = missing.rpartition(".")
        package = sys.modules.get(parent)
        places = list(getattr(package, "__path__", [])) if parent else [os.getcwd()]
        near = _nearest(last, [module.name for module in pkgutil.iter_modules(places)])
        raise TargetError(f"no module {missing!r} in {os.getcwd()} or the environment{near}") from None


def _nearest(name: str, names: Sequence[str]) -> str:
    public = [other for other in names if not other.startswith("_")]
    near = difflib.get_close_matches(name, public, 1, 0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


async def _serve(target: str, found: Application | Awaitable[Any], listener: socket.socket) -> int:
    if inspect.isawaitable(found):
        found = as_application(await found, f"{target}()")
    private = listener.family == socket.AF_UNIX  # whoever can reach it may say who the client is
    config = uvicorn.Config(
        Dated(found),
        forwarded_allow_ips="*" if private else None,
        interface="asgi3",
        access_log=False,
        log_level="warning",
        date_header=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE,
    )
    server = Server(config, target)
    try:
        await server.serve([listener])
    except SystemExit:  # uvicorn's word for a lifespan that failed; it has logged the traceback
        return 1
    return 0


class Server(uvicorn.Server):
    """uvicorn's server that sleeps while nothing happens and ends with exit code 0 on a signal."""

    def __init__(self, config: uvicorn.Config, target: str) -> None:
        super().__init__(config)
        self._target = target
        self._ending = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start and say where."""
        await super().startup(sockets)
        if self.started and sockets:
            sys.stderr.write(f"serving {self._target} on {_shown(sockets[0].getsockname())}\n")
            sys.stderr.flush()

    async def main_loop(self) -> None:
        """Wait for the end; the original looks ten times a second."""
        await self.on_tick(0)
        if not self.should_exit:
            await self._ending.wait()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """End on a signal; the original raises it again afterwards, so that the exit looks like a crash."""
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, self._end)
        try:
            yield
        finally:
            for signum in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(signum)

    def _end(self) -> None:
        self.should_exit = True
        self._ending.set()


class Dated:
    """Adds the Date header that `Server.main_loop` no longer renews each second."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._date = b""
        self._renew_at = 0.0

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one connection of any kind."""
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return

        async def dated(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                if not any(name.lower() == b"date" for name, _ in headers):
                    message = {**message, "headers": [*headers, (b"date", self._now())]}
            await send(message)

        await self._application(scope, receive, dated)

    def _now(self) -> bytes:
        now = time.monotonic()
        if now >= self._renew_at:
            self._date, self._renew_at = formatdate(usegmt=True).encode(), now + 1.0
        return self._date


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m stoker.asgi", description="Serve an ASGI application.")
    parser.add_argument("target", help="module:attribute, for example shop.web:app")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=os.environ.get("PORT", "8000"), help="default: $PORT")
    parser.add_argument("--socket", help="listen on a unix socket at this path in place of a port")
    return parser


def _shown(address: Any) -> str:
    if isinstance(address, str):
        return address
    host, port = address[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _bind_path(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(path)
    except OSError:
        listener.close()
        raise
    return listener


def _bind(host: str, port: int) -> socket.socket:
    kind, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
        0
    ]
    listener = socket.socket(kind, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener


def _complain(message: str, code: int) -> int:
    sys.stderr.write(f"error: {message}\n")
    return code


def _show(error: Exception) -> None:
    """The traceback of the user's code, without the frames that led there."""
    ours = (__file__, importlib.__file__, "<frozen importlib")
    shown = traceback.TracebackException.from_exception(error)
    theirs = [frame for frame in shown.stack if not frame.filename.startswith(ours)]
    shown.stack = traceback.StackSummary.from_list(theirs)
    sys.stderr.writelines(shown.format())


if __name__ == "__main__":
    sys.exit(main())
