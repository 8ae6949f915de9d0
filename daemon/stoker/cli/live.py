"""The live screen: the pool table as it is now, events scrolling above it. Needs a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import anyio
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table as RichTable
from rich.text import Text

from stoker.cli import rows
from stoker.cli.table import Table

if TYPE_CHECKING:
    from stoker.api.facade import DaemonFacade

TICK = 1.0
"""Seconds between two looks at what changes without an event: load, ages."""
STYLES = {"info": "", "warning": "yellow", "error": "bold red"}


async def live_screen(facade: DaemonFacade) -> None:
    """Show the daemon that runs in this process, until cancelled. The last picture stays on the screen."""
    from stoker.api.documents import status_document
    from stoker.cli.observers import told

    console = Console()
    with Live(console=console, auto_refresh=False, vertical_overflow="ellipsis") as live:

        def draw() -> None:
            status = status_document(facade.snapshot())
            live.update(screen(status, height=console.size.height - 4), refresh=True)

        async def tell() -> None:
            async for line, severity in told(facade):
                live.console.print(Text(line, style=STYLES[severity]), soft_wrap=True)
                draw()

        async with anyio.create_task_group() as group:
            group.start_soon(tell)
            while True:
                draw()
                await anyio.sleep(TICK)


def screen(status: Mapping[str, Any], *, height: int) -> RenderableType:
    """The status document as one picture of at most about `height` lines. Pure."""
    parts: list[RenderableType] = [Text(rows.headline(status), style="dim")]
    if errors := rows.error_lines(status):
        shown = [Text(line) for line in errors[:5]]
        if len(errors) > len(shown):
            shown.append(Text(f"and {len(errors) - len(shown)} more: stoker status", style="dim"))
        parts.append(
            Panel(Group(*shown), title="config rejected; the last good one runs", border_style="red")
        )
    if status["services"]:
        parts.append(_rich(rows.service_table(status)))
        parts += _reasons(status)
    room = height - len(status["services"]) * 2 - len(parts) - 4
    replicas, left_out = rows.shown_replicas(status, everything=False)
    if replicas and room > 2:
        shown_replicas = replicas[: room - 2]
        left_out += len(replicas) - len(shown_replicas)
        parts.append(Text())
        parts.append(_rich(rows.replica_table(shown_replicas, status["devices"])))
    if left_out:
        parts.append(Text(f"and {left_out} more replicas: stoker status SERVICE", style="dim"))
    if status["devices"]:
        parts.append(Text(_devices(status), style="dim"))
    return Group(*parts)


def _reasons(status: Mapping[str, Any]) -> list[RenderableType]:
    names = rows.service_names(status)
    lines = [
        f"  {names[rows.key_of(service)]}: {service['decision']['reason']}"
        for service in status["services"]
        if service["decision"]["reason"]
    ]
    return [Text(line, style="dim", overflow="ellipsis", no_wrap=True) for line in lines]


def _devices(status: Mapping[str, Any]) -> str:
    devices = status["devices"]
    held = sum(bool(device["reserved_by"]) for device in devices)
    sick = [device for device in devices if device["health"] != "healthy"]
    words = [f"GPU {device['index']} {device['health']}" for device in sick]
    return ", ".join([f"{len(devices)} GPUs, {held} held", *words])


def _rich(table: Table) -> RichTable:
    """The same table for rich."""
    used = table.used()
    made = RichTable(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for i in used:
        column = table.columns[i]
        made.add_column(
            column.title,
            justify="right" if column.right else "left",
            no_wrap=True,
            overflow="ellipsis",
        )
    for row in table.rows:
        made.add_row(*(Text(row[i].text, style=row[i].style) for i in used))
    return made
