"""What containers have beyond the suite: images, networks, memory, GPUs, probes, output over a restart."""

import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from stoker.errors import WorkerError
from stoker.model.device import Reservation
from stoker.model.replica import ExitStatus
from stoker.model.service import Command, Container, Limits, Probe, ServiceSpec
from stoker.plugin.ports import AskingDriver, CheckingDriver, PreparingDriver, ProbeResult, StartRequest
from stoker.plugin.testing.driver_bench import Bench, ended, only, running, text_of, until
from stoker.plugin.testing.free_ports import free_port
from stoker_podman.driver import ContainerDriver

pytestmark = [pytest.mark.system, pytest.mark.anyio]
BOX = Container(image="localhost/box:1")


@pytest.fixture
async def bench(anyio_backend: str, tmp_path: Path, sort) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path, factory=sort.factory, options=sort.options, environ={})
    yield bench
    await bench.end_everything()


@pytest.fixture
async def driver(bench: Bench) -> AsyncIterator[ContainerDriver]:
    async with aclosing(bench.driver()) as driver:
        assert isinstance(driver, ContainerDriver)
        yield driver


def in_image(bench: Bench, *argv: str, image: Container = BOX, **changes: object) -> StartRequest:
    return replace(bench.request(*argv, **changes), container=image, working_dir="")


async def fetched(port: int, inside: tuple[str, ...]) -> str:
    """What the server on that port says, once it answers."""
    words = [*inside, "busybox", "wget", "-q", "-O", "-", f"http://127.0.0.1:{port}/"]
    with anyio.fail_after(30):
        while (done := await anyio.run_process(words, check=False)).returncode:
            await anyio.sleep(0.05)
        return done.stdout.decode().strip()


async def test_an_image_has_its_own_files_and_variables_under_the_declared_ones(
    driver: ContainerDriver, bench: Bench, sort
) -> None:
    request = in_image(bench, "sh", "-c", "env; ls /", image=Container(image="localhost/server:1"))
    status, output = await bench.run(driver, request)
    assert status == ExitStatus(code=0)
    assert "FROM_IMAGE=yes" in output
    assert f"STOKER_ID={request.mark}" in output
    assert "work" not in output.splitlines()
    assert "container=" not in output
    assert "data" in output.splitlines()
    assert await anyio.to_thread.run_sync(sort.engine.volumes) == []  # that of /data went with its container


@pytest.mark.parametrize(
    ("sort", "network"),
    [("podman", "host"), ("podman", "bridge"), ("docker", "host"), ("bridged_docker", "bridge")],
    indirect=["sort"],
)
async def test_a_server_answers_on_its_port(
    driver: ContainerDriver, bench: Bench, network: str, sort
) -> None:
    port = free_port()
    inside = 8000 if network == "bridge" else None
    container = Container(image="localhost/server:1", network=network, port=inside)  # type: ignore[arg-type]
    environ = {"PORT": str(inside or port), "STOKER_REPLICA": "web-1"}
    request = replace(in_image(bench, image=container, environ=environ), endpoint=f"127.0.0.1:{port}")
    try:
        handle = await driver.start(request)
    except WorkerError as error:
        if network == "bridge" and ("plugin" in str(error) or "netavark" in str(error)):
            pytest.skip(f"no bridge networks here: {error}")
        raise
    assert await fetched(port, sort.engine.inside) == "hello web-1"
    await driver.kill(handle)
    assert await ended(driver, handle) == ExitStatus(signal=9)


async def test_what_is_mounted_is_seen(driver: ContainerDriver, bench: Bench) -> None:
    (bench.directory / "model").write_text("weights")
    mounts = (f"{bench.directory}:/models:ro",)
    request = in_image(
        bench, "sh", "-c", "cat /models/model; mkdir /models/x", image=replace(BOX, mounts=mounts)
    )
    status, output = await bench.run(driver, request)
    assert "weights" in output
    assert status.code == 1
    assert "ead-only" in output


async def test_who_uses_up_its_memory_is_told_so(driver: ContainerDriver, bench: Bench) -> None:
    hungry = "x=0123456789abcdef; while :; do x=$x$x; done"
    status, _ = await bench.run(driver, in_image(bench, "sh", "-c", hungry, limits=Limits(memory=32 << 20)))
    assert status.oom, status
    assert status.detail == "out of memory: used up its limit of 32Mi"


