"""What the daemon hears from workers whose startup probe is `notify: true`."""

import array
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import asynccontextmanager
from pathlib import Path
from stat import S_IMODE

import anyio
import pytest

from stoker.errors import WorkerError
from stoker.runtime.notify import WorkerNotify

pytestmark = pytest.mark.anyio

SEND = """
import os, socket, sys
if len(sys.argv) > 3:
    os.setuid(int(sys.argv[3]))  # here and not by Popen: that user may not be able to read this Python
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.connect(sys.argv[1])
s.send(sys.argv[2].encode())
sys.stdin.read()  # stay to be looked at
"""


class Heard:
    """Collects what WorkerNotify calls back."""

    def __init__(self, runtime_dir: Path) -> None:
        self.ready: list[tuple[str, str]] = []
        self.notes: list[tuple[str, str]] = []
        self.notify = WorkerNotify(
            str(runtime_dir),
            lambda replica, status: self.ready.append((replica, status)),
            lambda replica, text: self.notes.append((replica, text)),
        )

    @asynccontextmanager
    async def listening(self):
        async with anyio.create_task_group() as group:
            group.start_soon(self.notify.run)
            await anyio.wait_all_tasks_blocked()
            yield
            group.cancel_scope.cancel()


async def until(condition: Callable[[], object]) -> None:
    with anyio.fail_after(10):
        while not condition():
            await anyio.sleep(0.005)


@pytest.fixture
def heard(tmp_path: Path) -> Heard:
    return Heard(tmp_path)


def send(path: str, text: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect(path)
        sender.send(text.encode())


@asynccontextmanager
async def worker(
    path: str, text: str, *, environ: dict[str, str], uid: int | None = None, new_session: bool = False
):
    """A real process that sends `text` to `path` and stays alive."""
    argv = [sys.executable, "-S", "-c", SEND, path, text, *([] if uid is None else [str(uid)])]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, env=environ, start_new_session=new_session)
    try:
        yield process
    finally:
        process.stdin.close()
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(process.wait)


async def test_ready_with_its_status_reaches_the_daemon(heard: Heard) -> None:
    path = heard.notify.open("infer-k3x9")
    assert path == heard.notify.path_for("infer-k3x9")
    async with (
        heard.listening(),
        worker(path, "STATUS=model loaded\nREADY=1\n", environ={"NOTIFY_SOCKET": path}),
    ):
        await until(lambda: heard.ready)
    assert heard.ready == [("infer-k3x9", "model loaded")]


async def test_a_socket_opened_while_listening_is_heard_and_told_apart(heard: Heard) -> None:
    async with heard.listening():
        paths = [heard.notify.open(name) for name in ("a-1", "a-2")]
        send(paths[1], "READY=1")
        await until(lambda: heard.ready)
        send(paths[0], "READY=1")
        await until(lambda: len(heard.ready) == 2)
    assert heard.ready == [("a-2", ""), ("a-1", "")]


async def test_what_came_before_we_listened_is_not_lost(heard: Heard) -> None:
    send(heard.notify.open("a-1"), "READY=1")
    async with heard.listening():
        await until(lambda: heard.ready)


async def test_status_and_stopping_are_noted_and_are_not_ready(heard: Heard) -> None:
    async with heard.listening():
        path = heard.notify.open("a-1")
        send(path, "STATUS=loading \x1b[31m3/7\nX_OTHER=1\nno equals sign")
        send(path, "STOPPING=1")
        await until(lambda: len(heard.notes) == 2)
    assert heard.notes == [("a-1", "says: loading [31m3/7"), ("a-1", "says that it is stopping")]
    assert heard.ready == []


async def test_the_environment_of_another_replica_is_refused(heard: Heard) -> None:
    async with heard.listening():
        path, other = heard.notify.open("a-1"), heard.notify.open("a-2")
        async with worker(path, "READY=1", environ={"NOTIFY_SOCKET": other}) as process:
            await until(lambda: heard.notes)
    assert heard.ready == []
    assert heard.notes == [
        ("a-1", f"refused a notification from pid {process.pid}: its own NOTIFY_SOCKET is another one")
    ]


