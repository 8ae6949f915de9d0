"""Ports for tests that open an address some time after they choose it."""

from __future__ import annotations

import errno
import secrets
import socket

PORTS = range(10000, 18000)
"""Below those that the kernel hands out: while one is closed nobody else is given it, for a client either."""


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody has just now. Raises OSError for an address that is none of this machine."""
    while True:
        port = secrets.choice(PORTS)  # not of `random`: tests may set that to begin alike in all processes
        with socket.socket() as attempt:
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                attempt.bind((host, port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                return port
