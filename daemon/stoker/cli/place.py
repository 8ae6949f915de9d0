"""Where the daemon is that a command means, by its options and the environment."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from stoker.cli import paths

if TYPE_CHECKING:
    from stoker.cli.client import Client
    from stoker.runtime.leftovers import Leftovers


class Session:
    """The options given so far; the rest comes from the environment."""

    def __init__(self) -> None:
        self.socket_option: str | None = None
        self.state_option: str | None = None

    def client(self, timeout: float | None = None) -> Client:
        """A client for the daemon that is meant."""
        from stoker.cli.client import TIMEOUT, Client

        return Client(self.sockets, timeout or TIMEOUT, left=self.left_behind)

    @property
    def sockets(self) -> list[str]:
        """Where a running daemon is looked for, best first."""
        return paths.client_sockets(self.socket_option, os.environ, os.geteuid())

    def left_behind(self) -> Leftovers:
        """What a daemon that is gone has left running."""
        from stoker.runtime.leftovers import left_behind

        return left_behind(self.state_dir, self.runtime_dir)

    @property
    def socket(self) -> str:
        """Where a new daemon opens its socket."""
        return paths.daemon_socket(self.socket_option, os.environ, os.geteuid())

    @property
    def state_dir(self) -> str:
        """Where a new daemon keeps its state."""
        return paths.state_directory(self.state_option, os.environ, os.geteuid())

    @property
    def runtime_dir(self) -> str:
        """Where a new daemon keeps its inner sockets."""
        return paths.runtime_directory(self.state_dir, os.environ, os.geteuid())
