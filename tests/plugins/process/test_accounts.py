"""Whom a worker runs as, what it may not gain, and where its temporary files are."""

import grp
import os
import pwd
import signal
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from stoker.errors import WorkerError
from stoker.model.replica import ExitStatus
from stoker.plugin.testing.driver_bench import Bench, ended, refused, running, until
from stoker_process.driver import ProcessDriver
from stoker_process.scratch import Scratch

pytestmark = [pytest.mark.anyio, pytest.mark.system]
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another")


@AS_ROOT
async def test_a_group_takes_the_place_of_the_users_own(sessions: ProcessDriver, bench: Bench) -> None:
    """With the user's further groups, and none of root's."""
    _, output = await bench.run(sessions, bench.request("id", user="nobody", group="daemon"))
    gid = grp.getgrnam("daemon").gr_gid
    assert f"uid=65534(nobody) gid={gid}(daemon)" in output
    assert "root" not in output


@AS_ROOT
async def test_a_group_without_a_user(sessions: ProcessDriver, bench: Bench) -> None:
    _, output = await bench.run(sessions, bench.request("id", group="daemon"))
    assert "uid=0(root)" in output
    assert "(daemon)" in output.split("gid=")[1].split()[0]


async def test_an_unknown_group_is_told(sessions: ProcessDriver, bench: Bench) -> None:
    await refused(sessions, bench.request("true", group="no-such-group"), "no-such-group", "`group`")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may become another")
async def test_only_root_gives_a_group(sessions: ProcessDriver, bench: Bench) -> None:
    await refused(sessions, bench.request("true", group="root"), "root", "`group`")


async def test_ones_own_user_and_group_need_no_root(sessions: ProcessDriver, bench: Bench) -> None:
    try:
        mine = {"user": pwd.getpwuid(os.geteuid()).pw_name, "group": grp.getgrgid(os.getegid()).gr_name}
    except KeyError:
        pytest.skip("this user has no name")
    status, _ = await bench.run(sessions, bench.request("true", **mine))
    assert status.code == 0


@AS_ROOT
async def test_services_of_two_users_cannot_read_each_others_environment(
    sessions: ProcessDriver, bench: Bench
) -> None:
    victim = await sessions.start(bench.request("sleep", "600", user="nobody", environ={"KEY": "hush"}))
    thief = bench.request("cat", f"/proc/{victim.pid}/environ", user="daemon", working_dir="/")
    status, output = await bench.run(sessions, thief)
    assert status.code != 0
    assert "hush" not in output
    friend = bench.request("cat", f"/proc/{victim.pid}/environ", user="nobody", working_dir="/")
    assert "hush" in (await bench.run(sessions, friend))[1]
    await sessions.kill(victim)
    await ended(sessions, victim)


async def test_the_umask_is_not_the_daemons(bench: Bench) -> None:
    before = os.umask(0)
    try:
        async with aclosing(bench.driver()) as driver:
            assert (await bench.run(driver, bench.request("sh", "-c", "umask")))[1] == "0022\n"
            request = bench.request("sh", "-c", "umask", umask=0o027)
            assert (await bench.run(driver, request))[1] == "0027\n"
    finally:
        os.umask(before)


async def test_no_setuid_program_gains_a_worker_anything(sessions: ProcessDriver, bench: Bench) -> None:
    _, output = await bench.run(sessions, bench.request("grep", "NoNewPrivs", "/proc/self/status"))
    assert output.split() == ["NoNewPrivs:", "1"]


def scratch_of(bench: Bench, replica: str) -> str:
    return f"{bench.directory}/stoker-{bench.instance}/{replica}"


async def test_temporary_files_go_with_their_worker(sessions: ProcessDriver, bench: Bench) -> None:
    where = scratch_of(bench, "web-1")
    program = f'[ "$TMPDIR" = {where} ] && stat -c %a . "$TMPDIR" && mkdir -p "$TMPDIR/a/b" && mktemp'
    request = bench.request("sh", "-c", program, tmp_dir=where, environ={"TMPDIR": where})
    status, output = await bench.run(sessions, request)
    assert (status.code, output.splitlines()[1]) == (0, "700")
    assert output.splitlines()[2].startswith(f"{where}/tmp.")
    await until(lambda: not os.path.exists(os.path.dirname(where)), "the removal")


