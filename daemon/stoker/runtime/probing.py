"""Asks workers whether they are well: HTTP, TCP, or a command. One question each; no state."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from typing import Any

import anyio
import anyio.abc

from stoker.model.replica import WorkerHandle
from stoker.model.service import Probe
from stoker.model.state import UNIX
from stoker.plugin.ports import ProbeResult

_HEAD_LIMIT = 4096


class NetworkProber:
    """The daemon's own prober. A probe must cost the worker next to nothing, so an HTTP probe is one bare
    HTTP/1.1 request on a connection of its own, and only the status line of the answer is read."""

    async def ask(self, probe: Probe, endpoint: str, handle: WorkerHandle) -> ProbeResult:
        """Put one question within `probe.timeout` seconds."""
        del handle
        try:
            with anyio.fail_after(probe.timeout):
                if probe.exec:
                    return await run_command(probe.exec)
                if probe.http is not None:
                    return await _get(endpoint, probe.http)
                return await _connect(endpoint)
        except TimeoutError:
            return ProbeResult(ok=False, detail=f"no answer within {probe.timeout:g} s")
        except OSError as error:
            return ProbeResult(ok=False, detail=f"{endpoint}: {error.strerror or 'connection refused'}")


async def _open(endpoint: str) -> anyio.abc.ByteStream:
    if endpoint.startswith(UNIX):
        return await anyio.connect_unix(endpoint.removeprefix(UNIX))
    host, _, port = endpoint.rpartition(":")
    return await anyio.connect_tcp(host, int(port))


async def _connect(endpoint: str) -> ProbeResult:
    async with await _open(endpoint):
        return ProbeResult(ok=True, detail=f"{endpoint} accepts connections")


async def _get(endpoint: str, path: str) -> ProbeResult:
    host = "localhost" if endpoint.startswith(UNIX) else endpoint
    request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: stoker-probe\r\nConnection: close\r\n\r\n"
    async with await _open(endpoint) as stream:
        await stream.send(request.encode("ascii", errors="replace"))
        head = b""
        while b"\r\n" not in head and len(head) < _HEAD_LIMIT:
            try:
                head += await stream.receive()
            except anyio.EndOfStream:
                break
    words = head.split(b"\r\n", 1)[0].split(None, 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        return ProbeResult(ok=False, detail=f"{path} gave no HTTP answer")
    code = int(words[1])
    return ProbeResult(ok=200 <= code < 400, detail=f"{path} answered {code}")


async def run_command(
    argv: tuple[str, ...],
    *,
    cwd: str | None = None,
    environ: Mapping[str, str] | None = None,
    **account: Any,
) -> ProbeResult:
    """Whether a command ends well, with the last line of what it says."""
    done = await anyio.run_process(
        list(argv),
        check=False,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
        cwd=cwd,
        env=environ or {"PATH": "/usr/bin:/bin"},
        **account,
    )
    last = done.stdout.decode(errors="replace").strip().rpartition("\n")[2][:200]
    words = f": {last}" if last else ""
    return ProbeResult(ok=done.returncode == 0, detail=f"{argv[0]} gave exit code {done.returncode}{words}")
