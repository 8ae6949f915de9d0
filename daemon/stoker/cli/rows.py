"""The pool table, made from the status document: for `stoker status`, `top` and `up` alike. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stoker.cli.table import Cell, Column, Table
from stoker.model.quantity import format_duration

Document = Mapping[str, Any]

PHASE_STYLES = {
    "ready": "green",
    "pending": "yellow",
    "starting": "cyan",
    "unready": "yellow",
    "draining": "blue",
    "stopping": "blue",
    "exited": "dim",
    "lost": "red",
}
PATIENCE = 5.0
"""Seconds for which a replica that does not serve yet is no trouble, unless it failed before."""
MANY = 40
"""Replicas beyond which a table of all services leaves out those that are simply ready."""


def service_names(status: Document) -> dict[str, str]:
    """How to show each service: its name, with the deployment where there are several."""
    services = status["services"]
    several = len({service["deployment"] for service in services}) > 1
    return {key_of(service): key_of(service) if several else service["name"] for service in services}


def key_of(service: Document) -> str:
    """`deployment/name`."""
    return f"{service['deployment']}/{service['name']}"


def service_table(status: Document) -> Table:
    """One row per service."""
    names = service_names(status)
    columns = (
        Column("SERVICE", shrink=True),
        Column("READY", right=True),
        Column("TARGET", right=True),
        Column("BOUNDS"),
        Column("BUSY", right=True),
        Column("QUEUED", right=True),
        Column("RPS", right=True),
        Column("P50", right=True),
        Column("P99", right=True),
        Column("ADDRESS"),
    )
    return Table(columns, tuple(_service_row(service, names) for service in status["services"]))


def _service_row(service: Document, names: Mapping[str, str]) -> tuple[Cell, ...]:
    load = service["load"]
    ready, target = service["ready"], service["target"]
    style = "green" if ready >= target else "yellow"
    if ready == 0 and target > 0:
        style = "red"
    return (
        Cell(names[key_of(service)], "bold"),
        Cell(str(ready), style if target or ready else "dim"),
        Cell(str(target)),
        Cell(_bounds(service), "dim"),
        Cell(str(load["in_flight"]) if load["in_flight"] else "-"),
        Cell(str(load["queued"]) if load["queued"] else "-", "yellow" if load["queued"] else ""),
        Cell(f"{load['rps']:.1f}" if load["rps"] else "-"),
        Cell(_milliseconds(load["p50_ms"])),
        Cell(_milliseconds(load["p99_ms"])),
        Cell(service["url"], "cyan"),
    )


def _bounds(service: Document) -> str:
    if service.get("removed"):
        return "removed"
    if service.get("held"):
        return "held"
    low, high = service["min_replicas"], service["max_replicas"]
    return str(low) if low == high else f"{low}..{high}"


def _milliseconds(value: float | None) -> str:
    if value is None:
        return "-"
    return (
        f"{value / 1000:.1f}s" if value >= 10_000 else f"{value:.0f}ms" if value >= 10 else f"{value:.1f}ms"
    )


def shown_replicas(status: Document, *, everything: bool) -> tuple[list[tuple[str, Document]], int]:
    """(service key, replica) to be shown, and how many ready ones are left out."""
    found = [(key_of(service), replica) for service in status["services"] for replica in service["replicas"]]
    if everything or len(found) <= MANY:
        return found, 0
    notable = [(key, replica) for key, replica in found if replica["phase"] != "ready"]
    return notable, len(found) - len(notable)


def replica_table(
    replicas: Sequence[tuple[str, Document]], devices: Sequence[Document], *, brief: bool = False
) -> Table:
    """One row per replica; `brief` leaves the room of the endpoint to the reason."""
    indexes = {device["uuid"]: device["index"] for device in devices}
    columns = (
        Column("REPLICA"),
        Column("PHASE"),
        Column("SINCE", right=True),
        Column("PID", right=True),
        Column("ENDPOINT"),
        Column("GPU"),
        Column("RESTARTS", right=True),
        Column("WHY", shrink=True),
    )
    return Table(columns, tuple(_replica_row(replica, indexes, brief=brief) for _, replica in replicas))


def _replica_row(replica: Document, indexes: Mapping[str, int], *, brief: bool) -> tuple[Cell, ...]:
    restarts = replica["restarts"]
    why = replica["reason"]
    if replica["phase"] == "ready":
        why = f"last ended: {replica['last_exit']}" if restarts and replica.get("last_exit") else ""
    return (
        Cell(replica["id"]),
        Cell(replica["phase"], PHASE_STYLES.get(replica["phase"], "")),
        Cell(age(replica["since_s"])),
        Cell(str(replica["pid"] or "")),
        Cell("" if brief else replica["endpoint"]),
        Cell(",".join(str(indexes.get(uuid, uuid[:12])) for uuid in replica["devices"])),
        Cell(str(restarts) if restarts else "", "yellow"),
        Cell(why, "" if replica["phase"] in {"ready", "starting"} else "yellow"),
    )


def age(seconds: float) -> str:
    """How long ago, or for how long."""
    return "now" if seconds < 1 else format_duration(float(int(seconds)))


def headline(status: Document) -> str:
    """The daemon in one line."""
    daemon = status["daemon"]
    who = f"stoker {daemon['version']}, pid {daemon['pid']}, up {age(daemon['uptime_s'])}"
    text = f"{who}; {config_words(daemon['config'])}"
    return f"{text}; stopping" if daemon.get("stopping") else text


def config_words(config: Document) -> str:
    """Which configuration is in force. Generation 0: none, the first is still read, or was rejected."""
    generation, rejected = config["generation"], config["state"] != "in-force"
    if not generation:
        return (
            "no config in force, the one there is was REJECTED"
            if rejected
            else "starting, reading its config"
        )
    return f"config generation {generation} in force" + (", a newer one is REJECTED" if rejected else "")


def rejection_lines(status: Document) -> list[str]:
    """Services whose configured revision failed."""
    names = service_names(status)
    return [
        f"{names[key_of(service)]}: {service['rejected']['message']}"
        for service in status["services"]
        if service.get("rejected")
    ]


def hindered(replica: Document) -> bool:
    """Whether something keeps it from serving that does not simply take its time."""
    phase, reason = replica["phase"], replica["reason"]
    if not reason or (replica["since_s"] < PATIENCE and replica["restarts"] < 2):
        return False
    failed = phase == "starting" and replica["restarts"]
    return bool(failed or phase in {"unready", "lost"} or (phase == "pending" and reason != "it is wanted"))


def outage_lines(status: Document) -> list[str]:
    """Services that should serve and do not, each with the reason of its first replica."""
    names = service_names(status)
    down = [one for one in status["services"] if one["target"] and not one["ready"] and not one.get("held")]
    first = [(one, next(filter(hindered, one["replicas"]), None)) for one in down]
    return [f"{names[key_of(one)]} serves nothing: {found['reason']}" for one, found in first if found]


def error_lines(status: Document) -> list[str]:
    """The faults of a rejected configuration, as `stoker check` prints them."""
    lines = []
    for error in status["daemon"]["config"]["errors"]:
        where = error["file"] + (f":{error['line']}:{error['column']}" if error["line"] else "")
        lines.append(": ".join(part for part in (where, error["path"], error["message"]) if part))
    return lines


def door_lines(status: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Each front door and where it leads, with how it is shown."""
    return [
        (
            f"front door {door['url']}: "
            + ", ".join(f"{rule['host']}{rule['path']} to {rule['service']}" for rule in door["rules"]),
            "dim",
        )
        for door in status.get("doors", [])
    ]
