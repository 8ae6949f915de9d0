"""Holding on to process trees: by cgroup, by session, and telling orphans from other people's children."""

import os
import signal
import subprocess
from contextlib import aclosing
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from stoker.errors import WorkerError
from stoker.plugin.testing.driver_bench import Bench, ended, own_zombies, running, text_of, until
from stoker_process.cgroups import kill_members
from stoker_process.driver import ProcessDriver
from stoker_process.orphans import Orphans
from stoker_process.procfs import read_stat

pytestmark = [pytest.mark.anyio, pytest.mark.system]

ESCAPE = 'env -i setsid sh -c "sleep 600 & echo \\$! >escaped; wait" & wait $!'
"""A child that changes its session and its environment, so that only a cgroup can tell whose it is."""


async def pid_in(path: Path) -> int:
    await until(lambda: bool(text_of(str(path)).strip()), path.name)
    return int(path.read_text())


async def test_the_way_trees_are_held_is_described(cgroups: ProcessDriver, bench: Bench) -> None:
    assert cgroups.description.startswith("cgroup v")
    assert "a directory per worker below /sys/fs/cgroup" in cgroups.description
    bench.options = {"cgroup": False}
    async with aclosing(bench.driver()) as driver:
        assert "no cgroups: switched off by `cgroup: false`" in driver.description


async def test_a_cgroup_holds_what_hides_its_origin(cgroups: ProcessDriver, bench: Bench) -> None:
    handle = await cgroups.start(bench.request("sh", "-c", ESCAPE))
    escaped = await pid_in(bench.directory / "escaped")
    os.kill(handle.pid, signal.SIGKILL)
    assert (await ended(cgroups, handle)).signal == signal.SIGKILL
    assert not running(escaped)


async def test_an_heir_clears_what_hides_its_origin(cgroups: ProcessDriver, bench: Bench) -> None:
    handle = await cgroups.start(bench.request("sh", "-c", ESCAPE))
    escaped = await pid_in(bench.directory / "escaped")
    os.kill(handle.pid, signal.SIGKILL)
    await until(lambda: not running(handle.pid), "the end of the worker")
    async with aclosing(bench.driver()) as heir:
        assert await heir.find() == []
    assert not running(escaped)


HIDE = """
(env -i setsid sh -c 'sleep 600 & echo $! >escaped; wait' &)
until [ -s escaped ]; do sleep 0.01; done
"""
"""The same, and its parents are gone: only its brand is left."""


@pytest.mark.parametrize("end", ["exit 3", "exec sleep 600"])
async def test_a_brand_holds_what_hides_its_origin_without_cgroups(
    sessions: ProcessDriver, bench: Bench, end: str
) -> None:
    handle = await sessions.start(bench.request("sh", "-c", HIDE + end))
    escaped = await pid_in(bench.directory / "escaped")
    if end != "exit 3":
        assert running(escaped)
        os.kill(handle.pid, signal.SIGKILL)
    await ended(sessions, handle)
    assert not running(escaped)


async def test_an_heir_clears_by_the_brand_what_its_worker_leaves(
    sessions: ProcessDriver, bench: Bench
) -> None:
    handle = await sessions.start(bench.request("sh", "-c", HIDE + "exec sleep 600"))
    escaped = await pid_in(bench.directory / "escaped")
    async with aclosing(bench.driver()) as heir:
        (found,) = await heir.find()
        taken = await heir.recover(found)
        os.kill(handle.pid, signal.SIGKILL)
        await ended(heir, taken)
    assert not running(escaped)


async def test_no_other_worker_is_taken_for_it(sessions: ProcessDriver, bench: Bench) -> None:
    handles = []
    for name in ("one", "two"):
        program = HIDE.replace("escaped", name) + "exec sleep 600"
        handles.append(await sessions.start(bench.request("sh", "-c", program)))
    first, second = handles
    pids = [await pid_in(bench.directory / name) for name in ("one", "two")]
    await sessions.kill(first)
    await ended(sessions, first)
    assert [running(pid) for pid in (*pids, second.pid)] == [False, True, True]
    await sessions.kill(second)
    await ended(sessions, second)
    assert not running(pids[1])


