"""The entry point: runs the command, turns every error into a line and an exit code.

Nothing heavy is loaded here: what `quick` can answer is answered before click is there.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Sequence

from stoker.cli import exits, quick
from stoker.errors import StokerError

FULL = (errno.ENOSPC, errno.EDQUOT)


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code. Never shows a traceback unless STOKER_DEBUG is set."""
    _open_standard_files()
    _bear_any_text()
    try:
        code = _run(list(sys.argv[1:] if args is None else args))
        sys.stdout.flush()
    except BrokenPipeError:
        _forget_stdout()
        return exits.PIPE_CLOSED
    except OSError as error:
        _forget_stdout()
        if os.environ.get("STOKER_DEBUG"):
            raise
        sys.stderr.write(f"stoker: cannot write: {error.strerror}\n")
        return exits.FAILED
    return code


def _open_standard_files() -> None:
    """Open what the caller closed (`>&-`) on /dev/null: else the next file or socket would get its number,
    and Python has no object to write to."""
    if sys.stdin is not None and sys.stdout is not None and sys.stderr is not None:
        return
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:  # the lowest that is free, again and again
        os.set_inheritable(number, True)
    os.close(number)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


def _bear_any_text() -> None:
    """What the locale does not know becomes `?`: names, paths and charts may hold anything."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _forget_stdout() -> None:
    # Whoever read us has gone, or there is no room: nothing is left to flush into at exit either.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(args: list[str]) -> int:
    try:
        if quick.answered(args, os.environ):
            return exits.OK
        from stoker.cli.group import run

        return run(args)
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    except BrokenPipeError:
        raise
    except StokerError as error:
        if os.environ.get("STOKER_DEBUG"):
            raise
        exits.tell(error)
        return exits.exit_code(error)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in FULL:
            raise
        if os.environ.get("STOKER_DEBUG"):
            raise
        sys.stderr.write(f"stoker: internal error: {type(error).__name__}: {error}\n")
        sys.stderr.write("stoker: set STOKER_DEBUG=1 to see where, and please report it\n")
        return exits.FAILED
