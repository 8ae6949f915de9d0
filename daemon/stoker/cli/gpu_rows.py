"""What `stoker gpus` shows, made from the devices document. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stoker.cli.table import Cell, Column, Table
from stoker.model.quantity import format_bytes, format_duration

Document = Mapping[str, Any]

HEALTH_STYLES = {
    "healthy": "green", "probation": "yellow", "suspect": "yellow", "draining": "blue", "cordoned": "blue",
}  # fmt: skip
NVLINK = 100
"""Link scores from here on are of NVLink."""
_MPS = "nvidia-cuda-mps"
"""How the kernel shortens the name of MPS's programs."""
_BOUNDS = {"mig": "MIG", "mps": "MPS"}


def device_table(devices: Sequence[Document], *, brief: bool = False) -> Table:
    """One row per device; `brief` has the beginning of each UUID, which every command takes for the whole."""
    columns = (
        Column("GPU", right=True),
        Column("NAME", shrink=True),
        Column("UUID", shrink=True),
        Column("MEMORY", right=True),
        Column("BUSY", right=True),
        Column("HEALTH"),
        Column("FREE", right=True),
        Column("NVLINK"),
        Column("BOUND BY"),
        Column("HELD BY", shrink=True),
    )
    numbers = {device["uuid"]: device["index"] for device in devices}
    return Table(columns, tuple(_row(device, numbers, brief=brief) for device in devices))


def _row(device: Document, numbers: Mapping[str, int], *, brief: bool) -> tuple[Cell, ...]:
    health, used, total = device["health"], device.get("memory_used", 0), device.get("memory_total", 0)
    busy, since = device.get("utilization"), device.get("health_since_s")
    return (
        Cell(str(device["index"])),
        Cell(device["name"]),
        Cell(device["uuid"][:12] if brief else device["uuid"]),
        Cell(f"{format_bytes(used)}/{format_bytes(total)}" if total else ""),
        Cell("" if busy is None else f"{busy:.0%}"),
        Cell(
            f"{health} {format_duration(float(int(since)))}" if since and since >= 1 else health,
            HEALTH_STYLES.get(health, "red"),
        ),
        Cell(_free(device)),
        Cell("faulty" if device.get("unlinked") else _peers(device, numbers)),
        Cell(_bounds(device)),
        Cell(_owners(device)),
    )


def _free(device: Document) -> str:
    """What of it a new replica could be given, as far as shares go."""
    if device["health"] != "healthy" or device.get("withheld"):
        return "-"
    left = 1 - sum(owner["share"] for owner in device.get("reservations", ()))
    return "all" if left > 1 - 1e-6 else f"{left:.2g}" if left > 1e-6 else "-"


def _bounds(device: Document) -> str:
    """What holds its workers to what they were given: their memory, and this device alone."""
    owners = device.get("reservations", ())
    watched = any(owner["share"] < 1 for owner in owners)
    bounds = [_BOUNDS.get(device.get("limits", ""), "watching" if watched else "")]
    if owners and all(owner.get("confined") for owner in owners):
        bounds.append("device filter")
    return ", ".join(filter(None, bounds))


def _peers(device: Document, numbers: Mapping[str, int]) -> str:
    """The GPUs at the other ends of its NVLinks: "0-3,5"."""
    near = (link for link in device.get("links", ()) if link["score"] >= NVLINK)
    found = sorted({numbers[link["uuid"]] for link in near if link["uuid"] in numbers})
    runs: list[list[int]] = []
    for number in found:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _owners(device: Document) -> str:
    parts = [
        owner["replica"] if owner["share"] >= 1 else f"{owner['replica']} ({owner['share']:g})"
        for owner in device.get("reservations", ())
    ]
    return ", ".join(parts) or ", ".join(device["reserved_by"]) or "-"


def device_notes(devices: Sequence[Document]) -> Iterator[tuple[str, str]]:
    """What a row has no room for, each line with its style: why a device is not given, what to do, who else
    is on it. What is the same of several MIG instances is said once."""
    said: dict[str, tuple[list[str], str]] = {}
    for device in devices:
        for text, style in _notes(device):
            said.setdefault(f"{device['index']} {text}", ([], style))[0].append(_label(device))
    for key, (labels, style) in said.items():
        yield f"{', '.join(labels)}: {key.partition(' ')[2]}", style


def _label(device: Document) -> str:
    return device["uuid"][:12] if device.get("parent") else f"GPU {device['index']}"


def sick_notes(devices: Sequence[Document]) -> Iterator[tuple[str, str]]:
    """The notes of devices that are not healthy, after an empty line; nothing where all are."""
    sick = [device for device in devices if device["health"] != "healthy"]
    if sick:
        yield "", ""
        yield from device_notes(sick)


def _notes(device: Document) -> Iterator[tuple[str, str]]:
    health, reason = device["health"], device.get("health_reason", "")
    if health != "healthy":
        text = reason if reason.startswith(health) else f"{health}: {reason}" if reason else health
        yield text, HEALTH_STYLES.get(health, "red")
        if advice := device.get("advice"):
            yield advice, "dim"
    elif reason:
        yield reason, "yellow"
    if device.get("withheld"):
        yield f"not free yet: {device['withheld']}", "yellow"
    if device.get("unlinked"):
        yield f"not given together with others: {device['unlinked']}", "yellow"
    others = [process for process in device.get("processes", ()) if not process.get("owner")]
    servers = [process for process in others if process.get("name", "").startswith(_MPS)]
    if servers and device.get("limits") == "mps":
        yield f"its workers use it through the MPS server ({_server(servers[0])})", "dim"
        others = [process for process in others if process not in servers]
    if others:
        yield f"in use by processes that are not Stoker's: {_processes(others)}", "yellow"


def _server(process: Document) -> str:
    """What is in use by workers under MPS is booked on it."""
    memory = "" if process["memory"] is None else f", {format_bytes(process['memory'])}"
    return f"pid {process['pid']}{memory}"


def _processes(processes: Sequence[Document]) -> str:
    shown = []
    for process in processes[:4]:
        name = f" {process['name']}" if process.get("name") else ""
        memory = "" if process["memory"] is None else f" ({format_bytes(process['memory'])})"
        shown.append(f"{process['pid']}{name}{memory}")
    more = f" and {len(processes) - 4} more" if len(processes) > 4 else ""
    return ", ".join(shown) + more
