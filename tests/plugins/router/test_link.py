"""The daemon's side: one program per instance, found again, started again, ended; addresses; no orphan."""

import asyncio
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from plugins.router.harness import (
    SERVICE,
    Facts,
    Router,
    client,
    context,
    end_program,
    get,
    linked,
    program,
    program_pid,
    together,
    until,
    worker,
)
from stoker.model.state import Route, RoutingTable, WorkerRoute
from stoker.plugin.manager import PluginRegistry
from stoker.plugin.ports import PluginContext
from stoker.plugin.ports import Router as RouterPort
from stoker.plugin.testing.free_ports import free_port
from stoker_router import launch, protocol
from stoker_router.channel import Channel
from stoker_router.link import ProgramLink
from stoker_router.wire import encode_table

pytestmark = pytest.mark.anyio


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


# --- the program's life -----------------------------------------------------------------------------------


def test_the_plugin_brings_the_router(tmp_path: Path) -> None:
    registry = PluginRegistry()
    registry.load()
    made = registry.factory("router", "stoker")(context(tmp_path))
    assert isinstance(made, RouterPort)


async def test_the_program_outlives_its_daemon_and_is_found_again(fresh: PluginContext) -> None:
    async with worker() as w:
        async with linked(fresh) as first:
            port = await first.route(w.route(2))
            pid = first.link.pid
        assert (await get(port)).status == 200, "it does not serve without a daemon"
        async with linked(fresh) as second:
            assert second.link.pid == pid
            assert (await get(port)).status == 200, "a daemon that knows nothing yet must change nothing"
            assert await second.route(w.route(2)) == port
            assert second.facts.troubles == []
            assert (await get(port)).status == 200


async def test_no_request_fails_when_the_daemon_comes_and_goes(fresh: PluginContext) -> None:
    async with worker() as w:
        async with linked(fresh) as router:
            port = await router.route(w.route(4))
        done = False

        async def load() -> set[int]:
            found = set()
            async with client(port) as c:
                while not done:
                    c.get()
                    found.add((await c.answer()).status)
            return found

        running = asyncio.ensure_future(load())
        for _ in range(10):
            async with linked(fresh) as router:
                await router.route(w.route(4))
        done = True
        assert await running == {200}


async def test_a_killed_program_is_started_again_with_its_table(fresh: PluginContext) -> None:
    async with worker() as w, linked(fresh) as router:
        port = await router.route(w.route(2))  # port 0: chosen by the router, and kept
        await get(port)
        for _ in range(2):
            pid = router.link.pid
            began = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            await until(lambda old=pid: router.link.pid not in (0, old))
            assert router.facts.troubles[-1][0] == ""
            assert str(pid) in router.facts.troubles[-1][1]
            await router.apply()
            assert router.facts.addresses[SERVICE] == ("127.0.0.1", port)
            assert (await get(port)).status == 200
            assert time.monotonic() - began < 5
            assert not Path(f"/proc/{pid}").exists(), "a zombie was left"


async def test_a_new_daemon_hears_all_facts_anew(fresh: PluginContext) -> None:
    async with worker("a") as a, worker("b") as b:
        with socket.create_server(("127.0.0.1", 0)) as squatter:
            taken = squatter.getsockname()[1]
            for _ in range(2):
                async with linked(fresh) as router:
                    router._routes["app/x"] = Route(service="app/x", host="127.0.0.1", port=taken)
                    router._routes["app/y"] = Route(
                        service="app/y", host="127.0.0.1", port=0, protocol="grpc"
                    )
                    await router.route(a.route(1, draining=True), b.route(1))
                    await until(lambda found=router.facts: found.drains and len(found.troubles) == 2)
                    assert router.facts.drains == ["a"]
                    assert {service for service, _ in router.facts.troubles} == {"app/x", "app/y"}


async def test_a_table_that_was_given_early_is_applied_when_the_program_is_there(
    fresh: PluginContext,
) -> None:
    async with worker() as w:
        router, facts = ProgramLink(fresh), Facts()
        route = Route(service=SERVICE, host="127.0.0.1", port=0, workers=(w.route(1),))
        await router.apply(RoutingTable(routes={SERVICE: route}))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(router.run, facts)
            await until(lambda: facts.addresses)
            assert (await get(facts.addresses[SERVICE][1])).status == 200
            tasks.cancel_scope.cancel()


