"""A daemon made of canned frozen values, served on a real unix socket: what API and CLI tests talk to."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread

from stoker.api.app import build
from stoker.api.facade import (
    LevelPoint,
    LoadPoint,
    LogFile,
    PlanPreview,
    ServiceHistory,
    ServiceLoad,
    ServiceTotals,
    Snapshot,
)
from stoker.api.server import serve
from stoker.decide.health import Mark
from stoker.errors import ConfigError, ConfigProblem, NotFoundError
from stoker.model.action import AddReplica, HoldReplica, Plan, StartReplica
from stoker.model.device import Device, Inventory, Reservation
from stoker.model.event import (
    ConfigApplied,
    Event,
    ReplicaAdded,
    ReplicaBecameReady,
    ReplicaEvent,
    StartRequested,
    WorkerSpawned,
)
from stoker.model.load import Decision, LoadWindow
from stoker.model.replica import Replica, WorkerHandle
from stoker.model.service import Command, DesiredState, Resources, Scaling, ServiceSpec, Traffic, revision
from stoker.model.state import ObservedState, RoutingTable
from stoker.model.trace import SpanBatch
from stoker.plugin.manager import PluginRecord
from stoker.runtime.pulse import Pulse

GPU = "GPU-11111111-2222-3333-4444-555555555555"
SPARE = "GPU-99999999-2222-3333-4444-555555555555"
REASON = "in-flight 7.1 over 60 s / target 4 = 1.8, rounded up"


def spec(name: str, deployment: str = "rag", **values: Any) -> ServiceSpec:
    return ServiceSpec(
        deployment=deployment,
        name=name,
        launch=Command(("serve", "--port", "{port}")),
        working_dir="/",
        **values,
    )


def specs() -> dict[str, ServiceSpec]:
    made = (
        spec("tokenize", scaling=Scaling(min_replicas=1, max_replicas=4)),
        spec(
            "infer",
            scaling=Scaling(min_replicas=0, max_replicas=8),
            resources=Resources(gpu=1),
            traffic=Traffic(concurrency=4),
            priority=10,
            depends=("tokenize",),
        ),
    )
    return {one.key: one for one in made}


def replicas() -> dict[str, Replica]:
    ready = Replica(
        id="infer-k3x9",
        service="rag/infer",
        revision="9f3c",
        phase="ready",
        since=87.5,
        created=80.0,
        reservations=(Reservation(uuid=GPU),),
        handle=WorkerHandle(driver="process", pid=4242),
        endpoint="127.0.0.1:40123",
        startup_seconds=1.2,
        devices_reason="the only healthy GPU with 40Gi free",
    )
    pending = Replica(
        id="infer-m2p4", service="rag/infer", revision="9f3c", phase="pending",
        reason="needs 1 GPU; 0 of 2 free", since=99.0, created=99.0,
    )  # fmt: skip
    return {ready.id: ready, pending.id: pending}


def inventory() -> Inventory:
    return Inventory(
        state="ok",
        reason="",
        driver="560.35",
        devices=(
            Device(uuid=GPU, name="NVIDIA H100 80GB HBM3", index=0, memory_total=80 * 2**30, utilization=0.5),
            Device(uuid=SPARE, name="NVIDIA H100 80GB HBM3", index=1, memory_total=80 * 2**30,
                   health="quarantined", health_reason="Xid 79"),
        ),
    )  # fmt: skip


def snapshot(**changes: Any) -> Snapshot:
    desired = DesiredState(services=specs(), generation=4)
    standard: dict[str, Any] = {
        "now": 100.0,
        "wall": 1_700_000_100.0,
        "pid": 1,
        "version": "0.1.0",
        "started": 96.8,
        "state_dir": "/var/lib/stoker",
        "desired": desired,
        "observed": ObservedState(replicas=replicas(), inventory=inventory(), targets={"rag/infer": 2}),
        "routes": RoutingTable(),
        "addresses": {"rag/infer": "http://127.0.0.1:8001", "rag/tokenize": "http://127.0.0.1:8002"},
        "revisions": {key: revision(one) for key, one in desired.services.items()},
        "decisions": {
            "rag/infer": Decision(target=2, reason=REASON, code="demand", facts={"in_flight": 7.1})
        },
        "windows": {"rag/infer": LoadWindow(seconds=60.0, in_flight=7.1, rps=41.0)},
        "loads": {"rag/infer": ServiceLoad(in_flight=7, queued=3, rps=41.0, p50_ms=20.1, p99_ms=80.0)},
        "totals": {
            "rag/infer": ServiceTotals(
                codes={"2xx": 10, "5xx": 1}, latency={0.1: 6, 1.0: 4, float("inf"): 1}, latency_sum=7.5
            )
        },
        "restarts": {"rag/infer": {"crashed": 2}},
        "files": ("/etc/stoker/rag.yaml",),
        "reconcile_seconds": 0.00005,
    }
    return Snapshot(**(standard | changes))


def history() -> list[Event]:
    facts: list[Event] = [
        ConfigApplied(generation=4, summary="2 services"),
        ReplicaAdded(replica="infer-k3x9", service="rag/infer", revision="9f3c", reason="wanted 1, have 0"),
        StartRequested(replica="infer-k3x9", service="rag/infer", reservations=(Reservation(uuid=GPU),)),
        WorkerSpawned(
            replica="infer-k3x9", service="rag/infer", endpoint="127.0.0.1:40123",
            handle=WorkerHandle(driver="process", pid=4242),
        ),
        ReplicaBecameReady(replica="infer-k3x9", service="rag/infer", reason="GET /readyz answered 200"),
    ]  # fmt: skip
    return [
        replace(fact, id=f"e{n}", at=80.0 + n, wall=1_700_000_000.25 + n, cause=f"e{n - 1}" if n > 1 else "")
        for n, fact in enumerate(facts, 1)
    ]


def past() -> dict[str, ServiceHistory]:
    """A minute of load that ended, and a pool that grew."""
    load = [LoadPoint(at=40.0 + n, seconds=1.0, in_flight=n / 7, rps=41.0, p50_ms=20.1) for n in range(50)]
    levels = [
        LevelPoint(at=80.0, target=1, ready=0, replicas=1),
        LevelPoint(at=85, target=2, ready=1, replicas=2),
    ]
    return {"rag/infer": ServiceHistory(load=load, levels=levels)}


@dataclass
class FakeDaemon:
    """A DaemonFacade that remembers what it was asked and answers what it was given."""

    state: Snapshot = field(default_factory=snapshot)
    kept: list[Event] = field(default_factory=history)
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    files: list[LogFile] = field(default_factory=list)
    rejects: ConfigError | None = None
    preview_of: PlanPreview | None = None
    past: dict[str, ServiceHistory] = field(default_factory=past)
    pulse: Pulse = field(default_factory=Pulse)
    measured: int = 0
    _changed: anyio.Event | None = None

    def snapshot(self) -> Snapshot:
        return self.state

    async def preview(
        self, files: Sequence[str], *, profile: str | None = None, sets: Sequence[str] = ()
    ) -> PlanPreview:
        self._note("preview", tuple(files), profile, tuple(sets))
        desired = self.state.desired
        return self.preview_of or PlanPreview(
            before=desired, after=desired, observed=self.state.observed, plan=Plan()
        )

    async def explain_path(self, path: str) -> Mapping[str, Any]:
        if path != "services.infer.scaling.max_replicas":
            raise NotFoundError(f"no value at {path!r}; did you mean 'services.infer.scaling.max_replicas'?")
        layers = [
            {"layer": "override", "source": "stoker scale", "value": 8, "wins": True},
            {"layer": "file", "source": "/etc/stoker/rag.yaml:7:22", "value": 4, "wins": False},
        ]
        return {"path": path, "value": 8, "layers": layers}

    async def config_document(self) -> Mapping[str, Any]:
        big = {"gpu": 2.0, "gpu_type": "h100", "gpu_memory": None, "cpu": None, "memory": None}
        values = {
            "name": "rag",
            "services": {"infer": {"scaling": {"max_replicas": 8}, "envs": {"A": "$${B}", "N": "1"}}},
        }
        sources = {
            "services.infer.scaling.max_replicas": {"layer": "override", "source": "override services.infer"},
            "services.infer.envs.N": {"layer": "file", "source": "/etc/stoker/rag.yaml:9:7"},
        }
        one = {"name": "rag", "file": "/etc/stoker/rag.yaml", "config": values, "sources": sources}
        return {"deployments": [{**one, "instance_types": {"gpu.big": big}}]}

    async def spans(self) -> AsyncGenerator[SpanBatch, None]:
        await anyio.sleep_forever()
        yield SpanBatch()

    def story(self, replica: str) -> Sequence[Event]:
        own = [e for e in self.kept if isinstance(e, ReplicaEvent) and e.replica == replica]
        if not own:
            raise NotFoundError(f"no replica named {replica!r}; did you mean 'infer-k3x9'?")
        return [self.kept[0], *own]

    async def last_lines(self, replica: str) -> Sequence[str]:
        return ["loading /models/m", "Killed"]

    beginning = ""

    def recent_events(self, after: str = "") -> Sequence[Event]:
        ids = [event.id for event in self.kept]
        return self.kept[ids.index(after) + 1 :] if after in ids else list(self.kept)

    async def events(self, after: str = "") -> AsyncGenerator[Event, None]:
        seen = len(self.kept) - len(self.recent_events(after))
        while True:
            self._changed = self._changed or anyio.Event()
            changed = self._changed
            while seen < len(self.kept):
                seen += 1
                yield self.kept[seen - 1]
            await changed.wait()

    def happen(self, event: Event) -> None:
        """A new fact; call it in the daemon's loop."""
        n = len(self.kept) + 1
        self.kept.append(replace(event, id=f"e{n}", at=80.0 + n, wall=1_700_000_000.25 + n))
        changed, self._changed = self._changed, None
        if changed:
            changed.set()
        self.pulse.beat()

    def history(self, since: float = 0.0) -> Mapping[str, ServiceHistory]:
        found = {}
        for key, one in self.past.items():
            load = [point for point in one.load if point.at > since]
            levels = [point for point in one.levels if point.at > since]
            if load or levels:
                found[key] = ServiceHistory(load=load, levels=levels)
        return found

    async def changed(self, after: int) -> int:
        return await self.pulse.after(after)

    async def measure(self) -> None:
        self.measured += 1

    async def listen(self, address: str) -> str:
        self._note("listen", address)
        return address

    def become(self, **changes: Any) -> None:
        """Another state; call it in the daemon's loop."""
        self.state = snapshot(**changes)
        self.pulse.beat()

    def logs(self, service: str | None = None) -> Sequence[LogFile]:
        found = [file for file in self.files if service in {None, file.service, file.replica}]
        if service and not found and service not in self.state.desired.services:
            raise NotFoundError(f"no service or replica named {service!r}")
        return found

    def plugins(self) -> Sequence[PluginRecord]:
        return [
            PluginRecord(name="process", distribution="stoker", version="0.1.0", parts=("driver: process",)),
            PluginRecord(name="tides", state="failed", reason="ImportError: no module named moon"),
        ]

    async def set_override(self, assignments: Mapping[str, Any]) -> None:
        self._note("set", dict(assignments))

    async def unset_override(self, paths: Sequence[str]) -> None:
        self._note("unset", tuple(paths))

    async def scale(self, service: str, minimum: int, maximum: int) -> None:
        self._note("scale", service, minimum, maximum)

    async def hold(self, service: str, *, held: bool) -> None:
        self._note("hold", service, held)

    async def restart(self, service: str) -> None:
        self._note("restart", service)

    async def mark_device(self, uuid: str, mark: Mark | None) -> None:
        self._note("mark_device", uuid, mark)

    async def reload(self) -> None:
        self._note("reload")

    async def reexec(self) -> None:
        self._note("reexec")

    async def down(self) -> None:
        self._note("down")

    def _note(self, *call: Any) -> None:
        self.calls.append(call)
        if self.rejects:
            raise self.rejects


