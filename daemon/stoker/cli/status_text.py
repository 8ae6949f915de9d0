"""The pool table of `stoker status`, on this stdout."""

from __future__ import annotations

from typing import Any

from stoker.cli import gpu_rows, rows
from stoker.cli.table import say, show


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
        show(rows.replica_table(replicas, status["devices"]))
    if left_out:
        say(f"and {left_out} more that are ready; `stoker status SERVICE` shows them", "dim")
    for line, style in (*gpu_rows.sick_notes(status["devices"]), *rows.door_lines(status)):
        say(line, style)
    if everything:
        for one in status["services"]:
            say()
            say(f"why {one['decision']['target']}: {one['decision']['reason']}")
