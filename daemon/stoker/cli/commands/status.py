"""`stoker status`: the pool table."""

from __future__ import annotations

from typing import Any

import click

from stoker.cli.session import output_option, print_json, service_argument, session_of, session_options


@click.command()
@service_argument(required=False)
@output_option
@session_options
@click.pass_context
def command(context: click.Context, service: str | None, output: str) -> None:
    """Show services, replicas, load and the state of the configuration."""
    status = session_of(context).client().get("/v1/status", service=service)
    if output == "json":
        print_json(status)
    elif status["daemon"].get("role") == "router":
        from stoker.cli import router_role

        router_role.show(status)
    else:
        show_status(status, everything=service is not None)


def show_status(status: dict[str, Any], *, everything: bool) -> None:
    """The pool table for this stdout; `everything` also shows why each target is what it is."""
    from stoker.cli import gpu_rows, rows
    from stoker.cli.table import say, show

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
