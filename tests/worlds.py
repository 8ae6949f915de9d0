"""Values for tests of the deciding functions: specs, devices, replicas; all but the matter at hand is left
at its default."""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import Any

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
from stoker.model.device import Device, Inventory, Reservation
from stoker.model.event import (
    DrainRequested,
    Event,
    KillSignalled,
    ReplicaAdded,
    ReplicaForgotten,
    ReplicaHeld,
    ReplicaMoving,
    ReplicaResumed,
    RevisionAccepted,
    RevisionRejected,
    StartRequested,
    StopSignalled,
)
from stoker.model.replica import ALIVE, Phase, Replica, WorkerHandle
from stoker.model.service import (
    Command,
    DesiredState,
    Resources,
    Scaling,
    ServiceSpec,
    revision,
)
from stoker.model.state import ObservedState

OLD = "old00000"
GIB = 2**30


def make_spec(name: str = "web", **changes: Any) -> ServiceSpec:
    """A service; `replicas=(min, max)` and `gpu=1` are short for scaling and resources."""
    if "replicas" in changes:
        low, high = changes.pop("replicas")
        changes["scaling"] = Scaling(min_replicas=low, max_replicas=high)
    if "gpu" in changes:
        changes["resources"] = Resources(gpu=changes.pop("gpu"))
    return ServiceSpec(
        deployment="app", name=name, launch=Command(argv=("serve", "{port}")), working_dir="/", **changes
    )


def wanting(*specs: ServiceSpec) -> DesiredState:
    return DesiredState(services={spec.key: spec for spec in specs}, generation=1)


def make_device(number: int, **changes: Any) -> Device:
    return Device(
        uuid=f"GPU-{number}",
        name="Test GPU",
        index=number,
        memory_total=80 * GIB,
        type_key="gpu.test",
        **changes,
    )


def box(*devices: Device | int) -> Inventory:
    """An inventory that answers, of these devices (a number makes a healthy one)."""
    made = tuple(make_device(d) if isinstance(d, int) else d for d in devices)
    return Inventory(state="ok", reason="", devices=made)


def make_replica(spec: ServiceSpec, tag: str = "a", phase: Phase = "ready", **changes: Any) -> Replica:
    """A replica of the present revision unless said otherwise; `devices=("GPU-0",)` are reserved whole."""
    name = f"{spec.name}-{tag}"
    made: dict[str, Any] = {"id": name, "service": spec.key, "revision": revision(spec), "phase": phase}
    if phase in ALIVE:
        made |= {
            "handle": WorkerHandle(driver="fake", pid=zlib.crc32(name.encode()) % 30000 + 2),
            "endpoint": f"127.0.0.1:{name}",
        }
    if phase in ("ready", "unready", "draining", "stopping", "lost"):
        made |= {"ready_at": 0.0, "startup_seconds": 0.0}
    devices = changes.pop("devices", ())
    made["reservations"] = tuple(Reservation(uuid=uuid) for uuid in devices)
    return Replica(**{**made, **changes})


def seeing(*replicas: Replica, **changes: Any) -> ObservedState:
    return replace(
        ObservedState(replicas={replica.id: replica for replica in replicas}, serial=len(replicas)), **changes
    )


_PLAIN: dict[type[Action], Any] = {
    HoldReplica: ReplicaHeld,
    ResumeReplica: ReplicaResumed,
    KillReplica: KillSignalled,
    ForgetReplica: ReplicaForgotten,
}
"""Actions of which there is nothing to tell but the reason."""


def event_of(action: Action, at: float) -> Event:
    """The fact that the actuator reports at once for each action."""
    who: dict[str, Any] = {
        "replica": action.replica,
        "service": action.service,
        "at": at,
        "id": "e",
        "cause": action.cause,
    }
    match action:
        case AddReplica():
            return ReplicaAdded(**who, revision=action.revision, reason=action.reason)
        case StartReplica():
            return StartRequested(**who, revision=action.revision, reservations=action.reservations)
        case DrainReplica():
            return DrainRequested(**who, reason=action.reason, leave=action.leave)
        case StopReplica():
            return StopSignalled(**who, reason=action.reason, leave=action.leave, fault=action.fault)
        case MoveReplica():
            return ReplicaMoving(**who, reason=action.reason, devices=action.devices)
        case HoldReplica() | ResumeReplica() | KillReplica() | ForgetReplica():
            return _PLAIN[type(action)](**who, reason=action.reason)
        case AcceptRevision():
            return RevisionAccepted(at=at, id="e", service=action.service, revision=action.revision)
        case RejectRevision():
            return RevisionRejected(
                at=at, id="e", service=action.service, revision=action.revision,
                back_on=action.back_on, reason=action.reason,
            )  # fmt: skip
    raise AssertionError(f"no event for {action}")
