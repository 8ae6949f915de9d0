"""A plan as a document: per service what restarts and why, what changes in place, what scales. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stoker.api.facade import PlanPreview
from stoker.api.forecast import Forecast, forecast
from stoker.api.narrate import plain
from stoker.model.action import Action, AddReplica, DrainReplica, HoldReplica, StartReplica, StopReplica
from stoker.model.service import REVISION_FIELDS, DesiredState, ServiceKey, ServiceSpec, revision
from stoker.model.state import ObservedState

WRITTEN = {"launch": "command", "restart_token": "restart"}
"""How fields of a spec are called in the file, where the names differ."""


def plan_document(preview: PlanPreview, now: float) -> dict[str, Any]:
    """`GET|POST /v1/plan`: what applying the configuration would do, played out to its end.

    `changes` says whether it differs at all from what is in force; what the daemon does anyway (a backoff
    that ends, a replica that starts) is no change.
    """
    before, after = preview.before, preview.after
    changes = [key for key in _all_keys(before, after) if before.services.get(key) != after.services.get(key)]
    box = before.box != after.box
    ahead = Forecast(actions=(), observed=preview.observed)
    if changes or box:
        ahead = forecast(after, preview.observed, now)
    touched = {action.service for action in ahead.actions}
    drawn_in = [key for key in _all_keys(before, after) if key in touched and key not in changes]
    services = [_service(preview, ahead, key) for key in [*changes, *drawn_in]]
    return {
        "changes": bool(changes) or box,
        "box": box,
        "services": services,
        "actions": [_action(action) for action in ahead.actions],
        "generation": before.generation,
        "summary": _summary(services, box=box),
    }


def _all_keys(before: DesiredState, after: DesiredState) -> list[ServiceKey]:
    return list(dict.fromkeys([*after.services, *before.services]))


def _service(preview: PlanPreview, ahead: Forecast, key: ServiceKey) -> dict[str, Any]:
    before, after = preview.before.services.get(key), preview.after.services.get(key)
    mine = [action for action in ahead.actions if action.service == key]
    causes = _causes(before, after)
    keys = list(preview.changed.get(key, ()))
    running = sum(not replica.leaving for replica in preview.observed.of(key))
    wanted = sum(not replica.leaving for replica in ahead.observed.of(key))
    deployment, _, name = key.partition("/")
    return {
        "deployment": deployment,
        "name": name,
        "change": _change(before, after, causes=bool(causes), scales=running != wanted),
        "keys": keys,
        "restart_causes": causes,
        "strategy": after.update.strategy if after else "",
        "replicas": {"running": running, "wanted": wanted},
        "bounds": _bounds(after),
        "revision": {"before": revision(before) if before else "", "after": revision(after) if after else ""},
        "starts": _starts(mine),
        "stops": sorted({action.replica for action in mine if isinstance(action, _ENDS) and action.leave}),
        "waits": _waits(ahead.observed, key),
        "actions": [_action(action) for action in mine if not isinstance(action, HoldReplica)],
    }


_ENDS = (DrainReplica, StopReplica)


def _change(before: ServiceSpec | None, after: ServiceSpec | None, *, causes: bool, scales: bool) -> str:
    """`add`, `remove`, `restart`, `scale` or `in-place`."""
    if after is None:
        return "remove"
    if before is None:
        return "add"
    if causes:
        return "restart"
    return "scale" if scales else "in-place"


def _causes(before: ServiceSpec | None, after: ServiceSpec | None) -> list[str]:
    """The keys whose change needs new workers; of mappings the exact entries. Never a value."""
    if before is None or after is None or revision(before) == revision(after):
        return []
    causes: list[str] = []
    for name in REVISION_FIELDS:
        old, new = getattr(before, name), getattr(after, name)
        if old == new:
            continue
        if name == "envs":
            causes += [f"envs.{key}" for key in sorted({key for key, _ in set(old) ^ set(new)})]
        elif name in {"resources", "limits"}:
            one, two = plain(old), plain(new)
            causes += [f"{name}.{key}" for key in one if one[key] != two[key]]
        else:
            causes.append(WRITTEN.get(name, name))
    return causes or ["probes.startup"]


def _bounds(after: ServiceSpec | None) -> dict[str, int]:
    low, high = (after.scaling.min_replicas, after.scaling.max_replicas) if after else (0, 0)
    return {"min_replicas": low, "max_replicas": high}


def _starts(actions: Sequence[Action]) -> list[dict[str, Any]]:
    return [
        {
            "replica": action.replica,
            "devices": [reservation.uuid for reservation in action.reservations],
            "reason": action.devices_reason,
        }
        for action in actions
        if isinstance(action, StartReplica)
    ]


def _waits(observed: ObservedState, key: ServiceKey) -> list[dict[str, str]]:
    """Replicas that could not start even then, and why."""
    return [
        {"replica": replica.id, "reason": replica.reason}
        for replica in observed.of(key)
        if replica.phase == "pending"
    ]


def _action(action: Action) -> dict[str, Any]:
    document: dict[str, Any] = {
        "action": type(action).__name__,
        "replica": action.replica,
        "service": action.service,
        "reason": action.reason,
    }
    if isinstance(action, AddReplica | StartReplica):
        document["revision"] = action.revision
    if isinstance(action, _ENDS):
        document["leave"] = action.leave
    return document


def _summary(services: Sequence[dict[str, Any]], *, box: bool) -> str:
    counts: dict[str, int] = {}
    for service in services:
        counts[service["change"]] = counts.get(service["change"], 0) + 1
    words = {
        "add": "to add",
        "remove": "to remove",
        "restart": "to restart",
        "scale": "to scale",
        "in-place": "to change in place",
    }
    parts = [f"{counts[kind]} {text}" for kind, text in words.items() if kind in counts]
    if box:
        parts.append("the box's own settings change")
    return ", ".join(parts) or "no changes"
