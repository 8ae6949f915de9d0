"""What a daemon is started with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from stoker.api.facade import DaemonFacade

Observer = Callable[[DaemonFacade], Awaitable[None]]
"""Runs beside the daemon until it ends: the live view, plain log lines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonOptions:
    """All paths absolute. `stop_on_exit`: SIGINT and SIGTERM drain the workers (`stoker up`); otherwise they
    only end the daemon and leave workers and router running for the next one (`stoker daemon`).
    `secrets_dir` None means `secrets/` beside the files, else the state directory's."""

    files: tuple[str, ...]
    socket: str
    state_dir: str
    runtime_dir: str
    profile: str | None = None
    sets: tuple[str, ...] = ()
    secrets_dir: str | None = None
    listen: str | None = None
    """HOST:PORT of the API on TCP; None: the unix socket alone."""
    tls: tuple[str, str] | None = None
    """Certificate chain and key of what is open on TCP, PEM files; None: in the clear."""
    operators: int | None = None
    """Group whose members operate over the unix socket; the others of the socket's group look only."""
    systemd: bool = False
    in_journal: bool = False
    """Whether what the daemon prints goes to the systemd journal."""
    stop_on_exit: bool = True
    leaving: bool = False
    """Begin only to drain and stop what a daemon before has left; files are not read."""
    observers: tuple[Observer, ...] = ()
    disabled_plugins: frozenset[str] = field(default_factory=frozenset)
