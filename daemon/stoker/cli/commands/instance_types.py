"""`stoker instance-types`: the catalogue against this box."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from stoker.cli.place import Session
from stoker.cli.quick import print_json
from stoker.cli.session import config_options, output_option, session_of, session_options

if TYPE_CHECKING:
    from stoker.model.device import Inventory
    from stoker.model.service import Resources

BUILT_IN = "built-in"


@click.command()
@config_options
@output_option
@session_options
@click.pass_context
def command(
    context: click.Context, files: tuple[str, ...], sets: tuple[str, ...], profile: str | None, output: str
) -> None:
    """List the instance types, also those of the configuration in force or of the FILEs, and say which of
    them fit this box when nothing else runs on it.

    NAME.N is NAME N times, gpu.mig.PROFILE a MIG instance of that profile.
    """
    session = session_of(context)
    inventory, cores, memory = _inventory(session), len(os.sched_getaffinity(0)), _memory()
    types = {**dict(_types(session, files, sets, profile)), **_slices(inventory)}
    rows = [
        {"name": name, "from": said, **_values(resources), **_fit(resources, inventory, cores, memory)}
        for name, (resources, said) in types.items()
    ]
    if output == "json":
        box = {"cores": cores, "memory": memory, "gpus": len(inventory.devices), "gpu_state": inventory.state}
        print_json({"instance_types": rows, "box": box})
        return
    _print(rows, inventory)


def _types(
    session: Session, files: tuple[str, ...], sets: tuple[str, ...], profile: str | None
) -> Iterator[tuple[str, tuple[Resources, str]]]:
    """All types with their origin; the configuration's beat built-in ones."""
    from stoker.cli.commands.config import effective_of
    from stoker.cli.exits import UsageError
    from stoker.config.instance_types import CATALOGUE
    from stoker.model.service import Resources

    try:
        deployments = effective_of(session, files, sets, profile)["deployments"]
    except UsageError:
        deployments = []  # neither a daemon nor a file: the built-in ones are all there are
    for name, resources in CATALOGUE.items():
        yield name, (resources, BUILT_IN)
    for one in deployments:
        for name, values in one["instance_types"].items():
            yield name, (Resources(**values), one["name"])


def _slices(inventory: Inventory) -> dict[str, tuple[Resources, str]]:
    """The types of the MIG instances that this box has: there are too many profiles to list them all."""
    from stoker.config.instance_types import find_type

    keys = sorted({device.type_key for device in inventory.devices if device.parent is not None})
    found = {key: find_type(key, {}) for key in keys}
    return {key: (resources, BUILT_IN) for key, resources in found.items() if resources is not None}


def _values(resources: Resources) -> dict[str, Any]:
    from stoker.config.effective import type_document

    return type_document(resources)


def _inventory(session: Session) -> Inventory:
    """The devices as the daemon knows them, else asked once."""
    from stoker.cli.exits import NoDaemonError
    from stoker.model.device import Device, Inventory

    try:
        document = session.client().get("/v1/devices")
    except NoDaemonError:
        from stoker.cli.loading import inventory_now

        return inventory_now(session.state_dir)
    devices = tuple(
        Device(
            uuid=each["uuid"], name=each["name"], index=each["index"], memory_total=each["memory_total"],
            health=each["health"], health_reason=each["health_reason"], type_key=each["type"],
            parent=each["parent"],
        )
        for each in document["devices"]
    )  # fmt: skip
    state, reason = document["inventory"]["state"], document["inventory"]["reason"]
    return Inventory(state=state, reason=reason, devices=devices)


def _memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _fit(resources: Resources, inventory: Inventory, cores: int, memory: int) -> dict[str, Any]:
    """`{fits, reason}`: whether an empty box could bear one replica, and what stands against it."""
    from dataclasses import replace

    from stoker.decide.placement import place
    from stoker.model.quantity import format_bytes
    from stoker.model.service import Command, ServiceSpec

    idle = replace(inventory, devices=tuple(replace(each, memory_used=0) for each in inventory.devices))
    spec = ServiceSpec(deployment="", name="", launch=Command(()), working_dir="/", resources=resources)
    placement = place(spec, idle, ())
    against = [] if placement.placed else [placement.reason]
    if resources.cpu is not None and resources.cpu > cores:
        against.append(f"needs {resources.cpu:g} cores; the box has {cores}")
    if resources.memory is not None and resources.memory > memory:
        against.append(
            f"needs {format_bytes(resources.memory)} of memory; the box has {format_bytes(memory)}"
        )
    return {"fits": not against, "reason": "; ".join(against)}


def _print(rows: list[dict[str, Any]], inventory: Inventory) -> None:
    from stoker.cli.table import Column, Table, say, show

    columns = (
        Column("NAME"), Column("GPU", right=True), Column("MODEL"), Column("CORES", right=True),
        Column("MEMORY", right=True), Column("FROM"), Column("FITS"), Column("WHY NOT", shrink=True),
    )  # fmt: skip
    bare = not inventory.devices
    show(Table(columns, tuple(_row(row, bare=bare) for row in rows)))
    say(
        "NAME.N is NAME N times: gpu.l4.2 has two L4; gpu.mig.PROFILE is a MIG instance: gpu.mig.1g.10gb",
        "dim",
    )
    if bare:
        say(f"no GPU here: {inventory.reason or 'none was found'}", "yellow")
    fitting = sum(row["fits"] for row in rows)
    say(f"{fitting} of {len(rows)} fit this box", "bold") if fitting else say("none fits this box", "yellow")


def _row(row: Mapping[str, Any], *, bare: bool) -> tuple[Any, ...]:
    """`bare`: the box has no GPU, which is said once below the table."""
    from stoker.cli.table import Cell
    from stoker.model.quantity import format_bytes

    memory = format_bytes(row["memory"]) if row["memory"] else ""
    return (
        Cell(row["name"], "bold" if row["fits"] else ""),
        Cell(f"{row['gpu']:g}" if row["gpu"] else ""),
        Cell(row["gpu_type"] or ("any" if row["gpu"] else "")),
        Cell(f"{row['cpu']:g}" if row["cpu"] else ""),
        Cell(memory),
        Cell("" if row["from"] == BUILT_IN else row["from"]),
        Cell("yes", "green") if row["fits"] else Cell("no", "dim"),
        Cell("no GPU" if bare and row["gpu"] else row["reason"], "dim"),
    )