async def test_a_stranger_of_the_same_user_is_refused_once_the_worker_is_known(heard: Heard) -> None:
    async with heard.listening():
        path = heard.notify.open("a-1")
        async with worker(path, "", environ={"NOTIFY_SOCKET": path}, new_session=True) as main:
            heard.notify.claim("a-1", main.pid)
            async with worker(path, "READY=1", environ={}):
                await until(lambda: heard.notes)
    assert heard.ready == []
    assert f"does not belong to the worker (pid {main.pid})" in heard.notes[0][1]


async def test_a_worker_without_its_environment_is_known_by_its_pid(heard: Heard) -> None:
    async with heard.listening():
        path = heard.notify.open("a-1")
        heard.notify.claim("a-1", os.getpid())
        async with worker(path, "READY=1", environ={}, new_session=True):  # a child of the claimed pid
            await until(lambda: heard.ready)
    assert heard.notes == []


async def test_a_sender_that_is_gone_already_is_believed(heard: Heard) -> None:
    path = heard.notify.open("a-1")
    heard.notify.claim("a-1", 1)
    argv = [sys.executable, "-S", "-c", SEND, path, "READY=1"]
    subprocess.run(argv, stdin=subprocess.DEVNULL, env={}, check=True)
    async with heard.listening():
        await until(lambda: heard.ready)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to run a process as another user")
async def test_another_user_is_refused(tmp_path: Path) -> None:
    for directory in (tmp_path, *tmp_path.parents):
        directory.chmod(directory.stat().st_mode | 0o011)
    (tmp_path / "run").mkdir(mode=0o700)
    heard = Heard(tmp_path / "run")
    async with heard.listening():
        path = heard.notify.open("a-1", uid=12345)
        assert os.stat(path).st_uid == 12345
        assert S_IMODE(os.stat(path).st_mode) == 0o600
        async with worker(path, "READY=1", environ={"NOTIFY_SOCKET": path}, uid=12345):
            await until(lambda: heard.ready)
        Path(path).chmod(0o666)  # even where the file would let it in
        async with worker(path, "READY=1", environ={"NOTIFY_SOCKET": path}, uid=54321):
            await until(lambda: heard.notes)
    assert len(heard.ready) == 1
    assert "runs as uid 54321, the worker as uid 12345" in heard.notes[0][1]


async def test_descriptors_that_come_along_are_not_kept(heard: Heard) -> None:
    async with heard.listening():
        path = heard.notify.open("a-1")
        before = len(os.listdir("/proc/self/fd"))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect(path)
            fds = array.array("i", [0, 1, 2])
            sender.sendmsg([b"READY=1"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
        await until(lambda: heard.ready)
        assert len(os.listdir("/proc/self/fd")) == before


async def test_closing_removes_the_socket_and_stops_listening(heard: Heard) -> None:
    async with heard.listening():
        path = heard.notify.open("a-1")
        before = len(os.listdir("/proc/self/fd"))
        await anyio.wait_all_tasks_blocked()
        heard.notify.close("a-1")
        heard.notify.close("a-1")
        heard.notify.claim("a-1", 1)
        await until(lambda: len(os.listdir("/proc/self/fd")) == before - 1)
        assert not Path(path).exists()


async def test_ending_removes_every_socket(heard: Heard) -> None:
    before = len(os.listdir("/proc/self/fd"))
    heard.notify.open("a-1")
    async with heard.listening():
        heard.notify.open("a-2")
    assert list(Path(heard.notify.path_for("x")).parent.iterdir()) == []
    await until(lambda: len(os.listdir("/proc/self/fd")) <= before)


async def test_opening_anew_takes_over_what_a_dead_daemon_left(heard: Heard, tmp_path: Path) -> None:
    left_over = Heard(tmp_path)
    left_over.notify.open("a-1")
    async with heard.listening():
        path = heard.notify.open("a-1")
        send(path, "READY=1")
        await until(lambda: heard.ready)
    left_over.notify.close("a-1")


def test_a_path_too_long_for_the_kernel_is_said(tmp_path: Path) -> None:
    deep = WorkerNotify(str(tmp_path / ("d" * 100)), lambda replica, status: None)
    with pytest.raises(WorkerError, match=r"longer than 107 bytes.*shorter runtime directory") as caught:
        deep.open("a-1")
    assert caught.value.permanent


def test_a_directory_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkerError, match=r"cannot make the notify socket .*: Not a directory"):
        WorkerNotify(str(tmp_path / "file"), lambda replica, status: None).open("a-1")
