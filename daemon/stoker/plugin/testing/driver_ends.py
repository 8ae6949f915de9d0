"""Cases of the driver suite: exits, signals, trees, and what they cost."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import ClassVar

import anyio
import pytest

from stoker.model.replica import ExitStatus
from stoker.plugin.ports import WorkerDriver
from stoker.plugin.testing.driver_bench import (
    DEADLINE,
    Bench,
    descriptors,
    ended,
    own_zombies,
    running,
    text_of,
    threads,
    until,
)


class Ends:
    """How workers end."""

    lives: ClassVar[int]

    @pytest.mark.parametrize("code", [0, 1, 42, 255])
    async def test_exit_codes_are_told(self, driver: WorkerDriver, bench: Bench, code: int) -> None:
        """With the last line of output, unless all went well."""
        request = bench.request("sh", "-c", f"echo first; printf 'the end\\n\\n'; exit {code}")
        status, _ = await bench.run(driver, request)
        assert status == ExitStatus(code=code, detail="the end" if code else "")

    @pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
    async def test_deadly_signals_are_told(self, driver: WorkerDriver, bench: Bench, signum: int) -> None:
        """Also those that came from somewhere else."""
        status, _ = await bench.run(driver, bench.request("sh", "-c", f"kill -{int(signum)} $$"))
        assert status == ExitStatus(signal=signum)

    async def test_the_last_line_is_short_and_printable(self, driver: WorkerDriver, bench: Bench) -> None:
        """Whatever a worker writes: colours, bytes that are no text, megabytes without a line end."""
        request = bench.request("sh", "-c", r"printf '\377\033[31mred\n'; exit 1")
        assert (await bench.run(driver, request))[0].detail == "\ufffd[31mred"
        request = bench.request("sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x; exit 1")
        assert 0 < len((await bench.run(driver, request))[0].detail) <= 200

    async def test_a_signal_reaches_the_main_process_only(self, driver: WorkerDriver, bench: Bench) -> None:
        """The worker stops its children itself, in its own order."""
        program = (
            'trap "echo main; exit 5" USR1; sh -c "trap \\"echo child\\" USR1; sleep 600" & echo up; wait'
        )
        request = bench.request("sh", "-c", program)
        handle = await driver.start(request)
        await until(lambda: "up" in text_of(request.log_path), "the worker")
        await driver.signal(handle, signal.SIGUSR1)
        assert await ended(driver, handle) == ExitStatus(code=5, detail="main")
        assert text_of(request.log_path) == "up\nmain\n"

    async def test_whoever_ignores_the_stop_signal_is_killed(
        self, driver: WorkerDriver, bench: Bench
    ) -> None:
        """`kill` leaves nobody a choice, and takes the whole tree."""
        handle, _ = await bench.start_tree(driver)
        family = await bench.family()
        await driver.signal(handle, signal.SIGTERM)
        await driver.kill(handle)
        assert await ended(driver, handle) == ExitStatus(signal=signal.SIGKILL)
        assert own_zombies() <= bench.zombies
        assert {name for name, pid in family.items() if running(pid)} == set()

    @pytest.mark.parametrize("ending", ["exit", "stay"])
    async def test_a_crashed_worker_leaves_nothing_behind(
        self, driver: WorkerDriver, bench: Bench, ending: str
    ) -> None:
        """When `wait` returns, children, other sessions and daemons are gone, and no zombie is ours."""
        handle, _ = await bench.start_tree(driver, ending)
        family = await bench.family()
        if ending == "stay":
            os.kill(handle.pid, signal.SIGKILL)
        status = await ended(driver, handle)
        assert status == (ExitStatus(code=7) if ending == "exit" else ExitStatus(signal=signal.SIGKILL))
        assert {name for name, pid in family.items() if running(pid)} == set()
        assert own_zombies() <= bench.zombies

    async def test_workers_do_not_disturb_each_other(self, driver: WorkerDriver, bench: Bench) -> None:
        """The tree of one is killed, the other does not notice; nor does a child of the daemon itself."""
        other = await driver.start(bench.request("sleep", "600"))
        foreign = subprocess.Popen(["sleep", "600"], start_new_session=True)  # noqa: ASYNC220 - returns at once
        try:
            handle, _ = await bench.start_tree(driver)
            await bench.family()
            await driver.kill(handle)
            await ended(driver, handle)
            assert running(other.pid)
            assert foreign.poll() is None
        finally:
            foreign.kill()
            assert foreign.wait() == -signal.SIGKILL  # and its exit code was left to its owner

    async def test_the_gone_are_no_error(self, driver: WorkerDriver, bench: Bench) -> None:
        """Signals and kills come too late all the time."""
        handle = await driver.start(bench.request("true"))
        await until(lambda: not running(handle.pid), "the end of the worker")
        await driver.signal(handle, signal.SIGTERM)
        await driver.kill(handle)
        assert await ended(driver, handle) == ExitStatus(code=0)
        await driver.signal(handle, signal.SIGTERM)
        await driver.kill(handle)

    async def test_use_is_measured_over_the_whole_tree(self, driver: WorkerDriver, bench: Bench) -> None:
        """A busy grandchild shows as about a core, and the memory is that of a few processes."""
        busy = await driver.start(bench.request("sh", "-c", "sh -c 'while :; do :; done' & wait"))
        idle = await driver.start(bench.request("sleep", "600"))
        usage = await driver.usage([busy, idle])
        assert set(usage) == {busy.pid, idle.pid}
        with anyio.fail_after(DEADLINE):  # a first window still holds the births, a busy machine needs more
            while not (
                usage[idle.pid].cpu < 0.05
                and 0.1 < usage[busy.pid].cpu < 1.5
                and 100_000 < usage[idle.pid].memory < usage[busy.pid].memory
            ):
                await anyio.sleep(0.2)
                usage = await driver.usage([busy, idle])
        assert usage[busy.pid].memory < 100_000_000

    async def test_nothing_is_used_up(self, driver: WorkerDriver, bench: Bench) -> None:
        """After many workers there are as many descriptors, threads and zombies as before."""
        await bench.run(driver, bench.request("true"))
        before = descriptors(), threads()
        request = bench.request("sleep", "600")
        for _ in range(self.lives):
            handle = await driver.start(request)
            await driver.kill(handle)
            await ended(driver, handle)
        assert (descriptors(), threads()) == before
        assert own_zombies() <= bench.zombies