async def test_stop_finishes_what_is_in_flight_and_ends_the_program(fresh: PluginContext) -> None:
    async with worker() as w, linked(fresh) as router:
        port = await router.route(w.route(1))
        pid = router.link.pid
        async with client(port) as idle:
            pending = [asyncio.ensure_future(get(port, "/?ms=300")) for _ in range(2)]  # one waits
            await until(lambda: w.busy == 1)
            stopping = asyncio.ensure_future(router.link.stop(10.0))
            assert await idle.closed()
            with pytest.raises(ConnectionRefusedError):
                await get(port)
            answers = await together(*pending)
            assert [answer.status for answer in answers] == [200, 200]
            assert answers[0].fields["connection"] == "close"
            await asyncio.wait_for(stopping, 5)
        assert not Path(f"/proc/{pid}").exists()
        assert not Path(launch.control_path(fresh)).exists()
        assert router.facts.troubles == [], "an end that was asked for is no trouble"


async def test_stop_cuts_what_takes_longer_than_its_grace(fresh: PluginContext) -> None:
    async def endless(heard, reader, writer) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
        await reader.read()

    async with worker("slow") as slow, worker("endless", endless) as stream, linked(fresh) as router:
        port = await router.route(slow.route(1))
        other = await router.route(stream.route(1), service="app/other")
        pending = [asyncio.ensure_future(get(port, "/?ms=60000")) for _ in range(2)]
        async with client(other) as c:
            c.get()
            await c.head()
            await until(lambda: slow.busy == 1)
            began = time.monotonic()
            await router.link.stop(0.2)
            assert time.monotonic() - began < 3
            assert {answer.status for answer in await together(*pending)} == {503}
            assert await c.rest() == b"1\r\nx\r\n"
        await router.link.stop(1.0)  # there is none any more, which is no error


async def test_stop_works_without_run(fresh: PluginContext) -> None:
    async with linked(fresh) as router:
        pid = router.link.pid
    await ProgramLink(fresh).stop(1.0)
    assert not alive(pid)


async def test_a_program_of_another_daemon_is_left_alone(fresh: PluginContext) -> None:
    async with worker() as w:
        async with linked(fresh) as router:
            port = await router.route(w.route(1))
            pid = router.link.pid
        stranger, facts = ProgramLink(replace(fresh, instance="stranger")), Facts()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stranger.run, facts)
            await until(lambda: facts.troubles)
            await stranger.apply(RoutingTable())
            await stranger.stop(0.1)
            tasks.cancel_scope.cancel()
        service, message = facts.troubles[0]
        assert (service, len(facts.troubles)) == ("", 1), "the same trouble is said once"
        assert "belongs to another daemon" in message
        assert alive(pid)
        assert (await get(port)).status == 200


async def test_a_program_that_hangs_is_replaced(fresh: PluginContext) -> None:
    async with linked(fresh) as router:
        pid = router.link.pid
    os.kill(pid, signal.SIGSTOP)
    async with linked(fresh, hello_timeout=0.3) as router:
        assert router.link.pid != pid
        assert "did not answer" in router.facts.troubles[0][1]
    assert not alive(pid)


