"""What a daemon leaves to the next one in its process."""

from __future__ import annotations

import os
import subprocess
import sys

import anyio
import psutil
import pytest

from stoker.runtime import succession
from stoker.runtime.succession import Ending, bury

pytestmark = pytest.mark.anyio


async def test_an_end_is_waited_for_and_says_whether_another_follows() -> None:
    last, next_follows = Ending(), Ending()
    last.begin()
    next_follows.begin(successor=True)
    with anyio.fail_after(5):
        await last.wait()
        await next_follows.wait()
    assert (last.successor, next_follows.successor) == (False, True)


async def test_zombies_of_the_predecessor_are_buried_and_those_of_workers_spared() -> None:
    dead = [subprocess.Popen([sys.executable, "-c", "pass"]) for _ in range(2)]
    for process in dead:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    bury(lambda: {dead[0].pid})
    assert psutil.Process(dead[0].pid).status() == psutil.STATUS_ZOMBIE
    assert not psutil.pid_exists(dead[1].pid)
    dead[0].wait()
    dead[1].wait()


async def test_the_living_stay_as_they_are() -> None:
    alive = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    bury(lambda: ())
    assert alive.poll() is None
    alive.communicate(b"\n")


async def test_the_program_that_is_installed_can_be_loaded() -> None:
    await succession.rehearse()