@AS_ROOT
async def test_temporary_files_are_the_users_own(sessions: ProcessDriver, bench: Bench) -> None:
    where = f"/tmp/stoker-{bench.instance}/web-1"
    mine = bench.request("mktemp", user="nobody", tmp_dir=where, working_dir="/", environ={"TMPDIR": where})
    assert (await bench.run(sessions, mine))[0].code == 0
    handle = await sessions.start(bench.request("sleep", "600", user="nobody", tmp_dir=where))
    thief = bench.request("ls", where, user="daemon", working_dir="/")
    assert (await bench.run(sessions, thief))[0].code != 0
    await sessions.kill(handle)
    await ended(sessions, handle)


async def test_a_worker_makes_its_directory_itself_or_gets_it_emptied(
    sessions: ProcessDriver, bench: Bench
) -> None:
    first = await sessions.start(bench.request("sleep", "600", tmp_dir=scratch_of(bench, "web-1")))
    program = 'stat -c %a "$TMPDIR"; ls -A "$TMPDIR"; touch "$TMPDIR/mine"'
    for name in ("web-2", "web-3"):
        where = scratch_of(bench, name)
        if name == "web-3":
            os.makedirs(f"{where}/left/behind", 0o755)
        request = bench.request("sh", "-c", program, tmp_dir=where, environ={"TMPDIR": where})
        assert await bench.run(sessions, request) == (ExitStatus(code=0), "700\n")
    await sessions.kill(first)
    await ended(sessions, first)


@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "unrecorded"])
async def test_an_heir_removes_temporary_files(sessions: ProcessDriver, bench: Bench, recorded: bool) -> None:
    """Of a worker that it takes over, and of one that died with its daemon."""
    replica = f"web-{1 if recorded else 2}"
    where = scratch_of(bench, f"{replica}.7")
    mark = f"{bench.instance}:suite/web:{replica}"
    environ = {"TMPDIR": where, "STOKER_ID": mark}
    program = 'echo x >"$TMPDIR/file"; exec sleep 600'
    request = bench.request("sh", "-c", program, replica=replica, mark=mark, tmp_dir=where, environ=environ)
    handle = await sessions.start(request)
    await until(lambda: os.path.exists(f"{where}/file"), "the worker's file")
    if not recorded:
        (bench.directory / "state" / "process.jsonl").unlink()
    async with aclosing(bench.driver()) as heir:
        (found,) = await heir.find()
        taken = await heir.recover(found)
        await heir.kill(taken)
        await ended(heir, taken)
        assert taken.pid == handle.pid
    assert not os.path.exists(where)


async def test_temporary_files_of_a_worker_that_died_with_its_daemon(
    sessions: ProcessDriver, bench: Bench
) -> None:
    where = scratch_of(bench, "web-1")
    handle = await sessions.start(bench.request("sleep", "600", tmp_dir=where))
    os.kill(handle.pid, signal.SIGKILL)
    await until(lambda: not running(handle.pid), "the end of the worker")
    async with aclosing(bench.driver()) as heir:
        assert await heir.find() == []
    assert not os.path.exists(where)


async def test_a_place_of_the_services_own_is_never_removed(sessions: ProcessDriver, bench: Bench) -> None:
    """An unrecorded worker whose TMPDIR was declared: only the name of ours is ours."""
    precious = bench.directory / "precious"
    precious.mkdir()
    handle = await sessions.start(bench.request("sleep", "600", environ={"TMPDIR": str(precious)}))
    (bench.directory / "state" / "process.jsonl").unlink()
    async with aclosing(bench.driver()) as heir:
        (found,) = await heir.find()
        taken = await heir.recover(found)
        await heir.kill(taken)
        await ended(heir, taken)
    assert precious.is_dir()
    assert handle.pid == taken.pid


async def test_somebody_elses_directory_is_refused(tmp_path: Path, log: Callable[[str], None]) -> None:
    """Its name is no secret: who makes it first must not get to see the workers' files."""
    (tmp_path / "stoker-x").symlink_to(tmp_path)
    with pytest.raises(WorkerError, match="belongs to somebody else"):
        await Scratch(log).make(str(tmp_path / "stoker-x" / "web-1"), None)
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkerError, match="cannot make the directory"):
        await Scratch(log).make(str(tmp_path / "file" / "x" / "web-1"), None)
