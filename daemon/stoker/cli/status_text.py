"""The pool table of `stoker status`, on this stdout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stoker.cli import gpu_rows, rows
from stoker.cli.table import Table, coloured, render, say, show, width

MOST_REASONS = 5


def show_status(status: dict[str, Any], *, everything: bool) -> None:
    """The pool table for this stdout; `everything` also shows why each target is what it is."""
    say(rows.headline(status), "dim")
    for line in rows.error_lines(status):
        say(f"  {line}", "red")
    for line in rows.rejection_lines(status):
        say(f"  {line}", "yellow")
    for notice in status["daemon"].get("notices", []):
        say(f"  {notice}", "yellow")
    if not status["services"]:
        say("no services")
        return
    say()
    show(rows.service_table(status))
    replicas, left_out = rows.shown_replicas(status, everything=everything)
    if replicas:
        say()
        _show_replicas(rows.replica_table(replicas, status["devices"]), [one for _, one in replicas])
    if left_out:
        say(f"and {left_out} more that are ready; `stoker status SERVICE` shows them", "dim")
    for line, style in (*gpu_rows.sick_notes(status["devices"]), *rows.door_lines(status)):
        say(line, style)
    if everything:
        for one in status["services"]:
            say()
            say(f"why {one['decision']['target']}: {one['decision']['reason']}")


def _show_replicas(table: Table, replicas: list[Mapping[str, Any]]) -> None:
    """The table, and below it in full what it had no room for."""
    lines = render(table, columns=width(), colour=coloured())
    for line in lines:
        say(line)
    cut = [one for one in replicas if rows.hindered(one) and not any(one["reason"] in line for line in lines)]
    if cut:
        say()
    for one in cut[:MOST_REASONS]:
        say(f"{one['id']}: {one['reason']}", "yellow")
    if len(cut) > MOST_REASONS:
        say(f"and {len(cut) - MOST_REASONS} more; `stoker explain REPLICA` says why", "dim")
