"""The listening sockets outlive daemon and program, also when both die at once; and not for ever."""

import asyncio
import errno
import os
import resource
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from plugins.router.harness import (
    SERVICE,
    context,
    get,
    holding_of,
    linked,
    program_pid,
    together,
    until,
    worker,
)
from plugins.router.test_link import alive
from stoker.plugin import holder, holding
from stoker.plugin.copies import Copy
from stoker.plugin.holding import EVERY
from stoker.plugin.ports import PluginContext
from stoker.plugin.processes import gone

pytestmark = pytest.mark.anyio


def held(made: PluginContext) -> set[str]:
    """The services whose sockets the holder has."""
    line = holding_of(made)
    try:
        with closing_copies(line.withdraw()) as found:
            return set(found)
    finally:
        line.leave()


@contextmanager
def closing_copies(found: dict[str, Copy]) -> Iterator[dict[str, Copy]]:
    try:
        yield found
    finally:
        for copy in found.values():
            os.close(copy.fd)


def holders(made: PluginContext) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().decode().split("\0")
        except (OSError, ValueError):
            continue
        if made.instance in words and str(holder.__file__) in words:
            found.append(int(entry.name))
    return [pid for pid in found if alive(pid)]


async def test_no_connection_is_refused_when_daemon_and_program_die_together(fresh: PluginContext) -> None:
    async with worker() as w:
        async with linked(fresh) as router:
            port = await router.route(w.route(8))
            for name in ("a", "b"):
                await router.route(w.route(8), service=f"app/{name}")
            await until(lambda: held(fresh) == {SERVICE, "app/a", "app/b"})
            pid = router.link.pid
        for _ in range(2):
            os.kill(pid, signal.SIGKILL)
            await gone(pid, timeout=5)
            pending = [asyncio.ensure_future(get(port)) for _ in range(20)]
            await asyncio.sleep(0)
            async with linked(fresh) as router:
                assert await router.route(w.route(8)) == port
                assert {answer.status for answer in await together(*pending)} == {200}
                await until(lambda: held(fresh) == {SERVICE})
                pid = router.link.pid
        assert len(holders(fresh)) == 1


async def test_a_holder_that_was_killed_is_replaced(fresh: PluginContext) -> None:
    async with worker() as w, linked(fresh) as router:
        await router.route(w.route(1))
        await until(lambda: held(fresh) == {SERVICE})
        (pid,) = holders(fresh)
        os.kill(pid, signal.SIGKILL)
        await until(lambda: not alive(pid))
        await router.route(w.route(1), service="app/other")
        await until(lambda: held(fresh) == {SERVICE, "app/other"})
        assert holders(fresh) != [pid]


async def test_the_end_of_the_router_is_the_end_of_its_holder(tmp_path: Path) -> None:
    made = context(tmp_path)
    async with worker() as w, linked(made) as router:
        port = await router.route(w.route(1))
        await until(lambda: held(made) == {SERVICE})
        await router.link.stop(1.0)
        assert holders(made) == []
        with pytest.raises(ConnectionRefusedError):
            await get(port)
    assert not list(Path(made.runtime_dir).glob("*.keep*"))


