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

LAUNCH_KEYS = frozenset({"command", "python", "bento", "interpreter", "config_overrides"})
WRITTEN = {"restart_token": "restart"}
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
    drawn_in = [key for key in _drawn_in(preview, ahead, now) if key not in changes] if changes or box else []
    services = [_service(preview, ahead, key) for key in [*changes, *drawn_in]]
    return {
        "changes": bool(changes) or box,
        "box": box,
        "services": services,
        "actions": [_action(action) for action in ahead.actions],
        "generation": before.generation,
        "summary": _summary(services, box=box),
    }


def _drawn_in(preview: PlanPreview, ahead: Forecast, now: float) -> list[ServiceKey]:
    """Services that fare differently though nothing was changed of them: another took or left their place.

    What the daemon would do with them anyway (a replica that is still to start) is not of this plan.
    """
    anyway = forecast(preview.before, preview.observed, now).observed
    touched = {action.service for action in ahead.actions}
    return [
        key
        for key in preview.before.services
        if key in touched and _fare(anyway, key) != _fare(ahead.observed, key)
    ]


def _fare(observed: ObservedState, key: ServiceKey) -> tuple[list[str], list[bool]]:
    """What a service holds and how many of its replicas have a place."""
    held = [device["uuid"] for device in _held(observed, key)]
    return held, sorted(replica.phase == "pending" for replica in observed.of(key) if not replica.leaving)


def _all_keys(before: DesiredState, after: DesiredState) -> list[ServiceKey]:
    return list(dict.fromkeys([*after.services, *before.services]))


def _service(preview: PlanPreview, ahead: Forecast, key: ServiceKey) -> dict[str, Any]:
    before, after = preview.before.services.get(key), preview.after.services.get(key)
    mine = [action for action in ahead.actions if action.service == key]
    keys = list(preview.changed.get(key, ()))
    causes = _causes(before, after, keys)
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
        "devices": {"before": _held(preview.observed, key), "after": _held(ahead.observed, key)},
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


def _causes(before: ServiceSpec | None, after: ServiceSpec | None, keys: Sequence[str]) -> list[str]:
    """Those of the changed keys that need new workers; of mappings the exact entries. Never a value."""
    if before is None or after is None or revision(before) == revision(after):
        return []
    causes: list[str] = []
    for name in REVISION_FIELDS:
        old, new = getattr(before, name), getattr(after, name)
        if old == new:
            continue
        if name == "envs":
            causes += [f"envs.{key}" for key in sorted({key for key, _ in set(old) ^ set(new)})]
        elif name == "secret_versions":
            causes += [
                f"secrets.{secret}" for secret in sorted({secret for secret, _ in set(old) ^ set(new)})
            ]
        elif name == "launch":
            causes += [key for key in keys if key.partition(".")[0] in LAUNCH_KEYS] or ["command"]
        elif name in {"resources", "limits"}:
            one, two = plain(old), plain(new)
            causes += [f"{name}.{key}" for key in one if one[key] != two[key]]
        else:
            causes.append(WRITTEN.get(name, name))
    return causes or ["probes.startup"]


def _bounds(after: ServiceSpec | None) -> dict[str, int]:
    low, high = (after.scaling.min_replicas, after.scaling.max_replicas) if after else (0, 0)
    return {"min_replicas": low, "max_replicas": high}


def _held(observed: ObservedState, key: ServiceKey) -> list[dict[str, Any]]:
    """The devices that its replicas hold, each once."""
    indexes = {device.uuid: device.index for device in observed.inventory.devices}
    held = {one.uuid for replica in observed.of(key) if not replica.leaving for one in replica.reservations}
    return [
        {"uuid": uuid, "index": indexes.get(uuid, -1)}
        for uuid in sorted(held, key=lambda each: (indexes.get(each, -1), each))
    ]


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
