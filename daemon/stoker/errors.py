"""Every error Stoker raises on purpose. Each message says what, where, why and what to do.

A `StokerError` is for a person: the command line prints its text and no traceback.
Anything else that escapes is a bug.
"""

from __future__ import annotations

from typing import NamedTuple


class StokerError(Exception):
    """Base of all errors that are meant to be read by a person."""


class ConfigProblem(NamedTuple):
    """One fault in the configuration, with the place where it stands.

    `line` and `column` count from 1; 0 means that the source has no lines (environment, command).
    `path` is the dotted config path, "" for the whole document.
    """

    message: str
    file: str = ""
    line: int = 0
    column: int = 0
    path: str = ""

    def __str__(self) -> str:
        where = self.file
        if self.line:
            where += f":{self.line}:{self.column}"
        return ": ".join(part for part in (where, self.path, self.message) if part)


class ConfigError(StokerError):
    """The configuration cannot be used; holds every problem found, not only the first."""

    def __init__(self, *problems: ConfigProblem) -> None:
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


class PluginError(StokerError):
    """A plugin that the configuration needs is missing, broken or of the wrong shape."""


class WorkerError(StokerError):
    """A worker could not be started or reached. The message names the command and the remedy.

    `permanent` says that trying again without a change cannot help (the command does not exist).
    """

    def __init__(self, message: str, *, permanent: bool = False) -> None:
        self.permanent = permanent
        super().__init__(message)


class DeviceError(StokerError):
    """The device source cannot answer (driver hangs, library mismatch, permission)."""


class RouterError(StokerError):
    """The router cannot do what was asked, for example bind an address."""


class NotFoundError(StokerError):
    """A service, replica, device or config path that does not exist; names the nearest one."""


class ConflictError(StokerError):
    """The request contradicts the present state, for example a second daemon on one state directory."""