async def test_a_program_of_another_version_is_replaced(fresh: PluginContext) -> None:
    heard: list[str] = []

    async def old_program(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            heard.append(json.loads(line)["op"])
            if heard[-1] == "hello":
                answer = {"op": "hello", "version": 0, "pid": 1, "instance": fresh.instance}
                writer.write(json.dumps(answer).encode() + b"\n")
            else:
                server.close()
                writer.close()

    server = await asyncio.start_unix_server(old_program, launch.control_path(fresh))
    async with linked(fresh) as router:
        assert heard == ["hello", "sockets", "stop"]
        assert "another version" in router.facts.troubles[0][1]
        assert router.link.pid not in (0, os.getpid())


async def bridged(router: Router, *services: str) -> None:
    """Wait until the end of the program would not close these addresses."""
    await until(lambda: router.link.bridged == set(services), "there is no copy of a listening socket")


async def test_no_connection_is_refused_while_a_killed_program_is_replaced(fresh: PluginContext) -> None:
    async with worker() as w, linked(fresh) as router:
        port = await router.route(w.route(4))
        for _ in range(3):
            await bridged(router, SERVICE)
            pid = router.link.pid
            os.kill(pid, signal.SIGKILL)
            await until(lambda old=pid: not alive(old))
            pending = [asyncio.ensure_future(get(port)) for _ in range(20)]
            assert {answer.status for answer in await together(*pending)} == {200}
            assert router.link.pid not in (0, pid)


async def test_an_address_that_was_given_up_is_refused_although_there_was_a_copy(
    fresh: PluginContext,
) -> None:
    async with worker() as w, linked(fresh) as router:
        port = await router.route(w.route(1))
        other = await router.route(w.route(1), service="app/other")
        await bridged(router, SERVICE, "app/other")
        del router._routes["app/other"]
        await router.apply()
        with pytest.raises(ConnectionRefusedError):
            await get(other)
        pid = router.link.pid
        os.kill(pid, signal.SIGKILL)
        await until(lambda: router.link.pid not in (0, pid))
        assert (await get(port)).status == 200
        with pytest.raises(ConnectionRefusedError):
            await get(other)


async def test_a_program_of_another_version_finishes_while_its_successor_serves(
    fresh: PluginContext, tmp_path: Path
) -> None:
    copy = tmp_path / "older"
    shutil.copytree(Path(protocol.__file__).parent, copy / "stoker_router")
    source = copy / "stoker_router" / "protocol.py"
    source.write_text(source.read_text().replace(f"VERSION = {protocol.VERSION}", "VERSION = 0"))
    async with worker() as w:
        with program(fresh, source=copy) as old:
            port = await routed_by_hand(fresh, w.route(8))
            slow = asyncio.ensure_future(get(port, "/?ms=1500"))
            await until(lambda: w.busy == 1)
            done = False

            async def load() -> set[int]:
                found = set()
                while not done:
                    found.add((await get(port)).status)
                return found

            running = [asyncio.ensure_future(load()) for _ in range(4)]
            async with linked(fresh) as router:
                assert await router.route(w.route(8)) == port
                assert router.link.pid != old.pid
                assert "another version" in router.facts.troubles[0][1]
                assert alive(old.pid), "it has a request to finish"
                assert (await slow).status == 200
                await until(lambda: not alive(old.pid))
                done = True
                assert await together(*running) == [{200}] * 4


async def test_what_a_former_program_has_in_flight_counts(fresh: PluginContext, tmp_path: Path) -> None:
    """As load, and for drains: the daemon must not take a worker for unused that the old one still asks."""
    copy = tmp_path / "older"
    shutil.copytree(Path(protocol.__file__).parent, copy / "stoker_router")
    source = copy / "stoker_router" / "protocol.py"
    source.write_text(source.read_text().replace(f"VERSION = {protocol.VERSION}", "VERSION = 0"))
    async with worker("a") as a, worker("b") as b:
        with program(fresh, "--sample-every", "0.1", source=copy) as old:
            port = await routed_by_hand(fresh, a.route(8))
            a.gate.clear()
            slow = [asyncio.ensure_future(get(port)) for _ in range(3)]
            await until(lambda: a.busy == 3)
            async with linked(fresh) as router:
                await router.route(a.route(8))
                await until(lambda: router.facts.samples and router.newest().in_flight == 3)
                assert router.newest().workers == {"a": 3}
                await router.route(a.route(8, draining=True), b.route(8))
                assert (await get(port)).body == b"b"
                await until(lambda: router.facts.total("completions") == 1)
                assert router.newest().in_flight == 3
                assert alive(old.pid)
                assert router.facts.drains == []
                a.gate.set()
                assert [answer.body for answer in await together(*slow)] == [b"a"] * 3
                await until(lambda: router.facts.drains == ["a"])
                await router.settled(arrivals=4)
                assert router.facts.codes() == {"2xx": 4}


async def routed_by_hand(made: PluginContext, to: WorkerRoute) -> int:
    """Say a table to a program without a link; the port that it has opened."""
    channel = await Channel.open(launch.control_path(made))
    assert channel is not None
    table = RoutingTable(routes={SERVICE: Route(service=SERVICE, host="127.0.0.1", port=0, workers=(to,))})
    async with channel:
        await channel.send({"op": "hello", "instance": made.instance})
        assert (await channel.receive())["version"] == 0
        await channel.send({"op": "apply", "id": 1, "routes": encode_table(table, {})})
        while (heard := await channel.receive())["op"] != "bound":
            assert heard["op"] == "applied"
        return int(heard["port"])


async def test_a_program_that_cannot_start_is_explained(tmp_path: Path) -> None:
    made = context(tmp_path)
    (tmp_path / "run" / "router.sock").mkdir()  # nothing can be bound there
    service, message = await first_trouble(made)
    assert service == ""
    assert "router.sock" in message
    assert "router.log" in message


async def first_trouble(made: PluginContext) -> tuple[str, str]:
    """What is said by a link that cannot have a program."""
    router, facts = ProgramLink(made), Facts()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(router.run, facts)
        await until(lambda: facts.troubles)
        tasks.cancel_scope.cancel()
    return facts.troubles[0]


async def test_a_log_that_cannot_be_written_is_explained(tmp_path: Path) -> None:
    made = context(tmp_path)
    (tmp_path / "state" / "logs").write_text("a file in place of the directory")
    _, message = await first_trouble(made)
    assert "cannot write the router's log" in message


async def test_a_runtime_directory_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    made = replace(context(tmp_path), runtime_dir=str(tmp_path / "file" / "run"))
    service, message = await first_trouble(made)
    assert service == ""
    assert f"runtime directory {tmp_path}/file/run: Not a directory" in message


# --- where and as what it runs ----------------------------------------------------------------------------


async def test_it_runs_on_its_own_with_next_to_no_environment(fresh: PluginContext) -> None:
    async with linked(fresh) as router:
        pid = router.link.pid
        assert os.getsid(pid) == pid
        environ = Path(f"/proc/{pid}/environ").read_bytes()
        assert b"HF_TOKEN" not in environ
        assert {part.split(b"=")[0] for part in environ.split(b"\0") if part} <= {
            b"PATH",
            b"LANG",
            b"PYTHONPATH",
        }
        assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"
        log = Path(fresh.state_dir) / "logs" / "router.log"
        assert os.readlink(f"/proc/{pid}/fd/1") == os.readlink(f"/proc/{pid}/fd/2") == str(log)
        assert "serving" in log.read_text()
        mode = os.stat(launch.control_path(fresh)).st_mode
        assert stat.S_IMODE(mode) == 0o600
        limits = Path(f"/proc/{pid}/limits").read_text()
        soft, hard = next(line for line in limits.splitlines() if "open files" in line).split()[3:5]
        assert soft == hard


async def test_a_runtime_directory_with_a_long_name(tmp_path: Path) -> None:
    made = context(tmp_path / ("long" * 20) / ("longer" * 15))
    path = Path(launch.control_path(made))
    assert len(str(path)) < 100
    assert path.parent.stat().st_uid == os.geteuid()
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    try:
        async with linked(made) as router, worker() as w:
            assert (await get(await router.route(w.route(1)))).status == 200
            path.parent.chmod(0o755)
            with pytest.raises(launch.RouterError, match="somebody else"):
                launch.control_path(made)
            path.parent.chmod(0o700)
            await router.link.stop(0.0)
    finally:
        path.parent.rmdir()


def test_the_program_imports_next_to_nothing() -> None:
    """Its import time is the gap in service when it has to be started again."""
    heavy = [
        "pydantic",
        "starlette",
        "anyio",
        "click",
        "stoker",
        "httptools",
        "rich",
        "yaml",
        "psutil",
        "argparse",
    ]
    code = f"import sys, stoker_router.main; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "missing: control, instance, state-dir"),
        (["--control", "x", "--instance", "y"], "missing: state-dir"),
        (["--nonsense"], "option --nonsense not recognized"),
        (["--control", "x", "--instance", "y", "--state-dir", "z", "more"], "unexpected: more"),
    ],
)
def test_a_wrong_command_line_is_explained(arguments: list[str], message: str) -> None:
    argv = [sys.executable, "-m", "stoker_router", *arguments]
    found = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert found.stderr.startswith(message)
    assert "usage: " in found.stderr


