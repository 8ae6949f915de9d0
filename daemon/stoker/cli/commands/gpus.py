"""`stoker gpus`: devices, owners, health."""

from __future__ import annotations

import click

from stoker.cli.session import output_option, print_json, session_of, session_options


@click.command()
@output_option
@session_options
@click.pass_context
def command(context: click.Context, output: str) -> None:
    """Show the GPUs of the box, their health and who holds them."""
    document = session_of(context).client().get("/v1/devices")
    if output == "json":
        print_json(document)
        return
    from stoker.cli.rows import device_table
    from stoker.cli.table import say, show

    inventory = document["inventory"]
    if document["devices"]:
        show(device_table(document["devices"]))
    if inventory["state"] == "unreachable":
        say(f"the devices cannot be seen now: {inventory['reason']}", "red")
    elif not document["devices"]:
        say(f"no GPUs: {inventory['reason']}" if inventory["reason"] else "no GPUs")
