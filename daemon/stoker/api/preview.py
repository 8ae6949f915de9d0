"""A plan as a document: per service what restarts and why, what changes in place, what scales. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stoker.api.facade import PlanPreview
from stoker.api.narrate import plain
from stoker.model.action import Action, AddReplica, DrainReplica, HoldReplica, StartReplica, StopReplica
from stoker.model.service import REVISION_FIELDS, ServiceKey, ServiceSpec, revision
from stoker.model.state import ObservedState

WRITTEN = {"launch": "command", "restart_token": "restart"}
"""How fields of a spec are called in the file, where the names differ."""


def plan_document(preview: PlanPreview) -> dict[str, Any]:
    """`GET|POST /v1/plan`. `changes` says whether anything would happen at all."""
    keys = sorted({*preview.before.services, *preview.after.services, *_touched(preview.plan.actions)})
    services = [_service(preview, key) for key in keys]
    changed = [service for service in services if service["change"] != "none"]
    return {
        "changes": bool(changed),
        "services": services,
        "actions": [_action(action) for action in preview.plan.actions],
        "generation": preview.before.generation,
        "summary": _summary(changed),
    }


def _touched(actions: Sequence[Action]) -> set[ServiceKey]:
    return {action.service for action in actions}


def _service(preview: PlanPreview, key: ServiceKey) -> dict[str, Any]:
    before, after = preview.before.services.get(key), preview.after.services.get(key)
    mine = [action for action in preview.plan.actions if action.service == key]
    causes = _causes(before, after)
    acts = any(not isinstance(action, HoldReplica) for action in mine)
    running = sum(not replica.leaving for replica in preview.observed.of(key))
    planned = _wanted(preview.observed, after)
    keys = list(preview.changed.get(key, ()))
    deployment, _, name = key.partition("/")
    return {
        "deployment": deployment,
        "name": name,
        "change": _change(before, after, causes=causes, acts=acts, keys=bool(keys)),
        "keys": keys,
        "restart_causes": causes,
        "strategy": after.update.strategy if after else "",
        "replicas": {"running": running, "wanted": planned},
        "bounds": _bounds(after),
        "revision": {"before": revision(before) if before else "", "after": revision(after) if after else ""},
        "devices": _devices(mine),
        "waits": [
            {"replica": a.replica, "reason": a.reason}
            for a in mine
            if isinstance(a, HoldReplica) and a.reason
        ],
        "actions": [_action(action) for action in mine],
    }


def _change(
    before: ServiceSpec | None, after: ServiceSpec | None, *, causes: list[str], acts: bool, keys: bool
) -> str:
    """`add`, `remove`, `restart`, `scale`, `in-place` or `none`."""
    if after is None:
        return "remove" if before or acts else "none"
    if before is None:
        return "add"
    if causes:
        return "restart"
    if acts:
        return "scale"
    return "in-place" if keys else "none"


def _causes(before: ServiceSpec | None, after: ServiceSpec | None) -> list[str]:
    """The keys whose change needs new workers; of mappings the exact entries. Never a value."""
    if before is None or after is None:
        return []
    causes: list[str] = []
    for name in REVISION_FIELDS:
        old, new = getattr(before, name), getattr(after, name)
        if old == new:
            continue
        if name == "envs":
            changed = {key for key, _ in set(old) ^ set(new)}
            causes += [f"envs.{key}" for key in sorted(changed)]
        elif name in {"resources", "limits"}:
            one, two = plain(old), plain(new)
            causes += [f"{name}.{key}" for key in one if one[key] != two[key]]
        else:
            causes.append(WRITTEN.get(name, name))
    if not causes and revision(before) != revision(after):
        causes.append("probes.startup")
    return causes


def _wanted(observed: ObservedState, after: ServiceSpec | None) -> int:
    if after is None or after.held or observed.stopping:
        return 0
    low, high = after.scaling.min_replicas, after.scaling.max_replicas
    return max(low, min(high, observed.targets.get(after.key, low)))


def _bounds(after: ServiceSpec | None) -> dict[str, int]:
    if after is None:
        return {"min_replicas": 0, "max_replicas": 0}
    return {"min_replicas": after.scaling.min_replicas, "max_replicas": after.scaling.max_replicas}


def _devices(actions: Sequence[Action]) -> list[dict[str, Any]]:
    return [
        {"replica": action.replica, "devices": [r.uuid for r in action.reservations],
         "reason": action.devices_reason}
        for action in actions
        if isinstance(action, StartReplica) and action.reservations
    ]  # fmt: skip


def _action(action: Action) -> dict[str, Any]:
    document: dict[str, Any] = {
        "action": type(action).__name__,
        "replica": action.replica,
        "service": action.service,
        "reason": action.reason,
    }
    if isinstance(action, AddReplica | StartReplica):
        document["revision"] = action.revision
    if isinstance(action, DrainReplica | StopReplica):
        document["leave"] = action.leave
    return document


def _summary(changed: list[dict[str, Any]]) -> str:
    if not changed:
        return "no changes"
    counts: dict[str, int] = {}
    for service in changed:
        counts[service["change"]] = counts.get(service["change"], 0) + 1
    words = {"add": "to add", "remove": "to remove", "restart": "to restart", "scale": "to scale",
             "in-place": "to change in place"}  # fmt: skip
    return ", ".join(f"{counts[kind]} {text}" for kind, text in words.items() if kind in counts)