def rejection() -> ConfigError:
    return ConfigError(
        ConfigProblem(
            "unknown key 'replica'; did you mean 'replicas'?",
            file="/etc/stoker/rag.yaml", line=3, column=5, path="services.infer",
        ),
        ConfigProblem("min_replicas 5 is over max_replicas 2", file="/etc/stoker/rag.yaml", line=9, column=7,
                      path="services.infer.scaling"),
    )  # fmt: skip


def preview(**changes: Any) -> PlanPreview:
    """One service with a changed variable, one that is new and gets no GPU."""
    before = specs()
    after = dict(before)
    after["rag/infer"] = replace(before["rag/infer"], envs=(("MODEL", "b"),))
    after["rag/rank"] = spec("rank", resources=Resources(gpu=1))
    actions = (
        AddReplica(replica="infer-n3w1", service="rag/infer", revision="77aa", reason="surge of 1"),
        StartReplica(
            replica="infer-n3w1", service="rag/infer", revision="77aa",
            reservations=(Reservation(uuid=GPU),), devices_reason="the only healthy GPU",
        ),
        HoldReplica(replica="rank-1aaa", service="rag/rank", reason="needs 1 GPU; 0 of 2 free"),
    )  # fmt: skip
    standard: dict[str, Any] = {
        "before": DesiredState(services=before, generation=4),
        "after": DesiredState(services=after, generation=5),
        "observed": ObservedState(replicas=replicas(), targets={"rag/infer": 2}),
        "plan": Plan(actions=actions),
        "changed": {"rag/infer": ("envs.MODEL",)},
    }
    return PlanPreview(**(standard | changes))


