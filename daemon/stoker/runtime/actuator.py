"""Performs actions through drivers. One task per worker: spawn, probe, wait for the end.

`perform` returns at once with the fact that the action was begun; what comes of it arrives as events.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, cast

import anyio
from anyio import CancelScope
from anyio.abc import TaskGroup

from stoker.errors import StokerError, WorkerError
from stoker.model.action import (
    AcceptRevision,
    Action,
    AddReplica,
    DrainReplica,
    ForgetReplica,
    HoldReplica,
    KillReplica,
    MoveReplica,
    RejectRevision,
    ResumeReplica,
    StartReplica,
    StopReplica,
)
from stoker.model.event import (
    DrainRequested,
    Event,
    KillSignalled,
    Notice,
    ReplicaAdded,
    ReplicaBecameReady,
    ReplicaDrained,
    ReplicaForgotten,
    ReplicaHeld,
    ReplicaMoving,
    ReplicaResumed,
    RevisionAccepted,
    RevisionRejected,
    SpawnFailed,
    StartRequested,
    StopSignalled,
    WorkerExited,
    WorkerLost,
    WorkerSpawned,
)
from stoker.model.load import Usage
from stoker.model.replica import ExitStatus, WorkerHandle
from stoker.model.service import LogRules, Probe, ServiceKey, ServiceSpec
from stoker.plugin.ports import AskingDriver, CheckingDriver, ExpectantDriver, Prober, WorkerDriver
from stoker.runtime.checks import BesideProber
from stoker.runtime.launcher import Launcher
from stoker.runtime.log_rotation import Growing
from stoker.runtime.probes import InsideProber, ReplicaProbes, with_own_check
from stoker.runtime.store import Store, WorkerRecord


@dataclass(slots=True)
class _Worker:
    """What the actuator knows of a worker between its start and its end."""

    record: WorkerRecord
    driver: WorkerDriver
    probing: CancelScope
    signal: int | None = None
    """Asked for before the worker existed."""
    kill: bool = False


class Actuator:
    """Turns actions into effects. `driver` gives the driver of a backend's name (raises PluginError);
    `lookup` the present spec of a service; `routed` tells whether the router knows a replica; `unnoted` why
    what has to outlast the record of a worker that has ended is not written, "" if it is."""

    def __init__(
        self,
        *,
        tasks: TaskGroup,
        store: Store,
        launcher: Launcher,
        prober: Prober,
        driver: Callable[[str], WorkerDriver],
        lookup: Callable[[ServiceKey], ServiceSpec | None],
        routed: Callable[[str], bool],
        post: Callable[[Event], None],
        unnoted: Callable[[str], str] = lambda replica: "",
    ) -> None:
        self._tasks = tasks
        self._store = store
        self._launcher = launcher
        self._prober = prober
        self._driver = driver
        self._lookup = lookup
        self._routed = routed
        self._post = post
        self._unnoted = unnoted
        self._workers: dict[str, _Worker] = {}

    def perform(self, action: Action) -> Event:
        """Begin an action; returns the event that says so."""
        who: dict[str, Any] = {"replica": action.replica, "service": action.service, "cause": action.cause}
        self._begin(action, who)
        return _BEGUN[type(action)](action, who)

    def adopt(self, record: WorkerRecord, handle: WorkerHandle, driver: WorkerDriver) -> None:
        """Watch a recovered worker as if it had been started here."""
        worker = _Worker(replace(record, handle=handle), driver, CancelScope())
        self._workers[record.replica] = worker
        self._launcher.adopt(record.endpoint)
        self._tasks.start_soon(self._attend, worker, handle)

    def after_event(self, event: Event) -> None:
        """Listen to the control loop, after all who have to write down something of a worker's end: a daemon
        that dies between finds its record, or what they wrote."""
        match event:
            case ReplicaBecameReady():
                self._became_ready(event.replica)
            case WorkerExited():
                self.drop(event.replica)

    def drop(self, replica: str) -> None:
        """Remove the record of a worker that has ended, as far as nothing of it is still to be known."""
        try:
            if why := self._unnoted(replica):
                message = f"cannot record the end of {replica}: {why}; its record stays for the next daemon"
                self._post(Notice(message=message, severity="error"))
            else:
                self._store.drop_worker(replica)
        except OSError as error:
            message = f"cannot remove the record of {replica}: {error}; the next daemon will"
            self._post(Notice(message=message, severity="error"))

    def _became_ready(self, replica: str) -> None:
        """Record that a worker is ready, so that the next daemon adopts it as such."""
        worker = self._workers.get(replica)
        if worker is not None and not worker.record.ready:
            worker.record = replace(worker.record, ready=True)
            self._save(worker.record)

    async def usage(self, service: ServiceKey) -> Mapping[int, Usage]:
        """What the live workers of a service use, by pid."""
        by_driver: dict[WorkerDriver, list[WorkerHandle]] = {}
        for worker in self._workers.values():
            if worker.record.service == service and worker.record.handle is not None:
                by_driver.setdefault(worker.driver, []).append(worker.record.handle)
        found: dict[int, Usage] = {}
        for driver, handles in by_driver.items():
            found.update(await driver.usage(handles))
        return found

    def growing_logs(self) -> list[Growing]:
        """The logs of all workers that are there."""
        found = []
        for worker in self._workers.values():
            spec = self._lookup(worker.record.service)
            path = self._launcher.log_path(worker.record.service, worker.record.replica)
            found.append(Growing(path, LogRules() if spec is None else spec.logs))
        return found

    def _begin(self, action: Action, who: dict[str, Any]) -> None:
        match action:
            case StartReplica():
                self._tasks.start_soon(self._run, action)
            case DrainReplica() if not self._routed(action.replica):
                self._post(ReplicaDrained(**who))
            case StopReplica():
                self._stop(action)
            case KillReplica():
                self._kill(action.replica)

    def _stop(self, action: StopReplica) -> None:
        worker = self._workers.get(action.replica)
        if worker is None:
            return
        worker.signal = action.signal
        reason = action.reason or "told to stop"
        worker.record = replace(worker.record, stopping=reason, leave=action.leave)
        self._save(worker.record)
        if worker.record.handle is not None:
            self._tasks.start_soon(
                self._guarded, worker.record, worker.driver.signal, worker.record.handle, action.signal
            )

    def _kill(self, replica: str) -> None:
        worker = self._workers.get(replica)
        if worker is None:
            return
        worker.kill = True
        if worker.record.handle is not None:
            self._tasks.start_soon(self._guarded, worker.record, worker.driver.kill, worker.record.handle)

    async def _run(self, action: StartReplica) -> None:
        """One worker's whole life, from the start that was decided to its end."""
        who: dict[str, Any] = {"replica": action.replica, "service": action.service, "cause": action.cause}
        spec = self._lookup(action.service)
        if spec is None:
            self._post(SpawnFailed(**who, error="the service is no longer configured", permanent=True))
            return
        endpoint = ""
        try:
            driver = self._driver(spec.backend)
            request = self._launcher.prepare(spec, action)
            endpoint = request.endpoint
            record = WorkerRecord(
                replica=action.replica,
                service=action.service,
                revision=action.revision,
                driver=spec.backend,
                endpoint=endpoint,
                reservations=action.reservations,
                created=anyio.current_time(),
                devices_reason=action.devices_reason,
                depends=tuple(f"{spec.deployment}/{name}" for name in spec.depends),
            )
            self._store.save_worker(record)
            worker = self._workers[action.replica] = _Worker(record, driver, CancelScope())
            handle = await driver.start(request)
        except Exception as error:  # noqa: BLE001 - a driver is a stranger; whatever it raises fails this start alone
            self._forget(action.replica, endpoint)
            self.drop(action.replica)
            permanent = isinstance(error, WorkerError) and error.permanent
            self._post(SpawnFailed(**who, error=_words(error), permanent=permanent))
            return
        endpoint = handle.endpoint or endpoint
        worker.record = replace(worker.record, handle=handle, endpoint=endpoint)
        self._save(worker.record)
        self._post(WorkerSpawned(**who, handle=handle, endpoint=endpoint))
        await self._attend(worker, handle)

    async def _attend(self, worker: _Worker, handle: WorkerHandle) -> None:
        """Probe a worker and wait for its end."""
        record, driver = worker.record, worker.driver
        if worker.kill:
            await self._guarded(record, driver.kill, handle)
        elif worker.signal is not None:
            await self._guarded(record, driver.signal, handle, worker.signal)
        who: dict[str, Any] = {"replica": record.replica, "service": record.service}
        self._tasks.start_soon(self._probe, worker, handle)
        status = await self._until_gone(worker, handle)
        worker.probing.cancel()
        self._forget(record.replica, record.endpoint)
        self._post(WorkerExited(**who, status=status))
        if worker.signal is None and not worker.kill and isinstance(driver, ExpectantDriver):
            await self._guarded(record, driver.expect, record.replica)

    async def _until_gone(self, worker: _Worker, handle: WorkerHandle) -> ExitStatus:
        """Wait for the end. A driver that fails at it is asked again: a worker that nobody waits for would
        keep its place for ever."""
        record, pause = worker.record, 1.0
        while True:
            try:
                return await worker.driver.wait(handle)
            except Exception as error:  # noqa: BLE001 - a driver is a stranger; the worker is then lost, not the daemon
                reason = f"driver {record.driver} cannot say: {_words(error)}"
                self._post(WorkerLost(replica=record.replica, service=record.service, reason=reason))
            await anyio.sleep(pause)
            pause = min(pause * 2, 60.0)

    def _prober_of(self, worker: _Worker) -> Prober:
        if _asks(type(worker.driver)):
            return InsideProber(self._prober, cast("AskingDriver", worker.driver))
        record = worker.record
        return BesideProber(self._prober, record.replica, lambda: self._lookup(record.service))

    async def _probe(self, worker: _Worker, handle: WorkerHandle) -> None:
        record = worker.record
        own = _own_check(worker.driver, handle)
        probes = ReplicaProbes(
            replica=record.replica,
            service=record.service,
            endpoint=record.endpoint,
            handle=handle,
            lookup=lambda: with_own_check(self._lookup(record.service), own),
            prober=self._prober_of(worker),
            post=self._post,
            hurried=own is None,
        )
        with worker.probing:
            try:
                await probes.run(ready=record.ready)
            except Exception as error:  # noqa: BLE001 - a task root: a probe that cannot be asked must not end the daemon
                message = (
                    f"{record.replica} is not probed any more, a bug: {_words(error)}; restart its service"
                )
                self._post(Notice(message=message, severity="error", service=record.service))

    async def _guarded(self, record: WorkerRecord, call: Callable[..., Any], *args: Any) -> None:
        try:
            await call(*args)
        except Exception as error:  # noqa: BLE001 - a driver is a stranger; the grace period then leads to the next step
            what = getattr(call, "__name__", call)
            message = f"{record.replica}: driver {record.driver} failed at {what}: {_words(error)}"
            self._post(Notice(message=message, severity="error", service=record.service))

    def _save(self, record: WorkerRecord) -> None:
        try:
            self._store.save_worker(record)
        except OSError as error:
            message = (
                f"cannot record worker {record.replica}: {error}; the next daemon may not find it as it is"
            )
            self._post(Notice(message=message, severity="error", service=record.service))

    def _forget(self, replica: str, endpoint: str) -> None:
        self._workers.pop(replica, None)
        self._launcher.release(endpoint)


