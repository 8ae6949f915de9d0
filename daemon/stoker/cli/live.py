"""The live screen: the pool table as it is now, events scrolling above it. Needs a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import anyio
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from stoker.cli import rows
from stoker.cli.table import Table, render, shorten

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
            live.update(screen(status, width=console.width, height=console.height - 4), refresh=True)

        async def tell() -> None:
            async for line, severity in told(facade):
                live.console.print(Text(line, style=STYLES[severity]), soft_wrap=True)
                draw()

        async with anyio.create_task_group() as group:
            group.start_soon(tell)
            while True:
                draw()
                await anyio.sleep(TICK)


def screen(status: Mapping[str, Any], *, width: int, height: int) -> RenderableType:
    """The status document as one picture for a terminal of that size. Pure.

    It leaves some columns free at the right: a `^C` echoed there must not wrap and shift the picture.
    """
    columns = width - 4
    parts: list[RenderableType] = [Text(rows.headline(status), style="dim")]
    if errors := rows.error_lines(status):
        shown = [Text(line) for line in errors[:5]]
        if len(errors) > len(shown):
            shown.append(Text(f"and {len(errors) - len(shown)} more: stoker status", style="dim"))
        parts.append(
            Panel(Group(*shown), title="config rejected; the last good one runs", border_style="red")
        )
    parts += [Text(shorten(line, 2 * columns), style="red") for line in rows.outage_lines(status)]
    noted = [*rows.rejection_lines(status), *status["daemon"].get("notices", [])]
    parts += [Text(shorten(line, 2 * columns), style="yellow") for line in noted]
    if status["services"]:
        parts.append(_picture(rows.service_table(status), columns))
        parts += _reasons(status, columns)
    room = height - len(status["services"]) * 2 - len(parts) - 4
    replicas, left_out = rows.shown_replicas(status, everything=False)
    if replicas and room > 2:
        shown_replicas = replicas[: room - 2]
        left_out += len(replicas) - len(shown_replicas)
        table = rows.replica_table(shown_replicas, status["devices"], brief=True)
        parts.append(Text())
        parts.append(_picture(table, columns))
    if left_out:
        parts.append(Text(f"and {left_out} more replicas: stoker status SERVICE", style="dim"))
    if status["devices"]:
        parts.append(Text(_devices(status), style="dim"))
    return Group(*parts)


def _reasons(status: Mapping[str, Any], columns: int) -> list[RenderableType]:
    names = rows.service_names(status)
    lines = [
        f"  {names[rows.key_of(service)]}: {service['decision']['reason']}"
        for service in status["services"]
        if service["decision"]["reason"]
    ]
    return [Text(shorten(line, columns), style="dim") for line in lines]


def _devices(status: Mapping[str, Any]) -> str:
    devices = status["devices"]
    held = sum(bool(device["reserved_by"]) for device in devices)
    sick = [device for device in devices if device["health"] != "healthy"]
    words = [f"GPU {device['index']} {device['health']}" for device in sick]
    return ", ".join([f"{len(devices)} GPUs, {held} held", *words])


def _picture(table: Table, columns: int) -> RenderableType:
    """The same lines as `stoker status` prints."""
    lines = render(table, columns=columns, colour=True)
    return Group(*(Text.from_ansi(line, no_wrap=True, overflow="ellipsis") for line in lines))