# --- addresses --------------------------------------------------------------------------------------------


async def test_a_fixed_port_and_a_chosen_one(router: Router) -> None:
    async with worker() as w:
        fixed = free_port()
        assert await router.route(w.route(1), port=fixed) == fixed
        chosen = await router.route(w.route(1), service="app/other")
        assert chosen not in (0, fixed)
        assert (await get(fixed)).status == (await get(chosen)).status == 200
        await router.route(w.route(2), service="app/other")
        assert router.facts.addresses["app/other"][1] == chosen, "a chosen port is kept"


async def test_a_port_that_is_taken_is_said_and_tried_again(router: Router) -> None:
    async with worker() as w:
        other = await router.route(w.route(1), service="app/other")
        with socket.create_server(("127.0.0.1", 0)) as squatter:
            port = squatter.getsockname()[1]
            route = Route(service=SERVICE, host="127.0.0.1", port=port, workers=(w.route(1),))
            router._routes[SERVICE] = route
            await router.apply()
            await until(lambda: router.facts.troubles)
            service, message = router.facts.troubles[0]
            assert service == SERVICE
            assert f"127.0.0.1:{port} is already taken" in message
            assert (await get(other)).status == 200
            await router.apply()
        await until(lambda: SERVICE in router.facts.addresses)
        assert (await get(port)).status == 200
        assert len(router.facts.troubles) == 1, "the same trouble is said once"