async def test_cgroups_are_removed_with_their_workers(cgroups: ProcessDriver, bench: Bench) -> None:
    handle = await cgroups.start(bench.request("sleep", "600"))
    directory = Path(dict(handle.extra)["cgroup"])
    assert (directory / "cgroup.procs").read_text().split() == [str(handle.pid)]
    await cgroups.kill(handle)
    await ended(cgroups, handle)
    assert not directory.exists()
    assert not directory.parent.exists()


async def test_a_worker_may_have_cgroups_of_its_own(cgroups: ProcessDriver, bench: Bench) -> None:
    program = 'mkdir "$0/inner" && echo $$ >"$0/inner/cgroup.procs" && echo $$ >moved; exec sleep 600'
    handle = await cgroups.start(bench.request("sh", "-c", program, "."))
    directory = Path(dict(handle.extra)["cgroup"])
    (directory / "inner").mkdir()
    (directory / "inner" / "cgroup.procs").write_text(str(handle.pid))
    assert handle.pid in await cgroups.usage([handle])
    await cgroups.kill(handle)
    await ended(cgroups, handle)
    assert not directory.exists()


async def test_a_worker_is_born_in_its_cgroup(cgroups: ProcessDriver, bench: Bench) -> None:
    """Its first deed is to hide: whoever were moved into the cgroup after its birth would miss that."""
    program = "(env -i setsid sh -c 'sleep 600 & echo $! >hidden; wait' &); sleep 600"
    for _ in range(20):
        handle = await cgroups.start(bench.request("sh", "-c", program))
        hidden = await pid_in(bench.directory / "hidden")
        (bench.directory / "hidden").unlink()
        await cgroups.kill(handle)
        await ended(cgroups, handle)
        assert not running(hidden)


async def test_a_failed_spawn_leaves_no_cgroup(cgroups: ProcessDriver, bench: Bench) -> None:
    with pytest.raises(WorkerError):
        await cgroups.start(bench.request("no-such-tool"))
    assert await anyio.to_thread.run_sync(lambda: cgroup_directories(bench.instance)) == []


def cgroup_directories(instance: str) -> list[Path]:
    name = f"stoker-{instance}"  # walked so that other people's groups may vanish meanwhile
    return [Path(path) for path, _, _ in os.walk("/sys/fs/cgroup") if Path(path).parent.name == name]


async def test_cgroups_of_old_kernels_are_emptied_one_by_one(bench: Bench) -> None:
    """Without `cgroup.kill` the members are signalled; a plain directory stands for such a cgroup."""
    victim = subprocess.Popen(["sleep", "600"])
    with victim:
        (bench.directory / "cgroup.procs").write_text(f"{victim.pid}\n")
        kill_members(bench.directory)
    assert victim.returncode == -signal.SIGKILL


async def test_names_make_no_paths(cgroups: ProcessDriver, bench: Bench) -> None:
    handles = [await cgroups.start(bench.request("true", replica="../../x y/z")) for _ in range(2)]
    first, second = (Path(dict(handle.extra)["cgroup"]) for handle in handles)
    assert first.parent == second.parent
    assert first.parent.name == f"stoker-{bench.instance}"
    assert first != second
    for handle in handles:
        await ended(cgroups, handle)


async def test_dead_orphans_are_taken_away_while_the_worker_lives(
    sessions: ProcessDriver, bench: Bench
) -> None:
    program = "(setsid sh -c 'sleep 0.2 & echo $! >orphan' &); exec sleep 600"
    handle = await sessions.start(bench.request("sh", "-c", program))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sessions.wait, handle)
        orphan = await pid_in(bench.directory / "orphan")
        await until(lambda: read_stat(orphan) is None, "the burial of the orphan")
        assert running(handle.pid)
        tasks.cancel_scope.cancel()
    await sessions.kill(handle)
    await ended(sessions, handle)


async def test_what_leaves_the_session_as_its_worker_crashes_is_caught(
    sessions: ProcessDriver, bench: Bench
) -> None:
    """In the middle of its exec a process shows no mark; a look at that moment must not be the last one."""
    for _ in range(20):
        handle = await sessions.start(bench.request("sh", "-c", "setsid sleep 600 & echo $! >child; exit 1"))
        assert (await ended(sessions, handle)).code == 1
        assert not running(int((bench.directory / "child").read_text()))


