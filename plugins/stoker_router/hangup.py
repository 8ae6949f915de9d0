"""Notices that a client went away while nothing is read from it, without asking now and then."""

from __future__ import annotations

import asyncio
import select
from typing import Protocol


class Hangable(Protocol):
    """A connection that can be watched."""

    def hung_up(self) -> None:
        """The other side closed."""
        ...


class HangupWatch:
    """An epoll set of its own, in which only the other side's closing counts; the loop watches the set."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self._by_fd: dict[int, Hangable] = {}
        self._fds: dict[Hangable, int] = {}
        loop.add_reader(self._epoll.fileno(), self._ready)

    def watch(self, connection: Hangable, fd: int) -> None:
        """Call its `hung_up` once when the other side closes."""
        stale = self._by_fd.get(fd)
        if stale is not None:
            self.unwatch(stale)
        self._by_fd[fd] = connection
        self._fds[connection] = fd
        self._epoll.register(fd, select.EPOLLRDHUP)

    def unwatch(self, connection: Hangable) -> None:
        """No longer; an unknown connection is no error."""
        fd = self._fds.pop(connection, None)
        if fd is None:
            return
        del self._by_fd[fd]
        try:
            self._epoll.unregister(fd)
        except OSError:
            return  # the descriptor was closed, and with it the registration

    def _ready(self) -> None:
        for fd, _ in self._epoll.poll(0):
            connection = self._by_fd.get(fd)
            if connection is not None:
                self.unwatch(connection)
                connection.hung_up()

    def close(self) -> None:
        """Give the descriptor back."""
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()