async def test_as_long_as_the_new_address_cannot_be_had_the_old_one_serves(router: Router) -> None:
    async with worker() as w:
        old = await router.route(w.route(1))
        with socket.create_server(("127.0.0.1", 0)) as squatter:
            new = squatter.getsockname()[1]
            await router.route(w.route(1), port=new)
            await until(lambda: router.facts.troubles)
            assert (await get(old)).status == 200
        await until(lambda: router.facts.addresses[SERVICE] == ("127.0.0.1", new))
        assert (await get(new)).status == 200
        with pytest.raises(ConnectionRefusedError):
            await get(old)


async def test_two_services_can_change_places(router: Router) -> None:
    one, two = free_port(), free_port()
    async with worker("a") as a, worker("b") as b:
        await router.route(a.route(1), service="app/a", port=one)
        await router.route(b.route(1), service="app/b", port=two)
        for name, port in (("app/a", two), ("app/b", one)):
            router._routes[name] = replace(router._routes[name], port=port)
        await router.apply()
        await until(
            lambda: router.facts.addresses == {"app/a": ("127.0.0.1", two), "app/b": ("127.0.0.1", one)}
        )
        assert ((await get(one)).body, (await get(two)).body) == (b"b", b"a")
        assert router.facts.troubles == []


async def test_the_same_port_at_another_host(router: Router) -> None:
    async with worker() as w:
        port = await router.route(w.route(1), port=free_port())
        for host in ("0.0.0.0", "127.0.0.1", "localhost"):
            await router.route(w.route(1), host=host)
            await until(lambda wanted=host: router.facts.addresses[SERVICE] == (wanted, port))
            assert (await get(port)).status == 200
        assert router.facts.troubles == []


async def test_a_better_wish_is_heard_at_once_while_a_bad_one_is_tried(router: Router) -> None:
    async with worker() as w:
        with socket.create_server(("127.0.0.1", 0)) as squatter:
            router._routes[SERVICE] = Route(
                service=SERVICE, host="127.0.0.1", port=squatter.getsockname()[1], workers=(w.route(1),)
            )
            await router.apply()
            await until(lambda: router.facts.troubles)
            port = await router.route(w.route(1), port=free_port())
            assert (await get(port)).status == 200


@pytest.mark.parametrize(("host", "word"), [("no.such.host.invalid", "no address"), ("192.0.2.1", "cannot")])
async def test_an_address_that_is_not_ours_is_said(router: Router, host: str, word: str) -> None:
    async with worker() as w:
        other = await router.route(w.route(1), service="app/other")
        router._routes[SERVICE] = Route(service=SERVICE, host=host, port=free_port())
        await router.apply()
        await until(lambda: router.facts.troubles)
        assert host in router.facts.troubles[0][1]
        assert word in router.facts.troubles[0][1]
        assert (await get(other)).status == 200


async def test_a_kept_connection_survives_a_move(router: Router) -> None:
    async with worker() as w:
        port = await router.route(w.route(1))
        async with client(port) as c:
            c.get()
            await c.answer()
            await router.route(w.route(1), port=free_port())
            c.get()
            assert (await c.answer()).status == 200


async def test_a_protocol_that_is_not_spoken_is_said(router: Router) -> None:
    async with worker() as w:
        port = await router.route(w.route(1), service="app/other")
        router._routes[SERVICE] = Route(service=SERVICE, host="127.0.0.1", port=0, protocol="grpc")
        await router.apply()
        await until(lambda: router.facts.troubles)
        assert router.facts.troubles[0][0] == SERVICE
        assert "grpc" in router.facts.troubles[0][1]
        assert (await get(port)).status == 200


# --- the control socket and the end -----------------------------------------------------------------------


