"""What several routers tell in streams, as one stream."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from typing import Generic, TypeVar

import anyio
from anyio.abc import TaskGroup

from stoker.errors import RouterError

T = TypeVar("T")


async def merged(streams: Sequence[Callable[[], AsyncGenerator[T]]], tasks: TaskGroup) -> AsyncGenerator[T]:
    """The batches of all, in the order in which they come. Of those that come first, which say that a stream
    has begun, only the last is passed on. The end of one stream, or its RouterError, is that of the whole.

    They are read in `tasks`: a generator that is closed in its middle cannot have tasks of its own.
    """
    merger = _Merger[T](len(streams))
    for stream in streams:
        tasks.start_soon(merger.read, stream)
    try:
        async for found in merger.receiver:
            if isinstance(found, RouterError):
                raise found
            if found is None:
                return
            yield found
    finally:
        merger.end()


class _Merger(Generic[T]):
    """One merged stream. `count`: how many there are to be read."""

    def __init__(self, count: int) -> None:
        self._sender, self.receiver = anyio.create_memory_object_stream[T | RouterError | None]()
        self._waiting = count
        self._begun = anyio.Event()
        self._scopes: list[anyio.CancelScope] = []
        self._ended = False

    async def read(self, stream: Callable[[], AsyncGenerator[T]]) -> None:
        """Pass on what one tells, and its end, until there is nobody to pass it to."""
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError), anyio.CancelScope() as scope:
            self._scopes.append(scope)
            if self._ended:
                return
            try:
                async with aclosing(stream()) as batches:
                    async for batch in batches:
                        await self._pass_on(batch)
            except RouterError as error:
                await self._sender.send(error)
            else:
                await self._sender.send(None)

    async def _pass_on(self, batch: T) -> None:
        if self._begun.is_set():
            await self._sender.send(batch)
            return
        self._waiting -= 1
        if self._waiting:
            await self._begun.wait()
        else:
            await self._sender.send(batch)
            self._begun.set()

    def end(self) -> None:
        """Nobody reads any more."""
        self._ended = True
        for scope in self._scopes:
            scope.cancel()
        self._sender.close()
        self.receiver.close()
