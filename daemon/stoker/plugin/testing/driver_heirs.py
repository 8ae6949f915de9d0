"""Cases of the driver suite: a later daemon on the same state directory."""

from __future__ import annotations

import os
import signal
from contextlib import aclosing

from stoker.plugin.ports import WorkerDriver
from stoker.plugin.testing.driver_bench import (
    PYTHON,
    TREE,
    Bench,
    ended,
    only,
    running,
    start_in_a_daemon_that_dies,
    until,
)


class Heirs:
    """Adoption."""

    async def test_a_new_driver_finds_and_takes_over(self, driver: WorkerDriver, bench: Bench) -> None:
        """The worker itself, once; not its children, though they have inherited its mark."""
        handle, request = await bench.start_tree(driver)
        family = await bench.family()
        async with aclosing(bench.driver()) as heir:
            found = await only(heir)
            assert (found.mark, found.handle.pid) == (request.mark, handle.pid)
            taken = await heir.recover(found)
            await heir.kill(taken)
            assert (await ended(heir, taken)).code is None
        assert {name for name, pid in family.items() if running(pid)} == set()

    async def test_workers_outlive_a_daemon_that_is_killed(self, bench: Bench) -> None:
        """Nothing happens to them; the next daemon takes them over and learns how they end."""
        mark, pid = start_in_a_daemon_that_dies(bench, "sh", "-c", 'trap "exit 42" TERM; sleep 600 & wait')
        async with aclosing(bench.driver()) as heir:
            found = await only(heir)
            assert (found.mark, found.handle.pid) == (mark, pid)
            handle = await heir.recover(found)
            await heir.signal(handle, signal.SIGTERM)
            status = await ended(heir, handle)
            assert status.code in (42, None)  # None: a kernel that does not tell
            assert status.signal is None
            assert await heir.find() == []

    async def test_a_worker_that_died_with_its_daemon_leaves_nothing(self, bench: Bench) -> None:
        """What is left of it is no worker: it is ended before new workers start."""
        _, pid = start_in_a_daemon_that_dies(bench, PYTHON, "-c", TREE, str(bench.directory), "stay")
        family = await bench.family()
        os.kill(pid, signal.SIGKILL)
        await until(lambda: not running(pid), "the end of the worker")
        async with aclosing(bench.driver()) as heir:
            assert await heir.find() == []
        assert {name for name, other in family.items() if running(other)} == set()

    async def test_others_are_not_found(self, driver: WorkerDriver, bench: Bench) -> None:
        """Workers of another instance, even one whose name begins alike, are none of ours."""
        await driver.start(bench.request("sleep", "600"))
        elsewhere = str(bench.directory / "other")
        async with aclosing(bench.driver(instance=bench.instance[:-1], state_dir=elsewhere)) as stranger:
            assert await stranger.find() == []
