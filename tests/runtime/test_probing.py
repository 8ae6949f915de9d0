"""Probes say what came back, and never raise for a bad answer."""

from __future__ import annotations

from contextlib import suppress

import anyio
import pytest

from stoker.model.replica import WorkerHandle
from stoker.model.service import Probe
from stoker.runtime.probing import NetworkProber

pytestmark = pytest.mark.anyio
HANDLE = WorkerHandle(driver="test", pid=1)


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


async def test_a_unix_socket_is_asked_as_a_port_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a path short enough for a socket
    endpoint = "unix:w"
    gone = await NetworkProber().ask(Probe(tcp=True), endpoint, HANDLE)
    assert (gone.ok, gone.detail) == (False, "unix:w: No such file or directory")
    heard = []

    async def serve(stream) -> None:
        async with stream:
            with suppress(anyio.EndOfStream):
                heard.append(await stream.receive())
                await stream.send(b"HTTP/1.1 204 No Content\r\n\r\n")

    listener = await anyio.create_unix_listener("w")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        assert (await NetworkProber().ask(Probe(tcp=True), endpoint, HANDLE)).ok
        answered = await NetworkProber().ask(Probe(http="/readyz"), endpoint, HANDLE)
        tasks.cancel_scope.cancel()
    await listener.aclose()
    assert (answered.ok, answered.detail) == (True, "/readyz answered 204")
    assert heard[-1].startswith(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n")
