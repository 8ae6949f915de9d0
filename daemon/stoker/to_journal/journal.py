"""The journal's socket: waits while it is busy or away, for the logs keep what it has not got."""

from __future__ import annotations

import errno
import select
import socket
import time
from collections.abc import Callable

_PAUSES = (0.05, 0.2, 1.0)
"""Seconds between two tries while there is no journal; the last one for ever."""


class JournalAwayError(Exception):
    """It does not take an entry, and we may wait no longer."""


class Journal:
    """Sends entries. `patient`: whether one that cannot be taken now may be waited for."""

    def __init__(self, path: str, patient: Callable[[], bool]) -> None:
        self._path = path
        self._patient = patient
        self._line = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._line.setblocking(False)  # noqa: FBT003 - its argument has no name
        self._connected = False
        self._free = select.poll()
        self._free.register(self._line, select.POLLOUT)

    def send(self, entry: bytes) -> None:
        """Return when the journal has it. Raises JournalAwayError."""
        tries = 0
        while True:
            try:
                if not self._connected:  # so that `poll` knows whether the other side has room
                    self._line.connect(self._path)
                    self._connected = True
                self._line.send(entry)
            except OSError as error:
                if error.errno == errno.EMSGSIZE:
                    return  # larger than this system lets any be: it is in the log
                self._wait(error.errno, tries)
                tries += 1
            else:
                return

    def close(self) -> None:
        """Close the socket."""
        self._line.close()

    def _wait(self, number: int | None, tries: int) -> None:
        if not self._patient():
            raise JournalAwayError
        if number in (errno.EAGAIN, errno.ENOBUFS):
            self._free.poll(100)
            return
        self._connected = False  # it is not there, or another by now
        time.sleep(_PAUSES[min(tries, len(_PAUSES) - 1)])
