"""`python -m stoker.introspect MODULE:ATTRIBUTE`: print what `@stoker.service` declares there, as JSON.

Runs users' code, so it runs in a process of its own, in the service's working directory. Exactly one
document goes to stdout: `{values, file, line, files}`, or `{error, where, hint, files}` if the module cannot
be loaded; `files` are the modules that were read. Whatever the module prints itself goes to stderr.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any

from stoker import DECLARATION

MAX_DEPTH = 32
MAX_FILES = 1000


class DeclarationError(Exception):
    """The target is not there, or declares what has no place in a configuration."""


def inspect(target: str) -> dict[str, Any]:
    """Load the target and return the document to print. Never raises."""
    module_name, _, attribute = target.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
        for name in attribute.split("."):
            found = _attribute(found, name)
        declaration = getattr(found, DECLARATION, None)
        if declaration is None:
            return {"values": {}, "file": "", "line": 0}
        return {**declaration, "values": _plain(declaration["values"], "")}
    except BaseException as error:  # noqa: BLE001 - any code may run here and raise anything, SystemExit too
        return {"error": _in_words(error), "where": _where(error), "hint": _hint(error, module_name)}


def main(argv: list[str]) -> None:
    """Print the document for `argv[1]` and end, without waiting for threads the module may have started."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.path.insert(0, os.getcwd())
    document = {**inspect(argv[1]), "files": _own_files(os.getcwd())}
    out.write(json.dumps(document))
    out.flush()
    os._exit(0)


def _attribute(owner: Any, name: str) -> Any:
    try:
        return getattr(owner, name)
    except AttributeError:
        import difflib

        close = difflib.get_close_matches(name, dir(owner), 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise DeclarationError(f"{getattr(owner, '__name__', owner)} has no {name}{hint}") from None


def _plain(value: Any, path: str, depth: int = 0) -> Any:
    """The value if it is what YAML could hold."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if depth > MAX_DEPTH:
        raise DeclarationError(f"{path} is nested too deep")
    if isinstance(value, list | tuple):
        return [_plain(one, f"{path}.{i}".strip("."), depth + 1) for i, one in enumerate(value)]
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise DeclarationError(f"{path or 'service'} has a key that is no text: {key!r}")
        return {key: _plain(one, f"{path}.{key}".strip("."), depth + 1) for key, one in value.items()}
    raise DeclarationError(f"{path} is of type {type(value).__name__}; only plain values can be declared")


def _in_words(error: BaseException) -> str:
    if isinstance(error, DeclarationError):
        return str(error)
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg}"
    if isinstance(error, SystemExit):
        return f"it ended the process (exit {error.code})"
    message = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _hint(error: BaseException, module: str) -> str:
    """What to do about it, where that is not plain."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return ""
    if f"{module}.".startswith(f"{error.name}."):
        return f"looked for in {os.getcwd()}, which `working_dir` changes"
    return (
        f"`python:` services run in Stoker's own Python: {sys.executable} -m pip install what is missing, "
        "or run a Python of yours by `command:`"
    )


def _where(error: BaseException) -> list[Any] | None:
    """File and line in the user's own code where it was raised."""
    if isinstance(error, SyntaxError) and error.filename:
        return [error.filename, error.lineno or 0]
    here, found = os.getcwd() + os.sep, None
    trace = error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if file.startswith(here) and file != __file__:
            found = [file, trace.tb_lineno]
        trace = trace.tb_next
    return found


def _own_files(folder: str) -> list[str]:
    """Loaded modules of the user's own, below the working directory."""
    files = {str(getattr(module, "__file__", None) or "") for module in list(sys.modules.values())}
    own = [file for file in files if file.startswith(folder + os.sep) and "site-packages" not in file]
    return sorted(own)[:MAX_FILES]


if __name__ == "__main__":
    main(sys.argv)
