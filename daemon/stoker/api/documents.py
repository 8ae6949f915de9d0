"""The daemon's state as the JSON documents of the outside contract. Pure: a Snapshot in, plain data out.

Fields are only ever added here. Times in `*_s` are seconds, in `*_ms` milliseconds, sizes bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from stoker.api.advice import advice_on
from stoker.api.facade import ServiceLoad, Snapshot
from stoker.api.narrate import iso_time, plain, rejection_words
from stoker.errors import ConfigProblem
from stoker.model.device import Device
from stoker.model.door import Door
from stoker.model.event import Event, TargetChanged
from stoker.model.replica import Replica
from stoker.model.service import ServiceKey, ServiceSpec
from stoker.plugin.manager import PluginRecord

Document = dict[str, Any]

NO_DECISION = "no load measured yet: wanted at min_replicas"


def status_document(snapshot: Snapshot, only: ServiceKey | None = None) -> Document:
    """`GET /v1/status`. `only` leaves out all other services."""
    from stoker.api.names import service_keys

    keys = [key for key in service_keys(snapshot) if only in {None, key}]
    return {
        "daemon": daemon_document(snapshot),
        "services": [service_document(snapshot, key) for key in keys],
        "devices": device_documents(snapshot),
        "inventory": inventory_document(snapshot),
        "doors": [door_document(door) for door in snapshot.desired.doors],
    }


def door_document(door: Door) -> Document:
    """A front door and who is behind it."""
    rules = [
        {"service": rule.service, "host": rule.host, "path": rule.path, "strip": rule.strip}
        for rule in door.rules
    ]
    return {"url": door.url, "rules": rules}


def daemon_document(snapshot: Snapshot) -> Document:
    """The daemon itself and the state of its configuration."""
    return {
        "pid": snapshot.pid,
        "version": snapshot.version,
        "uptime_s": round(snapshot.now - snapshot.started, 3),
        "config": {
            "state": snapshot.config_state,
            "generation": snapshot.desired.generation,
            "errors": [problem_document(problem) for problem in snapshot.problems],
            "files": list(snapshot.files),
            "overrides": plain(snapshot.overrides),
        },
        "state_dir": snapshot.state_dir,
        "stopping": snapshot.observed.stopping,
        "listening": list(snapshot.listening),
        "tls": snapshot.encrypted,
        "notices": list(snapshot.notices),
    }


def problem_document(problem: ConfigProblem) -> Document:
    """One fault of the configuration and its place."""
    return {
        "file": problem.file,
        "line": problem.line,
        "column": problem.column,
        "path": problem.path,
        "message": problem.message,
    }


def wanted(snapshot: Snapshot, key: ServiceKey) -> int:
    """The settled number of replicas of a service."""
    spec = snapshot.desired.services.get(key)
    if spec is None or spec.held or snapshot.observed.stopping:
        return 0
    return snapshot.observed.targets.get(key, spec.scaling.min_replicas)


def service_document(snapshot: Snapshot, key: ServiceKey) -> Document:
    """One service with its load, last decision and replicas. A service that is no longer in the
    configuration but of which replicas are left shows bounds of zero and `removed`."""
    deployment, _, name = key.partition("/")
    spec = snapshot.desired.services.get(key)
    replicas = snapshot.observed.of(key)
    return {
        "deployment": deployment,
        "name": name,
        "url": snapshot.addresses.get(key, ""),
        "min_replicas": spec.scaling.min_replicas if spec else 0,
        "max_replicas": spec.scaling.max_replicas if spec else 0,
        "target": wanted(snapshot, key),
        "ready": sum(replica.phase == "ready" for replica in replicas),
        "revision": snapshot.revisions.get(key, ""),
        "rejected": _rejection(snapshot, key),
        "load": load_document(snapshot.loads.get(key, ServiceLoad())),
        "decision": _decision(snapshot, key),
        "replicas": [replica_document(snapshot, replica) for replica in replicas],
        "held": bool(spec and spec.held),
        "removed": spec is None,
        "priority": spec.priority if spec else 0,
        "startup_s": median(snapshot.startups[key]) if snapshot.startups.get(key) else None,
    }


def _rejection(snapshot: Snapshot, key: ServiceKey) -> Document | None:
    """The configured revision that failed, where the service is back on an older one."""
    found = snapshot.observed.rejected.get(key)
    if found is None:
        return None
    return {
        "revision": found.revision,
        "back_on": found.back_on,
        "reason": found.reason,
        "time": iso_time(found.wall),
        "message": rejection_words(found.revision, found.back_on, found.reason),
    }


def load_document(load: ServiceLoad) -> Document:
    """What the router measured last; a percentile is null where nothing was served."""
    return {
        "in_flight": load.in_flight,
        "queued": load.queued,
        "rps": round(load.rps, 2),
        "p50_ms": None if load.p50_ms is None else round(load.p50_ms, 2),
        "p99_ms": None if load.p99_ms is None else round(load.p99_ms, 2),
    }


def _decision(snapshot: Snapshot, key: ServiceKey) -> Document:
    spec = snapshot.desired.services.get(key)
    target = wanted(snapshot, key)
    if spec is None:
        return {"target": target, "reason": "no longer in the configuration"}
    if spec.held:
        return {"target": target, "reason": "held at zero by stoker stop"}
    if snapshot.observed.stopping:
        return {"target": target, "reason": "the daemon drains everything and ends"}
    decision = snapshot.decisions.get(key)
    if decision is None:
        return {"target": target, "reason": NO_DECISION}
    return {"target": decision.target, "reason": decision.reason}


def replica_document(snapshot: Snapshot, replica: Replica) -> Document:
    """One replica. `pid` is null and `endpoint` empty while it has no worker."""
    return {
        "id": replica.id,
        "phase": replica.phase,
        "reason": replica.reason,
        "pid": replica.handle.pid if replica.handle else None,
        "devices": [reservation.uuid for reservation in replica.reservations],
        "endpoint": replica.endpoint,
        "restarts": replica.restarts,
        "since_s": round(max(0.0, snapshot.now - replica.since), 3),
        "revision": replica.revision,
        "age_s": round(max(0.0, snapshot.now - replica.created), 3),
        "startup_s": replica.startup_seconds,
        "last_exit": str(replica.last_exit) if replica.last_exit else None,
        "leaving": replica.leaving,
    }


def device_documents(snapshot: Snapshot) -> list[Document]:
    """All devices with who holds them."""
    held: dict[str, list[Document]] = {}
    for replica in snapshot.observed.replicas.values():
        for taken in replica.reservations:
            owner = {
                "replica": replica.id,
                "share": taken.share,
                "memory": taken.memory,
                "confined": replica.handle is not None and replica.handle.confined,
            }
            held.setdefault(taken.uuid, []).append(owner)
    return [
        device_document(device, held.get(device.uuid, ()), snapshot.now)
        for device in snapshot.observed.inventory.devices
    ]


def device_document(device: Device, reservations: Sequence[Mapping[str, Any]], now: float) -> Document:
    """One device at `now`. `reserved_by` names replicas, `reservations` says how much each holds."""
    return {
        "uuid": device.uuid,
        "name": device.name,
        "index": device.index,
        "health": device.health,
        "reserved_by": [owner["replica"] for owner in reservations],
        "reservations": list(reservations),
        "health_reason": device.health_reason,
        "advice": advice_on(device),
        "health_since_s": None
        if device.health_since is None
        else round(max(0.0, now - device.health_since), 3),
        "unlinked": device.unlinked,
        "limits": device.limits,
        "links": [{"uuid": peer, "score": score} for peer, score in device.links],
        "faults": [fault.what for fault in device.faults],
        "withheld": device.withheld,
        "type": device.type_key,
        "memory_total": device.memory_total,
        "memory_used": device.memory_used,
        "utilization": device.utilization,
        "bus_id": device.bus_id,
        "numa_node": device.numa_node,
        "parent": device.parent,
        "processes": [plain(process) for process in device.processes],
    }


def inventory_document(snapshot: Snapshot) -> Document:
    """What the device sources say as a whole: `ok`, `none` (no GPU: normal) or `unreachable`."""
    inventory = snapshot.observed.inventory
    return {
        "state": inventory.state,
        "reason": inventory.reason,
        "driver": inventory.driver,
        "resting": inventory.resting,
    }


def devices_document(snapshot: Snapshot) -> Document:
    """`GET /v1/devices`."""
    return {
        "devices": device_documents(snapshot),
        "inventory": inventory_document(snapshot),
        "nodes": node_documents(snapshot),
    }


def node_documents(snapshot: Snapshot) -> list[Document]:
    """The machines of clusters, with those of our replicas that listen there."""
    placed = [
        (replica.endpoint.rpartition(":")[0], replica) for replica in snapshot.observed.replicas.values()
    ]
    backends = {key: spec.backend for key, spec in snapshot.desired.services.items()}
    return [
        {
            "backend": backend,
            "address": node.address,
            "alive": node.alive,
            "gpus": node.gpus,
            "accelerator": node.accelerator,
            "cpu": node.cpu,
            "memory": node.memory,
            "custom": dict(node.custom),
            "replicas": [
                one.id
                for host, one in placed
                if host == node.address and node.alive and backends.get(one.service) == backend
            ],
        }
        for backend, nodes in snapshot.nodes.items()
        for node in nodes
    ]


def explain_service(
    snapshot: Snapshot,
    key: ServiceKey,
    decided: Sequence[TargetChanged] = (),
    history: Document | None = None,
) -> Document:
    """The last scaling decision of a service with the samples and rules behind it. `decided`: the changes of
    its target that are remembered, oldest first; `history`: its last hour, as `history_document` has it."""
    spec = snapshot.desired.services.get(key)
    decision = snapshot.decisions.get(key)
    window = snapshot.windows.get(key)
    facts = plain(decision) if decision else {"valid": False, "code": "", "facts": {}}
    return {
        "kind": "service",
        **service_document(snapshot, key),
        "decision": {**facts, **_decision(snapshot, key)},
        "window": plain(window) if window else None,
        "router": snapshot.routers.get(key, ""),
        "rules": _rules(spec) if spec else None,
        "restart_counts": plain(snapshot.restarts.get(key, {})),
        "startups_s": list(snapshot.startups.get(key, ())),
        "now": round(snapshot.wall, 2),
        "decisions": [_change(event) for event in decided],
        "history": history,
    }


def _change(event: TargetChanged) -> Document:
    return {
        "time": iso_time(event.wall),
        "at": round(event.wall, 2),
        "before": event.before,
        "target": event.target,
        "reason": event.decision.reason,
    }


def _rules(spec: ServiceSpec) -> Document:
    return {
        "policies": [plain(policy) for policy in spec.scaling.policies],
        "standby": spec.standby,
        "slo_wait_s": spec.slo_wait,
        "concurrency": spec.traffic.concurrency,
        "resources": plain(spec.resources),
        "depends": list(spec.depends),
    }


def explain_replica(
    snapshot: Snapshot, replica: Replica, chain: Sequence[Event], said: Sequence[str] = ()
) -> Document:
    """Where a replica sits and why, its phase and why, the facts that led there, and what it `said` last."""
    names = {device.uuid: device for device in snapshot.observed.inventory.devices}
    placed = []
    for taken in replica.reservations:
        device = names.get(taken.uuid)
        placed.append(
            {
                **plain(taken),
                "name": device.name if device else "",
                "index": device.index if device else None,
                "health": device.health if device else "lost",
                "health_reason": device.health_reason if device else "it is no longer there",
            }
        )
    deployment, _, name = replica.service.partition("/")
    return {
        "kind": "replica",
        "deployment": deployment,
        "service": name,
        **replica_document(snapshot, replica),
        "placement": {"devices": placed, "reason": replica.devices_reason},
        "last_lines": list(said),
        "chain": story_events(chain),
    }


def story_events(chain: Sequence[Event]) -> list[Document]:
    """Events as JSON, oldest first."""
    from stoker.api.narrate import event_document

    return [event_document(event) for event in chain]


def plugins_document(records: Sequence[PluginRecord]) -> Document:
    """`GET /v1/plugins`."""
    return {
        "plugins": [
            {
                "name": record.name,
                "distribution": record.distribution,
                "version": record.version,
                "state": record.state,
                "reason": record.reason,
                "parts": list(record.parts),
            }
            for record in records
        ]
    }
