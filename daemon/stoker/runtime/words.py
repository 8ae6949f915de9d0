"""What workers say by themselves (sd_notify), turned into facts about their replicas."""

from __future__ import annotations

from collections.abc import Callable

from stoker.errors import WorkerError
from stoker.model.event import Event, Notice, ReplicaBecameReady, WorkerAdopted, WorkerExited, WorkerSpawned
from stoker.model.service import ServiceKey, ServiceSpec
from stoker.model.state import ObservedState
from stoker.runtime.launcher import account_of
from stoker.runtime.notify import WorkerNotify


class WorkerWords:
    """The NOTIFY_SOCKETs of this daemon's workers, opened and closed as their lives go."""

    def __init__(
        self,
        runtime_dir: str,
        *,
        state: Callable[[], ObservedState],
        lookup: Callable[[ServiceKey], ServiceSpec | None],
        post: Callable[[Event], None],
    ) -> None:
        self._notify = WorkerNotify(runtime_dir, self._ready, self._says)
        self._state = state
        self._lookup = lookup
        self._post = post

    def open(self, replica: str, uid: int) -> str:
        """The socket for a worker that is about to start as `uid`. Raises WorkerError."""
        return self._notify.open(replica, uid=uid)

    async def run(self) -> None:
        """Listen until cancelled."""
        await self._notify.run()

    def after(self, event: Event) -> None:
        """Follow a worker's life."""
        match event:
            case WorkerSpawned():
                self._notify.claim(event.replica, event.handle.pid)
            case WorkerAdopted() if not event.ready:
                self._listen_again(event)
            case WorkerExited():
                self._notify.close(event.replica)

    def _listen_again(self, adopted: WorkerAdopted) -> None:
        """Reopen the socket of an adopted worker that has not yet said that it is ready."""
        spec = self._lookup(adopted.service)
        if spec is None or spec.probes.startup is None or not spec.probes.startup.notify:
            return
        try:
            self._notify.open(adopted.replica, uid=account_of(spec.user)[1])
        except WorkerError as error:
            message = f"{adopted.replica} cannot tell when it is ready: {error}"
            self._post(Notice(message=message, severity="error", service=adopted.service))
        self._notify.claim(adopted.replica, adopted.handle.pid)

    def _ready(self, replica: str, status: str) -> None:
        known = self._state().replicas.get(replica)
        if known is not None:
            reason = f"the worker says so{': ' + status if status else ''}"
            self._post(ReplicaBecameReady(replica=replica, service=known.service, reason=reason))

    def _says(self, replica: str, text: str) -> None:
        known = self._state().replicas.get(replica)
        self._post(Notice(message=f"{replica} {text}", service=known.service if known else ""))
