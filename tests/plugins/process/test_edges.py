"""Readings of /proc and of logs, records on disk, limits: the edges of the process driver."""

import os
import resource
import select
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from stoker.errors import WorkerError
from stoker.model.replica import WorkerHandle
from stoker.model.service import Limits
from stoker.plugin.local import find_command, last_line
from stoker.plugin.manager import PluginRegistry
from stoker.plugin.ports import StartRequest
from stoker_process import plugin, procfs
from stoker_process.exits import exit_status
from stoker_process.launch import order_of
from stoker_process.records import Record, Records
from stoker_process.worker import Measure, Worker


def request(directory: Path, *argv: str, **environ: str) -> StartRequest:
    return StartRequest(
        replica="web-1",
        service="shop/web",
        mark="edges:shop/web:web-1",
        argv=argv,
        environ=environ,
        working_dir=str(directory),
        log_path=str(directory / "web.log"),
        endpoint="127.0.0.1:1",
    )


def test_the_plugin_brings_the_driver() -> None:
    registry = PluginRegistry()
    registry.register("process", plugin)
    assert registry.names("driver") == ["process"]


def test_a_process_may_have_any_name(tmp_path: Path) -> None:
    """The name stands in parentheses in /proc/PID/stat and may contain them."""
    tool = tmp_path / "a) Z (b"
    tool.symlink_to("/bin/sleep")
    with subprocess.Popen([tool, "600"], start_new_session=True) as process:
        stat = procfs.read_stat(process.pid)
        process.kill()
    assert stat is not None
    assert (stat.ppid, stat.session, stat.zombie) == (os.getpid(), process.pid, False)


def test_what_is_gone_is_none() -> None:
    with subprocess.Popen(["true"]) as process:
        pass
    assert procfs.read_stat(process.pid) is None
    assert procfs.read_mark(process.pid) == ""
    assert procfs.read_mark(os.getpid()) is not None
    assert procfs.cgroup_paths(process.pid) == {}


def test_only_the_very_process_is_recognised() -> None:
    stat = procfs.read_stat(os.getpid())
    assert stat is not None
    mine = {
        "driver": "process",
        "pid": os.getpid(),
        "start_time": stat.start_time,
        "boot_id": procfs.boot_id(),
    }
    assert procfs.same_process(WorkerHandle(**mine)) is not None
    assert procfs.same_process(WorkerHandle(**mine | {"start_time": stat.start_time - 1})) is None
    assert procfs.same_process(WorkerHandle(**mine | {"boot_id": "another"})) is None


@pytest.mark.parametrize(("program", "code", "signum"), [("exit 42", 42, None), ("kill -11 $$", None, 11)])
def test_the_exit_of_a_stranger_is_told(
    tmp_path: Path, program: str, code: int | None, signum: int | None
) -> None:
    """A grandchild whose parent leaves it a zombie, as a slow init does."""
    patient = f"while [ ! -e go ]; do sleep 0.01; done; {program}"
    argv = ["sh", "-c", f"sh -c '{patient}' & echo $!; exec sleep 600"]
    with subprocess.Popen(argv, cwd=tmp_path, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        stat = procfs.read_stat(pid)
        pidfd = os.pidfd_open(pid)
        assert stat is not None
        (tmp_path / "go").touch()
        assert select.select([pidfd], [], [], 10)[0]
        status = exit_status(pidfd, pid, stat.start_time)
        parent.kill()
    os.close(pidfd)
    assert (status.code, status.signal) == (code, signum)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", ""),
        (b"one\ntwo\n\n \n", "two"),
        (b"no end of line", "no end of line"),
        (b"x" * 9000, "x" * 200),
        (b"\xff\xfe\x00!\n", "\ufffd\ufffd!"),
        (b"first\n\x1b[0m\n", "[0m"),
    ],
)
def test_the_last_line_of_a_log(tmp_path: Path, content: bytes, line: str) -> None:
    (tmp_path / "log").write_bytes(content)
    assert last_line(str(tmp_path / "log")) == line


def test_a_missing_log_has_no_last_line(tmp_path: Path) -> None:
    assert last_line(str(tmp_path / "log")) == ""


def test_records_survive_and_torn_ones_are_skipped(
    tmp_path: Path, log: Callable[[str], None], said: list[str]
) -> None:
    path = tmp_path / "workers.jsonl"
    records = Records(path, log)
    assert list(records) == []
    kept = Record("a:b/c:d", 1, 2, "boot", "/log", "/cgroup")
    gone = Record("a:b/c:e", 3, 4, "boot")
    records.write(kept)
    records.write(gone)
    records.remove(gone)
    records.remove(gone)
    records.close()
    with path.open("a") as file:
        file.write('["7.8", {"another": "version"}]\n["5.6", {"mark": "a:')
    assert list(Records(path, log)) == [kept]
    assert len(said) == 1


def test_usage_is_the_mean_since_the_last_asking() -> None:
    boot_seconds = int(Path("/proc/uptime").read_text().split(".")[0])
    started = (boot_seconds - 100) * procfs.TICKS
    worker = Worker(Record("m", 1, started, "boot"), None, child=True)
    assert worker.use(Measure(50.0, 7), now=1000.0).cpu == pytest.approx(0.5, rel=0.05)
    assert worker.use(Measure(54.0, 7), now=1002.0).cpu == 2.0
    assert worker.use(Measure(53.0, 7), now=1003.0).cpu == 0.0  # a process that was not waited for is lost
    assert worker.use(Measure(53.0, 7), now=1003.0).cpu == 0.0


def test_a_limit_above_the_hard_one_is_cut_and_said(tmp_path: Path, said: list[str]) -> None:
    ceiling = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if ceiling == resource.RLIM_INFINITY:
        pytest.skip("no hard limit here")
    wanted = replace(request(tmp_path, "sh", PATH="/usr/bin:/bin"), limits=Limits(nofile=ceiling + 1))
    ((kind, given),) = order_of(wanted, said.append).limits
    assert kind == resource.RLIMIT_NOFILE
    assert (given, bool(said)) in {(ceiling, True), (ceiling + 1, False)}  # the latter where we may raise it


def test_a_directory_or_an_unreachable_file_is_no_command(tmp_path: Path) -> None:
    (tmp_path / "one" / "tool").mkdir(parents=True)
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "tool").write_text("#!/bin/sh\n")
    path = f"{tmp_path}/missing:{tmp_path}/one:{tmp_path}/two:three"
    with pytest.raises(WorkerError, match=r"two/tool is not executable") as caught:
        find_command(request(tmp_path, "tool", PATH=path))
    assert caught.value.permanent
    (tmp_path / "three").mkdir()
    (tmp_path / "three" / "tool").symlink_to("/bin/true")
    assert find_command(request(tmp_path, "tool", PATH=path)) == f"{tmp_path}/three/tool"


def test_without_a_path_the_usual_places_are_searched(tmp_path: Path) -> None:
    assert find_command(request(tmp_path, "sh")).endswith("/bin/sh")
