"""A prober that asks a `FakeBox` instead of the network."""

from __future__ import annotations

import anyio
import anyio.lowlevel

from stoker.model.replica import WorkerHandle
from stoker.model.service import Probe
from stoker.plugin.ports import ProbeResult
from stoker_fake.box import FakeBox


class FakeProber:
    """Answers as the worker's script says; a worker that hangs costs the probe its whole timeout."""

    def __init__(self, box: FakeBox) -> None:
        self._box = box

    async def ask(self, probe: Probe, endpoint: str, handle: WorkerHandle) -> ProbeResult:
        """Whether the worker passes the probe now."""
        await anyio.lowlevel.checkpoint()
        worker, now = self._box.workers.get(handle.pid), anyio.current_time()
        if worker is None or not worker.alive(now):
            return ProbeResult(ok=False, detail=f"{endpoint}: connection refused")
        if not worker.listens(now):
            return ProbeResult(ok=False, detail=f"{endpoint}: not listening yet")
        if not worker.hangs(now):
            return ProbeResult(ok=True, detail="the script says so")
        await anyio.sleep(probe.timeout)
        return ProbeResult(ok=False, detail=f"no answer within {probe.timeout:g} s")
