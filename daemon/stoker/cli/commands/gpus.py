"""`stoker gpus`: devices, owners, health; which of them to use."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

from stoker.cli.quick import print_json
from stoker.cli.session import output_option, session_of, session_options


def complete_devices(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The UUIDs of the box, asked of the daemon; silent where none answers."""
    from stoker.errors import StokerError

    try:
        devices = session_of(context).client(timeout=0.5).get("/v1/devices")["devices"]
    except StokerError:
        return []
    return [
        CompletionItem(device["uuid"], help=f"index {device['index']}, {device['health']}")
        for device in devices
        if device["uuid"].startswith(incomplete)
    ]


device_argument = click.argument("device", metavar="UUID|INDEX", shell_complete=complete_devices)


@click.group(invoke_without_command=True)
@output_option
@session_options
@click.pass_context
def command(context: click.Context, output: str) -> None:
    """Show the GPUs of the box: health, what is free, who holds them, who else is on them; and the nodes of
    the cluster that services run on."""
    if context.invoked_subcommand:
        return
    document = session_of(context).client().get("/v1/devices")
    if output == "json":
        print_json(document)
        return
    from stoker.cli.gpu_rows import device_notes, device_table
    from stoker.cli.table import say, show

    inventory = document["inventory"]
    if document["devices"]:
        show(device_table(document["devices"]))
        for line, style in device_notes(document["devices"]):
            say(line, style)
    if inventory["state"] == "unreachable":
        style = "yellow" if inventory.get("resting") else "red"
        say(f"the devices cannot be seen now: {inventory['reason']}", style)
    elif not document["devices"]:
        say(f"no GPUs: {inventory['reason']}" if inventory["reason"] else "no GPUs")
    elif inventory["reason"]:
        say(inventory["reason"], "yellow")
    if document["nodes"]:
        from stoker.cli.node_rows import node_table

        say()
        show(node_table(document["nodes"]))


@command.command()
@device_argument
@session_options
@click.pass_context
def cordon(context: click.Context, device: str) -> None:
    """Give the device to no new worker; those on it stay. Kept until `uncordon`."""
    _post(context, "cordon", device)


@command.command()
@device_argument
@session_options
@click.pass_context
def uncordon(context: click.Context, device: str) -> None:
    """Use a cordoned or released device again; one that is suspect, or unfit for sets, is forgiven."""
    _post(context, "uncordon", device)


@command.command()
@device_argument
@session_options
@click.pass_context
def release(context: click.Context, device: str) -> None:
    """Cordon the device and move its workers elsewhere, so that it can be reset or lent out. One that is in
    quarantine for a fault is let out of it instead, by way of probation."""
    _post(context, "release", device)


def _post(context: click.Context, what: str, device: str) -> None:
    body = {"device": device}
    click.echo(session_of(context).client().post(f"/v1/devices/{what}", body)["message"])
