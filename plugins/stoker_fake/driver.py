"""A driver whose workers exist only in a `FakeBox`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import anyio
import anyio.lowlevel

from stoker.errors import WorkerError
from stoker.model.load import Usage
from stoker.model.replica import ExitStatus, WorkerHandle
from stoker.plugin.ports import FoundWorker, StartRequest
from stoker_fake.box import KILL, FakeBox


class FakeDriver:
    """Starts, signals, finds and recovers fake workers, each as its script says."""

    def __init__(self, box: FakeBox) -> None:
        self._box = box

    async def start(self, request: StartRequest) -> WorkerHandle:
        """Spawn after the script's delay. Raises WorkerError if the script says so."""
        script = self._box.script_for(request)
        await anyio.sleep(script.start_delay)
        if script.start_error:
            raise WorkerError(script.start_error, permanent=script.permanent)
        return self._box.spawn(request, script).handle

    async def wait(self, handle: WorkerHandle) -> ExitStatus:
        """Return when the worker has ended. Raises WorkerError once it is lost."""
        worker = self._box.workers[handle.pid]
        while worker.alive(now := anyio.current_time()):
            if worker.lost:
                raise WorkerError(worker.lost)
            with anyio.move_on_after(None if worker.ends_at is None else worker.ends_at - now):
                await worker.changed.wait()
        return worker.status

    async def signal(self, handle: WorkerHandle, signum: int) -> None:
        """Deliver the stop signal."""
        await anyio.lowlevel.checkpoint()
        self._box.signal(handle.pid, signum)

    async def kill(self, handle: WorkerHandle) -> None:
        """End the worker at once."""
        await anyio.lowlevel.checkpoint()
        self._box.signal(handle.pid, KILL)

    async def find(self) -> Sequence[FoundWorker]:
        """All workers that live."""
        await anyio.lowlevel.checkpoint()
        return [FoundWorker(handle=w.handle, mark=w.request.mark) for w in self._box.living()]

    async def recover(self, found: FoundWorker) -> WorkerHandle:
        """Take a found worker over."""
        await anyio.lowlevel.checkpoint()
        return found.handle

    async def usage(self, handles: Sequence[WorkerHandle]) -> Mapping[int, Usage]:
        """What the scripts say."""
        await anyio.lowlevel.checkpoint()
        now = anyio.current_time()
        found = [self._box.workers[handle.pid] for handle in handles if handle.pid in self._box.workers]
        return {
            worker.handle.pid: Usage(cpu=worker.script.cpu, memory=worker.script.memory, at=now)
            for worker in found
            if worker.alive(now)
        }

    async def aclose(self) -> None:
        """Nothing to release."""
        await anyio.lowlevel.checkpoint()