_BEGUN: dict[type[Action], Callable[[Any, dict[str, Any]], Event]] = {
    AddReplica: lambda a, who: ReplicaAdded(**who, revision=a.revision, reason=a.reason),
    HoldReplica: lambda a, who: ReplicaHeld(**who, reason=a.reason),
    StartReplica: lambda a, who: StartRequested(
        **who,
        revision=a.revision,
        reservations=a.reservations,
        reason=a.reason,
        devices_reason=a.devices_reason,
    ),
    DrainReplica: lambda a, who: DrainRequested(**who, reason=a.reason, leave=a.leave),
    MoveReplica: lambda a, who: ReplicaMoving(**who, reason=a.reason, devices=a.devices),
    ResumeReplica: lambda a, who: ReplicaResumed(**who, reason=a.reason),
    StopReplica: lambda a, who: StopSignalled(**who, reason=a.reason, leave=a.leave, fault=a.fault),
    KillReplica: lambda a, who: KillSignalled(**who, reason=a.reason),
    ForgetReplica: lambda a, who: ReplicaForgotten(**who, reason=a.reason),
    AcceptRevision: lambda a, who: RevisionAccepted(service=a.service, cause=a.cause, revision=a.revision),
    RejectRevision: lambda a, who: RevisionRejected(
        service=a.service, cause=a.cause, revision=a.revision, back_on=a.back_on, reason=a.reason
    ),
}
"""The fact that each kind of action has begun."""


@cache
def _asks(kind: type[WorkerDriver]) -> bool:
    """Asked once for each kind: a look at a protocol costs as much as the tasks of a worker."""
    return issubclass(kind, AskingDriver)


def _own_check(driver: WorkerDriver, handle: WorkerHandle) -> Probe | None:
    return cast("CheckingDriver", driver).own_check(handle) if _checks(type(driver)) else None


@cache
def _checks(kind: type[WorkerDriver]) -> bool:
    return issubclass(kind, CheckingDriver)


def _words(error: Exception) -> str:
    if isinstance(error, StokerError):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")
    return f"{type(error).__name__}: {error}"
