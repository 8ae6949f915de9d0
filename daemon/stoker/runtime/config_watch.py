"""Sees that the configuration's files have changed, however they were written.

Editors write in place, rename over, delete and create; a file may not exist yet. So the *directories*
are watched, and after each stir the signatures (inode, size, time) of the paths in question are
compared: only a difference counts.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import anyio

from stoker.runtime.inotify import PathWatch

QUIET = 0.02
"""Seconds without further changes after which a burst of writes counts as finished."""
LONGEST = 0.25
"""Seconds after which a burst is looked at even if it goes on."""

Signature = tuple[tuple[str, int, int, int], ...]


def signature(paths: Sequence[str]) -> Signature:
    """What would tell that one of the paths has changed; directories by the files in them."""
    found: list[tuple[str, int, int, int]] = []
    for path in paths:
        found.append(_one(path))
        if os.path.isdir(path):
            found.extend(_one(entry.path) for entry in sorted(os.scandir(path), key=lambda entry: entry.name))
    return tuple(found)


def directories(paths: Sequence[str]) -> list[str]:
    """The existing directories in which a change of these paths would show."""
    found: set[str] = set()
    for text in paths:
        path = Path(text)
        if path.is_dir():
            found.add(str(path))
        parent = path.parent
        while not parent.is_dir() and parent != parent.parent:
            parent = parent.parent
        found.add(str(parent))
    return sorted(found)


async def changes(paths: Callable[[], Sequence[str]], seen: Signature) -> AsyncIterator[Signature]:
    """Yield the new signature each time the files differ from before. `paths` is asked anew every time, so
    that a configuration may change what is watched; `seen` is the signature of what was read last."""
    watch = _Watch()
    try:
        while True:
            watched = tuple(paths())
            stir = await watch.over(directories(watched))
            if signature(watched) == seen:
                await stir()
                await _settle(stir)
            now = signature(tuple(paths()))
            if now != seen:
                seen = now
                yield now
    finally:
        await watch.aclose()


async def _settle(stir: Callable[[], Awaitable[None]]) -> None:
    with anyio.move_on_after(LONGEST):
        more = True
        while more:
            with anyio.move_on_after(QUIET) as scope:
                await stir()
            more = not scope.cancelled_caught


class _Watch:
    """Over directories; the same one for as long as they are the very same: to close one takes its time."""

    def __init__(self) -> None:
        self._places: list[tuple[str, int]] = []
        self._watch: PathWatch | None = None

    async def over(self, places: Sequence[str]) -> Callable[[], Awaitable[None]]:
        """Give a function that returns at the next stir in these directories."""
        present = [_one(place)[:2] for place in places]
        if self._watch is not None and present == self._places:
            return self._watch.changed
        before, self._watch, self._places = self._watch, None, present
        try:
            self._watch = PathWatch(places)
        except OSError:
            return lambda: _polled(places)
        finally:
            if before is not None:
                await before.aclose()
        return self._watch.changed

    async def aclose(self) -> None:
        """Watch no more."""
        if self._watch is not None:
            await self._watch.aclose()


async def _polled(places: Sequence[str]) -> None:
    """Return after a change, and at the latest after a second: one that came before watchfiles was ready is
    then still found by the signatures."""
    from watchfiles import awatch

    async for _ in awatch(
        *places, recursive=False, step=100, force_polling=True, rust_timeout=1000, yield_on_timeout=True
    ):
        return


def _one(path: str) -> tuple[str, int, int, int]:
    try:
        stat = os.stat(path)
    except OSError:
        return (path, 0, 0, 0)
    return (path, stat.st_ino, stat.st_size, stat.st_mtime_ns)
