"""Probes say what came back, and never raise for a bad answer."""

from __future__ import annotations

import anyio
import pytest

from stoker.model.replica import WorkerHandle
from stoker.model.service import Probe
from stoker.runtime.probing import NetworkProber

pytestmark = pytest.mark.anyio
HANDLE = WorkerHandle(driver="test", pid=1)


@pytest.fixture
def anyio_backend():
    return "asyncio"


async def ask(answer: bytes | None, probe: Probe):
    """Put `probe` to a server that gives these bytes (None: says nothing)."""

    async def serve(stream) -> None:
        async with stream:
            await stream.receive()
            if answer is None:
                await anyio.sleep_forever()
            await stream.send(answer)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        result = await NetworkProber().ask(probe, f"127.0.0.1:{port}", HANDLE)
        tasks.cancel_scope.cancel()
    await listener.aclose()
    return result


@pytest.mark.parametrize(
    ("answer", "ok", "detail"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", True, "/ready answered 200"),
        (b"HTTP/1.1 302 Found\r\n\r\n", True, "/ready answered 302"),
        (b"HTTP/1.1 503 Busy\r\n\r\n", False, "/ready answered 503"),
        (b"SSH-2.0-OpenSSH\r\n", False, "/ready gave no HTTP answer"),
        (b"", False, "/ready gave no HTTP answer"),
        (b"x" * 10000, False, "/ready gave no HTTP answer"),
    ],
)
async def test_http(answer, ok, detail):
    result = await ask(answer, Probe(http="/ready"))
    assert (result.ok, result.detail) == (ok, detail)


async def test_a_silent_worker_times_out():
    result = await ask(None, Probe(http="/ready", timeout=0.05))
    assert (result.ok, result.detail) == (False, "no answer within 0.05 s")


async def test_tcp_needs_no_more_than_a_connection():
    assert (await ask(None, Probe(tcp=True))).ok


async def test_nobody_listening_is_a_plain_no():
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    await listener.aclose()
    result = await NetworkProber().ask(Probe(tcp=True), f"127.0.0.1:{port}", HANDLE)
    assert not result.ok
    assert f"127.0.0.1:{port}" in result.detail


@pytest.mark.parametrize(("command", "ok", "code"), [("exit 0", True, 0), ("echo no; exit 3", False, 3)])
async def test_a_command_answers_by_its_exit_code(command, ok, code):
    result = await NetworkProber().ask(Probe(exec=("/bin/sh", "-c", command)), "127.0.0.1:1", HANDLE)
    assert result.ok is ok
    assert f"exit code {code}" in result.detail


async def test_a_command_that_does_not_exist_is_a_no():
    result = await NetworkProber().ask(Probe(exec=("/does/not/exist",)), "127.0.0.1:1", HANDLE)
    assert not result.ok
