"""A daemon makes way for another in the same process (`stoker reexec`).

The process stays, so workers and router stay its children and a supervisor sees nothing end; all else is the
adoption that follows the death of any daemon.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import NoReturn

import anyio

from stoker.errors import StokerError
from stoker.plugin.processes import children, is_zombie

PROGRAM = "import stoker.runtime.daemon"


class Ending:
    """That a daemon is to end, and whether another follows in its place."""

    def __init__(self) -> None:
        self.successor = False
        self._begun = anyio.Event()

    def begin(self, *, successor: bool = False) -> None:
        """End now."""
        self.successor = successor
        self._begun.set()

    async def wait(self) -> None:
        """Return when the end has begun."""
        await self._begun.wait()


async def rehearse() -> None:
    """Raise StokerError if the program that is installed now cannot even be loaded."""
    tried = await anyio.run_process([sys.executable, "-P", "-c", PROGRAM], check=False)
    if tried.returncode:
        words = tried.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise StokerError(f"the program that is installed now cannot be loaded: {words}; this daemon goes on")


def begin_anew() -> NoReturn:
    """Become the next daemon: the same process, the same arguments, the program that is installed now."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def bury(spared: Callable[[], Collection[int]]) -> None:
    """Take away the zombies that a predecessor in this process has left. `spared` gives pids of workers, of
    whose end their driver will want to hear; it is asked where there are any."""
    dead = [child for child in children(os.getpid()) if is_zombie(child)]
    kept = spared() if dead else ()
    for child in dead:
        if child not in kept:
            with suppress(ChildProcessError):
                os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG)