async def test_gpus_come_by_their_uuid(driver: ContainerDriver, bench: Bench, sort) -> None:
    if sort.name == "docker":  # its runtime hook, here one that does nothing, reads that variable
        request = replace(
            in_image(bench, "env"), reservations=(Reservation(uuid="GPU-a"), Reservation(uuid="GPU-b"))
        )
        assert "NVIDIA_VISIBLE_DEVICES=GPU-a,GPU-b" in (await bench.run(driver, request))[1]
        assert "NVIDIA_VISIBLE_DEVICES=void" in (await bench.run(driver, in_image(bench, "env")))[1]
        return
    place = Path("/run/cdi/stoker-test.json")
    if place.parent.exists():
        pytest.skip("this box has CDI devices of its own")
    edits = {"env": ["SEEN=GPU-a"]}
    devices = [{"name": "GPU-a", "containerEdits": edits}]
    place.parent.mkdir()
    try:
        place.write_text(json.dumps({"cdiVersion": "0.3.0", "kind": "nvidia.com/gpu", "devices": devices}))
        request = replace(in_image(bench, "env"), reservations=(Reservation(uuid="GPU-a"),))
        assert "SEEN=GPU-a" in (await bench.run(driver, request))[1]
        with pytest.raises(WorkerError, match="nvidia-ctk cdi generate") as caught:
            await driver.start(replace(request, reservations=(Reservation(uuid="GPU-b"),)))
        assert caught.value.permanent
    finally:
        place.unlink(missing_ok=True)
        place.parent.rmdir()


async def test_probes_run_in_the_container(driver: ContainerDriver, bench: Bench) -> None:
    assert isinstance(driver, AskingDriver)
    handle = await driver.start(in_image(bench, "sleep", "600", environ={"WHO": "inside"}))
    good = await driver.ask(handle, ["sh", "-c", "echo $WHO"])
    assert (good.ok, good.detail) == (True, "sh gave exit code 0: inside")
    assert not (await driver.ask(handle, ["sh", "-c", "exit 3"])).ok
    assert "nosuch" in (await driver.ask(handle, ["nosuch"])).detail


async def test_an_image_brings_a_check_of_its_own(driver: ContainerDriver, bench: Bench) -> None:
    assert isinstance(driver, CheckingDriver)
    image = Container(image="localhost/checked:1")
    await driver.prepare(spec_of(image), lambda text: None)
    handle = await driver.start(in_image(bench, "sleep", "600", image=image))
    check = driver.own_check(handle)
    assert check == Probe(exec=("/bin/sh", "-c", "grep well /tmp/state"), period=2.0, timeout=5.0, failures=2)
    unwell = await driver.ask(handle, check.exec)
    assert not unwell.ok
    assert unwell.detail.startswith(
        "its image's HEALTHCHECK gave exit code 2: grep: /tmp/state: No such file"
    )
    await driver.ask(handle, ["sh", "-c", "echo well >/tmp/state"])
    assert await driver.ask(handle, check.exec) == ProbeResult(
        ok=True, detail="its image's HEALTHCHECK gave exit code 0: well"
    )
    async with aclosing(bench.driver()) as heir:
        assert isinstance(heir, CheckingDriver)
        assert heir.own_check(await heir.recover(await only(heir))) == check
    plain = await driver.start(in_image(bench, "sleep", "600"))
    assert driver.own_check(plain) is None


def spec_of(container: Container) -> ServiceSpec:
    return ServiceSpec(deployment="d", name="web", launch=Command(()), working_dir="", container=container)


async def test_an_image_is_fetched_only_where_it_is_missing(driver: ContainerDriver) -> None:
    assert isinstance(driver, PreparingDriver)
    said: list[str] = []

    def spec(image: str, **more: str) -> ServiceSpec:
        return spec_of(Container(image=image, **more))  # type: ignore[arg-type]

    await driver.prepare(spec("localhost/box:1"), said.append)
    assert said == []
    with pytest.raises(WorkerError, match="pull: never"):
        await driver.prepare(spec("localhost/none:1", pull="never"), said.append)
    with pytest.raises(WorkerError, match=r"cannot pull image 127\.0\.0\.1:1/none:1"):
        await driver.prepare(spec("127.0.0.1:1/none:1"), said.append)
    assert said == ["pulling image 127.0.0.1:1/none:1"]
    await driver.prepare(spec("localhost/box:1", pull="always"), said.append)  # what is there will do


