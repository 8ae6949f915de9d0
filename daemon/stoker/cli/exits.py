"""Exit codes of the outside contract, and how each error is told: one or two plain lines on stderr."""

from __future__ import annotations

import sys

from stoker.errors import ConfigError, ConfigProblem, StokerError

OK = 0
FAILED = 1
USAGE = 2
NO_DAEMON = 3
INTERRUPTED = 130
PIPE_CLOSED = 141


class NoDaemonError(StokerError):
    """No daemon answers where it was looked for."""


class ApiError(StokerError):
    """The daemon refused. `status` is the HTTP status of its problem document."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


class UsageError(StokerError):
    """The command cannot be meant as it was typed."""


def exit_code(error: StokerError) -> int:
    """The exit code that an error stands for. Pure."""
    if isinstance(error, NoDaemonError):
        return NO_DAEMON
    if isinstance(error, ConfigError | UsageError):
        return USAGE
    if isinstance(error, ApiError) and error.status == 400:
        return USAGE
    return FAILED


def tell(error: StokerError) -> None:
    """Say it on stderr. Config problems stand alone on their lines, as compilers print them."""
    if isinstance(error, ConfigError):
        for problem in error.problems:
            sys.stderr.write(f"{problem}\n")
    else:
        sys.stderr.write(f"stoker: {error}\n")


def config_problem(document: dict[str, object]) -> ConfigProblem:
    """A ConfigProblem from the API's JSON."""
    line, column = document.get("line", 0), document.get("column", 0)
    return ConfigProblem(
        message=str(document.get("message", "")),
        file=str(document.get("file", "")),
        line=line if isinstance(line, int) else 0,
        column=column if isinstance(column, int) else 0,
        path=str(document.get("path", "")),
    )
