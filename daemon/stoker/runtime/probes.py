"""One replica's probing: startup until it is ready, then readiness and liveness for as long as it lives.

The spec is looked up before every question, so a changed probe works at once without a new worker.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import anyio

from stoker.model.event import Event, LivenessFailed, ReplicaBecameReady, ReplicaBecameUnready
from stoker.model.replica import WorkerHandle
from stoker.model.service import Probe, ServiceSpec
from stoker.plugin.ports import AskingDriver, Prober, ProbeResult

STARTING_PERIOD = 0.05
"""Seconds between questions while starting: a ready worker is used at most this much later."""
UNHURRIED_PERIOD = 1.0
"""The same for a check that a worker brings itself: that may be a heavy one, meant for every half minute."""
STARTING_PATIENCE = 10.0
"""After this many seconds of asking that often, the probe's own period will do."""


def startup_probe(spec: ServiceSpec) -> Probe | None:
    """The question that makes a starting replica ready; None: it is ready as soon as it runs. Pure.

    Without a declared probe, a worker that was told where to listen (`{port}` or `{socket}` in its command,
    `python:`) is ready when it takes a connection there.
    """
    probes = spec.probes
    if probes.startup is not None:
        return probes.startup
    if probes.readiness is not None:
        return probes.readiness
    return Probe(tcp=True) if spec.told_where else None


def with_own_check(spec: ServiceSpec | None, own: Probe | None) -> ServiceSpec | None:
    """The spec with the check that a worker brings itself, where it declares no probe of its own. Pure."""
    if spec is None or own is None:
        return spec
    declared = spec.probes
    if declared.startup or declared.readiness or declared.liveness:
        return spec
    return replace(spec, probes=replace(declared, startup=own, liveness=own))


class InsideProber:
    """Has the driver run the commands of probes; asks everything else as `prober` does."""

    def __init__(self, prober: Prober, driver: AskingDriver) -> None:
        self._prober = prober
        self._driver = driver

    async def ask(self, probe: Probe, endpoint: str, handle: WorkerHandle) -> ProbeResult:
        """Put one question within `probe.timeout` seconds."""
        if not probe.exec:
            return await self._prober.ask(probe, endpoint, handle)
        with anyio.move_on_after(probe.timeout):
            return await self._driver.ask(handle, probe.exec)
        return ProbeResult(ok=False, detail=f"no answer within {probe.timeout:g} s")


class ReplicaProbes:
    """The probes of one worker. `lookup` gives its present spec (None when the service is gone); `hurried`:
    one that starts may be asked many times a second."""

    def __init__(
        self,
        *,
        replica: str,
        service: str,
        endpoint: str,
        handle: WorkerHandle,
        lookup: Callable[[], ServiceSpec | None],
        prober: Prober,
        post: Callable[[Event], None],
        hurried: bool = True,
    ) -> None:
        self._replica = replica
        self._service = service
        self._endpoint = endpoint
        self._handle = handle
        self._lookup = lookup
        self._prober = prober
        self._post = post
        self._pause = STARTING_PERIOD if hurried else UNHURRIED_PERIOD

    async def run(self, *, ready: bool) -> None:
        """Probe until cancelled. `ready`: it was adopted in the ready phase."""
        if not ready:
            await self._startup()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._liveness)
            await self._readiness()

    async def _startup(self) -> None:
        began = anyio.current_time()
        while (spec := self._lookup()) is not None:
            probe = startup_probe(spec)
            if probe is None:
                self._say_ready("running; no probe is declared")
                return
            if probe.notify:
                await anyio.sleep_forever()
            answer = await self._prober.ask(probe, self._endpoint, self._handle)
            if answer.ok:
                self._say_ready(answer.detail)
                return
            early = anyio.current_time() - began < STARTING_PATIENCE
            await anyio.sleep(min(self._pause, probe.period) if early else probe.period)

    async def _readiness(self) -> None:
        ready, failures = True, 0
        while (spec := self._lookup()) is not None:
            probe = spec.probes.readiness
            if probe is None or probe.notify:
                await _until_changed()
                continue
            await anyio.sleep(probe.period)
            answer = await self._prober.ask(probe, self._endpoint, self._handle)
            failures = 0 if answer.ok else failures + 1
            if answer.ok and not ready:
                self._say_ready(answer.detail)
                ready = True
            elif ready and failures >= probe.failures:
                reason = f"readiness probe failed {failures} times: {answer.detail}"
                self._post(ReplicaBecameUnready(replica=self._replica, service=self._service, reason=reason))
                ready = False

    async def _liveness(self) -> None:
        failures = 0
        while (spec := self._lookup()) is not None:
            probe = spec.probes.liveness
            if probe is None or probe.notify:
                await _until_changed()
                continue
            await anyio.sleep(probe.period)
            answer = await self._prober.ask(probe, self._endpoint, self._handle)
            failures = 0 if answer.ok else failures + 1
            if failures >= probe.failures:
                reason = f"liveness probe failed {failures} times: {answer.detail}"
                self._post(LivenessFailed(replica=self._replica, service=self._service, reason=reason))
                return

    def _say_ready(self, reason: str) -> None:
        self._post(ReplicaBecameReady(replica=self._replica, service=self._service, reason=reason))


async def _until_changed() -> None:
    """Nothing to ask: sleep. A service without probes must not wake anybody, so a probe that is added
    later begins with the next worker or at the next hour."""
    await anyio.sleep(3600)