async def test_an_image_that_is_gone_is_told(driver: ContainerDriver, bench: Bench) -> None:
    with pytest.raises(WorkerError, match="localhost/none:1 is not on this box") as caught:
        await driver.start(in_image(bench, image=Container(image="localhost/none:1")))
    assert not caught.value.permanent


async def test_no_output_is_lost_or_told_twice_while_no_daemon_lives(
    driver: ContainerDriver, bench: Bench
) -> None:
    go = bench.directory / "go"
    words = f"echo one; until ls {go} >&- 2>&-; do sleep 0.05; done; echo two; printf three; mkdir {go}.done"
    words += "; exec sleep 600"
    mounts = (f"{bench.directory}:{bench.directory}",)
    request = in_image(bench, "sh", "-c", words, image=replace(BOX, mounts=mounts))
    handle = await driver.start(request)
    await until(lambda: text_of(request.log_path) == "one\n", "the first line")
    await driver.aclose()
    go.touch()
    raw = Path(dict(handle.extra)["raw"])
    await until(Path(f"{go}.done").exists, "what the worker has written")
    assert text_of(request.log_path) == "one\n"
    async with aclosing(bench.driver()) as heir:
        taken = await heir.recover(await only(heir))
        await until(lambda: text_of(request.log_path).startswith("one\ntwo\n"), "the lines in between")
        await heir.kill(taken)
        await ended(heir, taken)
    assert text_of(request.log_path) == "one\ntwo\nthree"
    assert list(raw.parent.iterdir()) == []


async def test_containers_of_an_engine_that_is_away_are_held(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, sort
) -> None:
    """The next daemon has their records, and its driver asks again; one that ends meanwhile is told."""
    monkeypatch.setattr("stoker_podman.driver.LOOKING", 0.0)
    async with aclosing(bench.driver()) as first:
        stays = await first.start(in_image(bench, "sleep", "600"))
        ends = await first.start(in_image(bench, "sleep", "601"))
    socket = Path(bench.options["socket"])
    aside = socket.with_name("aside")
    async with aclosing(bench.driver()) as heir:
        socket.rename(aside)
        try:
            with pytest.raises(WorkerError, match=f"cannot reach {sort.name}"):
                await heir.find()
            os.kill(ends.pid, signal.SIGKILL)
            with anyio.fail_after(30):
                status = await heir.wait(ends)
            assert f"while {sort.name} could not be asked" in status.detail
            statuses = list[ExitStatus]()

            async def wait() -> None:
                statuses.append(await heir.wait(stays))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(wait)
                await anyio.wait_all_tasks_blocked()
                assert running(stays.pid)
                aside.rename(socket)
                [found] = await heir.find()
                assert found.handle == stays
                await heir.kill(await heir.recover(found))
                with anyio.fail_after(30):
                    while not statuses:
                        await anyio.sleep(0.05)
            assert statuses == [ExitStatus(signal=signal.SIGKILL)]
        finally:
            if aside.exists():
                aside.rename(socket)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
async def test_a_worker_can_be_stopped_while_its_engine_is_away(
    driver: ContainerDriver, bench: Bench, signum: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stoker_podman.driver.ENDING", 0.1)
    handle = await driver.start(in_image(bench, "sleep", "600"))
    other = await driver.start(in_image(bench, "sleep", "601"))
    socket = Path(bench.options["socket"])
    aside = socket.rename(socket.with_name("aside"))
    try:
        await driver.signal(handle, signum)
        await until(lambda: not running(handle.pid), "the end of the worker")
        await driver.signal(handle, signum)
        assert "does not know how it ended" in (await ended(driver, handle)).detail
    finally:
        aside.rename(socket)
    monkeypatch.undo()
    await driver.signal(other, signum)
    assert await ended(driver, other) == ExitStatus(signal=signum)
    async with aclosing(bench.driver()) as heir:
        assert await heir._kind.listed(bench.instance) == []


async def test_an_engine_that_is_not_there_is_told(bench: Bench, sort) -> None:
    options = bench.options
    words = {
        f"{bench.directory}/nobody": rf"cannot reach {sort.name} at .*nobody",
        "tcp://10.0.0.1:2375": r"tcp://10\.0\.0\.1:2375 is no unix socket of this box",
    }
    for socket, said in words.items():
        bench.options = {"socket": socket}
        async with aclosing(bench.driver()) as driver:
            with pytest.raises(WorkerError, match=said) as caught:
                await driver.start(in_image(bench, "true"))
        assert not caught.value.permanent
    bench.options = options
