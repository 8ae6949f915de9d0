"""The entry point: runs the command, turns every error into a line and an exit code.

Nothing heavy is loaded here: what `quick` can answer is answered before click is there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from stoker.cli import exits, quick
from stoker.errors import StokerError


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code. Never shows a traceback unless STOKER_DEBUG is set."""
    try:
        code = _run(list(sys.argv[1:] if args is None else args))
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read us has gone; nothing is left to flush into at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exits.PIPE_CLOSED
    return code


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
        if os.environ.get("STOKER_DEBUG"):
            raise
        sys.stderr.write(f"stoker: internal error: {type(error).__name__}: {error}\n")
        sys.stderr.write("stoker: set STOKER_DEBUG=1 to see where, and please report it\n")
        return exits.FAILED
