"""Serves the ASGI application of a `python: module:attribute` service; runs inside the worker.

    python -m stoker.asgi module:attribute --host 127.0.0.1 --port 8000

The target is an application, or a factory: something callable without arguments that returns one. The
working directory comes first on the import path. SIGTERM closes the address, finishes what is in flight
and ends with 0. Exit code 2: the target does not exist; 1: its own code raised, with its own traceback.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import importlib.util
import inspect
import os
import sys
from typing import Any

import uvicorn


class TargetError(Exception):
    """The target does not exist or is no application; the text says what is there instead."""


def main(argv: list[str] | None = None) -> int:
    """Serve until told to end; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m stoker.asgi")
    parser.add_argument("target", help="module:attribute")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=int(os.environ.get("PORT", "8000")))
    options = parser.parse_args(argv)
    sys.path.insert(0, os.getcwd())
    try:
        app = load(options.target)
    except TargetError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    config = uvicorn.Config(app, host=options.host, port=options.port, log_level="warning", access_log=False)
    server = uvicorn.Server(config)
    try:
        server.run()
    except KeyboardInterrupt:
        return 130
    return 0 if server.started else 1


def load(target: str) -> Any:
    """The application that `module:attribute` names; a factory is called. Raises TargetError, and whatever
    the user's code raises."""
    module_name, _, path = target.partition(":")
    found: Any = _module(module_name, target)
    for name in (path or "app").split("."):
        if not hasattr(found, name):
            raise TargetError(_lacks(found, module_name, name))
        found = getattr(found, name)
    return found() if is_factory(found) else _checked(found, target)


def is_factory(found: Any) -> bool:
    """Whether this is something to call without arguments rather than an application.

    An ASGI application takes (scope, receive, send), or scope alone in its old form; a class with
    `__call__` of that shape is an application once it has been made. Only what needs no argument at all
    is a factory.
    """
    if not callable(found):
        return False
    if not (inspect.isfunction(found) or inspect.isclass(found) or inspect.isbuiltin(found)):
        return False
    try:
        inspect.signature(found).bind()
    except (TypeError, ValueError):
        return False
    return True


def _module(name: str, target: str) -> Any:
    try:
        known = importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        known = False
    except ValueError:
        known = name in sys.modules
    if not known:
        raise TargetError(
            f"python: {target}: there is no module {name!r} in {os.getcwd()} or among the installed ones"
        )
    return importlib.import_module(name)


def _lacks(found: Any, module: str, name: str) -> str:
    public = [candidate for candidate in dir(found) if not candidate.startswith("_")]
    near = difflib.get_close_matches(name, public, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"it has: {', '.join(public[:10]) or 'nothing'}"
    return f"python: {module}:{name}: the module has no {name!r}; {hint}"


def _checked(found: Any, target: str) -> Any:
    if not callable(found):
        raise TargetError(
            f"python: {target}: a {type(found).__name__} is no ASGI application: it cannot be called"
        )
    return found


if __name__ == "__main__":
    sys.exit(main())