@dataclass
class Served:
    """A fake daemon behind its socket, running in another thread."""

    daemon: FakeDaemon
    socket: str
    portal: anyio.from_thread.BlockingPortal

    def happen(self, event: Event) -> None:
        self.portal.call(self.daemon.happen, event)


@contextmanager
def served(daemon: FakeDaemon, socket: Path, *, operators: int | None = None) -> Iterator[Served]:
    """Serve the daemon at `socket` while the block runs."""
    with anyio.from_thread.start_blocking_portal("asyncio") as portal:
        scope: list[anyio.CancelScope] = []
        ready = threading.Event()

        async def run() -> None:
            with anyio.CancelScope() as cancel:
                scope.append(cancel)
                async with anyio.create_task_group() as group:
                    await group.start(_serve, daemon, str(socket), operators)
                    ready.set()
                    await anyio.sleep_forever()

        future = portal.start_task_soon(run)
        while not ready.wait(0.05):
            if future.done():
                future.result()
        try:
            yield Served(daemon, str(socket), portal)
        finally:
            portal.call(scope[0].cancel)
            future.result(timeout=10)


async def _serve(daemon: FakeDaemon, path: str, operators: int | None, *, task_status: Any) -> None:
    await serve(build(daemon), path, operators=operators, task_status=task_status)