async def test_the_dead_of_others_are_left_to_them(bench: Bench) -> None:
    """A zombie that leads its own session, like the router's, and one in ours, like a probe's."""
    orphans = Orphans(bench.instance, lambda _: False, lambda _: False)
    others = [subprocess.Popen(["sh", "-c", "exit 3"], start_new_session=own) for own in (True, False)]
    pids = {other.pid for other in others}
    await until(lambda: pids <= own_zombies(), "the zombies")
    orphans.collect()
    assert [other.wait() for other in others] == [3, 3]


async def test_a_process_that_was_seen_with_a_mark_is_buried(bench: Bench) -> None:
    orphans = Orphans(bench.instance, lambda _: False, lambda _: False)
    environ = {"PATH": "/usr/bin:/bin", "STOKER_ID": f"{bench.instance}:a/b:c"}
    process = subprocess.Popen(["sleep", "600"], env=environ, start_new_session=True)
    await until(lambda: process.pid in {o.stat.pid for o in orphans.collect() if o.mark}, "its mark")
    process.kill()
    await until(lambda: process.pid in own_zombies(), "its end")
    orphans.collect()
    assert process.pid not in own_zombies()
    process.returncode = -signal.SIGKILL  # it was reaped behind its back


async def test_a_worker_that_wipes_its_environment_is_found_by_its_record(
    sessions: ProcessDriver, bench: Bench
) -> None:
    """As programs do that rewrite their title."""
    request = bench.request("sh", "-c", "exec env -i sleep 600")
    handle = await sessions.start(request)
    await until(lambda: Path(f"/proc/{handle.pid}/environ").read_bytes() == b"", "the wiping")
    async with aclosing(bench.driver()) as heir:
        found = await heir.find()
        assert [(one.handle, one.mark) for one in found] == [(handle, request.mark)]
        await heir.kill(await heir.recover(found[0]))
        await ended(heir, found[0].handle)


async def test_a_worker_without_a_record_is_found_by_its_mark(sessions: ProcessDriver, bench: Bench) -> None:
    """Its daemon died between the spawn and the record. The oldest leader of a session is the worker."""
    program = "setsid sleep 600 & echo $! >child; echo hello; wait; exit 1"
    request = bench.request("sh", "-c", program)
    handle = await sessions.start(request)
    await pid_in(bench.directory / "child")
    (bench.directory / "state" / "process.jsonl").unlink()
    async with aclosing(bench.driver()) as heir:
        found = await heir.find()
        assert [(one.handle.pid, one.mark) for one in found] == [(handle.pid, request.mark)]
        await heir.recover(found[0])
        os.kill(handle.pid, signal.SIGKILL)
        assert (await ended(heir, found[0].handle)).detail == "hello"


async def test_a_worker_that_ends_before_it_is_taken_over(sessions: ProcessDriver, bench: Bench) -> None:
    """It is taken over all the same, so that its end is told and its leftovers are ended."""
    handle = await sessions.start(bench.request("sh", "-c", "setsid sleep 600 & echo $! >child; wait"))
    child = await pid_in(bench.directory / "child")
    async with aclosing(bench.driver()) as heir:
        (found,) = await heir.find()
        os.kill(handle.pid, signal.SIGKILL)
        os.waitpid(handle.pid, 0)
        status = await ended(heir, await heir.recover(found))
        assert (status.code, status.signal, status.detail) == (
            None,
            None,
            "it ended before it was taken over",
        )
    assert not running(child)


async def test_closing_leaves_workers_running(sessions: ProcessDriver, bench: Bench) -> None:
    handle = await sessions.start(bench.request("sleep", "600"))
    await sessions.aclose()
    assert running(handle.pid)


async def test_an_unwritable_state_directory_is_said_and_borne(bench: Bench) -> None:
    (bench.directory / "state").write_text("a file where the directory should be")
    async with aclosing(bench.driver()) as driver:
        handle = await driver.start(bench.request("sleep", "600"))
        await driver.kill(handle)
        assert (await ended(driver, handle)).signal == signal.SIGKILL