@pytest.fixture
def crowded() -> Iterator[None]:
    """A process that has more descriptors than `select` can bear, as the daemon of 500 workers."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2048:
        pytest.skip(f"no more than {hard} descriptors are allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    taken = [os.open(os.devnull, os.O_RDONLY)]
    while taken[-1] < 1024:
        taken.append(os.open(os.devnull, os.O_RDONLY))
    try:
        yield
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("crowded")
async def test_descriptors_may_be_many(tmp_path: Path) -> None:
    made = context(tmp_path)
    async with worker() as w, linked(made) as router:
        await router.route(w.route(1))
        await until(lambda: held(made) == {SERVICE})
        await router.route(w.route(1), service="app/other")
        await until(lambda: held(made) == {SERVICE, "app/other"})
        await router.link.stop(1.0)
        assert holders(made) == []


async def test_an_address_that_is_given_up_is_held_no_more(fresh: PluginContext) -> None:
    async with worker() as w:
        async with linked(fresh) as router:
            await router.route(w.route(1))
            other = await router.route(w.route(1), service="app/other")
            await until(lambda: held(fresh) == {SERVICE, "app/other"})
        await end_of_program(fresh)
        async with linked(fresh) as router:  # it wants one of them only
            await router.route(w.route(1))
            await until(lambda: held(fresh) == {SERVICE})
            await until(lambda: refused(other))  # the program lets it go a little later


def refused(port: int) -> bool:
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED


async def end_of_program(made: PluginContext) -> None:
    """The program's alone, not the holder's."""
    pid = await program_pid(made)
    os.kill(pid, signal.SIGKILL)
    await gone(pid, timeout=5)


def test_another_daemon_gets_nothing(tmp_path: Path) -> None:
    made = context(tmp_path)
    stranger = PluginContext(instance="stranger", state_dir=made.state_dir, runtime_dir=made.runtime_dir)
    line = holding_of(made)
    try:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            copies = {SERVICE: Copy("127.0.0.1", listening.getsockname()[1], listening.fileno())}
            line.deposit(copies, {EVERY: os.getpid()})
        assert held(stranger) == set()
        assert held(made) == {SERVICE}
    finally:
        line.end()


@pytest.mark.parametrize("left", ["nobody", "a program", "a daemon"])
def test_it_holds_for_a_while_when_nobody_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    monkeypatch.setattr(holder, "PATIENCE", 0.2)
    monkeypatch.setattr(holding, "PATIENCE", 0.2)  # it is this process that is told to end
    made = context(tmp_path)
    path = str(Path(made.runtime_dir) / "router.keep")
    Path(made.runtime_dir).mkdir(exist_ok=True)
    Path(made.state_dir).mkdir(exist_ok=True)
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)) as listener:
        listener.bind(path)
        listener.listen()
        serving = threading.Thread(
            target=holder.Holder(listener, made.instance, made.state_dir).serve, daemon=True
        )
        serving.start()
        line = holding_of(made)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            copies = {SERVICE: Copy("127.0.0.1", listening.getsockname()[1], listening.fileno())}
            line.deposit(copies, {EVERY: os.getpid()} if left == "a program" else {})
        if left != "a daemon":
            line.leave()
        serving.join(5 if left == "nobody" else 0.6)
        assert serving.is_alive() == (left != "nobody")
        line.end()
        serving.join(5)
        assert not serving.is_alive()


def test_each_service_is_held_while_its_own_program_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where each has one: the socket of a program that is gone is let go, that of another is not."""
    monkeypatch.setattr(holder, "PATIENCE", 0.2)
    monkeypatch.setattr(holding, "PATIENCE", 5.0)
    made = context(tmp_path)
    path = str(Path(made.runtime_dir) / "router.keep")
    Path(made.runtime_dir).mkdir(exist_ok=True)
    Path(made.state_dir).mkdir(exist_ok=True)
    gone_by = subprocess.Popen(["sleep", "60"])
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)) as listener:
        listener.bind(path)
        listener.listen()
        serving = threading.Thread(
            target=holder.Holder(listener, made.instance, made.state_dir).serve, daemon=True
        )
        serving.start()
        line = holding_of(made)
        with socket.create_server(("127.0.0.1", 0)) as a, socket.create_server(("127.0.0.1", 0)) as b:
            ports = [one.getsockname()[1] for one in (a, b)]
            line.deposit(
                {
                    "x/a": Copy("127.0.0.1", ports[0], a.fileno()),
                    "x/b": Copy("127.0.0.1", ports[1], b.fileno()),
                },
                {"x/a": os.getpid(), "x/b": gone_by.pid},
            )
        line.leave()
        assert not refused(ports[1])
        gone_by.kill()
        gone_by.wait()
        deadline = time.monotonic() + 15
        while not refused(ports[1]):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert not refused(ports[0])
        line.end()
        serving.join(5)
        assert not serving.is_alive()