async def test_what_is_said_to_the_control_socket_is_checked(fresh: PluginContext) -> None:
    async with worker() as w, linked(fresh) as router:
        port = await router.route(w.route(1))
        reader, writer = await asyncio.open_unix_connection(launch.control_path(fresh))
        for line in (
            "nonsense",
            "[]",
            '{"op": "nonsense"}',
            '{"op": "apply", "id": 1, "routes": []}',  # without a hello
            json.dumps({"op": "hello", "instance": fresh.instance}),
            '{"op": "apply", "id": 2, "routes": [{"service": "x"}]}',
            '{"op": "apply", "id": 3, "routes": [{"service": "x", "workers": [{"endpoint": "?"}]}]}',
            '{"op": "stop", "grace": "soon"}',
        ):
            writer.write(line.encode() + b"\n")
            answer = json.loads(await asyncio.wait_for(reader.readline(), 5))
            assert answer["op"] == ("hello" if "hello" in line else "error"), line
        writer.close()
        assert (await get(port)).status == 200


async def test_without_daemon_and_routes_it_ends(tmp_path: Path) -> None:
    made = context(tmp_path)
    with program(made, "--idle-exit", "0.3", "--check-every", "0.1") as process:
        await until(lambda: process.poll() is not None)
        assert process.returncode == 0
        assert not Path(launch.control_path(made)).exists()


async def test_with_routes_it_stays_until_they_are_gone(tmp_path: Path) -> None:
    made = context(tmp_path)
    with program(made, "--idle-exit", "0.2", "--check-every", "0.1") as process:
        async with worker() as w:
            async with linked(made) as router:
                port = await router.route(w.route(1))
            await later(0.8)
            assert (await get(port)).status == 200
            async with linked(made) as router:
                await router.apply()
                await later(0.5)
                assert process.poll() is None, "with a daemon it is the daemon who decides"
            await until(lambda: process.poll() is not None)
        assert process.returncode == 0


async def test_when_the_state_directory_is_gone_it_ends(tmp_path: Path) -> None:
    made = context(tmp_path)
    with program(made, "--check-every", "0.1") as process:
        async with worker() as w, linked(made) as router:
            await router.route(w.route(1))
            Path(made.state_dir).rename(tmp_path / "elsewhere")
            await later(0.4)
            assert process.poll() is None, "with a daemon it is the daemon who decides"
        await until(lambda: process.poll() is not None)
        assert process.returncode == 0


async def later(seconds: float) -> None:
    """Until so much time has passed in which something must not happen."""
    end = time.monotonic() + seconds
    await until(lambda: time.monotonic() > end)


async def test_there_is_one_program_per_socket(tmp_path: Path) -> None:
    made = context(tmp_path)
    with program(made) as process:
        argv = [sys.executable, "-m", "stoker_router", "--control", launch.control_path(made)]
        argv += ["--instance", "x", "--state-dir", made.state_dir]
        second = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert second.returncode == 1
        assert "another router serves it" in second.stderr
        assert await program_pid(made) == process.pid


async def test_it_ends_politely_on_sigterm(tmp_path: Path) -> None:
    made = context(tmp_path)
    with program(made) as process:
        async with worker() as w:
            async with linked(made) as router:
                port = await router.route(w.route(1))
            pending = asyncio.ensure_future(get(port, "/?ms=300"))
            await until(lambda: w.busy == 1)
            process.send_signal(signal.SIGHUP)  # a terminal that closes is not its business
            process.terminate()
            assert (await pending).status == 200
        await until(lambda: process.poll() is not None)
        assert process.returncode == 0


async def test_a_full_disk_does_not_end_it(tmp_path: Path) -> None:
    made = context(tmp_path)
    with open("/dev/full", "w") as full, program(made, stderr=full):
        async with worker() as w, linked(made) as router:
            assert (await get(await router.route(w.route(1)))).status == 200
            await router.link.stop(0.0)
            assert router.facts.troubles == []


async def test_a_program_with_nothing_to_do_does_not_wake_up(fresh: PluginContext) -> None:
    async with worker() as w, linked(fresh) as router:
        port = await router.route(w.route(1))
        await get(port)
        await router.settled(1)
        await until(lambda: w.closed_at)  # the idle connection to the worker was closed: the last timer
        pid = router.link.pid
        before = switches(pid)
        await later(2.0)
        assert switches(pid) - before <= 1


def switches(pid: int) -> int:
    """How often the process has gone to sleep."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("voluntary")).split()[1])


async def test_killing_the_program_for_a_test_leaves_nothing(tmp_path: Path) -> None:
    made = context(tmp_path)
    async with linked(made) as router:
        pid = router.link.pid
    await end_program(made)
    assert not alive(pid)
