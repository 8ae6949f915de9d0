"""`stoker plan`: what would change."""

from __future__ import annotations

import os
from typing import Any

import click

from stoker.cli.place import Session
from stoker.cli.quick import print_json
from stoker.cli.session import config_options, output_option, session_of, session_options

CHANGES = 2
SIGNS = {"add": ("+", "green"), "remove": ("-", "red"), "restart": ("~", "yellow"), "scale": ("^", "cyan"),
         "in-place": ("=", "blue")}  # fmt: skip


@click.command()
@config_options
@output_option
@session_options
@click.pass_context
def command(
    context: click.Context, files: tuple[str, ...], sets: tuple[str, ...], profile: str | None, output: str
) -> int:
    """Show what the FILEs would change against the running daemon, or against nothing where none runs.

    Exit code 0: no change; 2: changes; 1: error.
    """
    from stoker.cli.exits import FAILED, OK, tell
    from stoker.errors import StokerError

    try:
        document = _document(session_of(context), files, sets, profile)
    except StokerError as error:
        tell(error)
        return FAILED
    if output == "json":
        print_json(document)
    else:
        _print(document)
    return CHANGES if document["changes"] else OK


def _document(
    session: Session, files: tuple[str, ...], sets: tuple[str, ...], profile: str | None
) -> dict[str, Any]:
    from stoker.cli.exits import NoDaemonError
    from stoker.cli.launch import default_files

    client = session.client()
    try:
        if not client.alive():
            raise NoDaemonError(client.socket)
        if not (files or sets or profile):
            return client.get("/v1/plan")
        chosen = [os.path.abspath(path) for path in default_files(files)]
        return client.post("/v1/plan", {"files": chosen, "profile": profile, "sets": list(sets)})
    except NoDaemonError:
        from stoker.cli import loading

        effective = loading.load(default_files(files), profile=profile, sets=sets)
        return loading.plan_on_empty_box(effective, session.state_dir)


def _print(document: dict[str, Any]) -> None:
    from stoker.cli.table import say

    if not document["changes"]:
        say("no changes")
        return
    for service in document["services"]:
        _print_service(service)
    say(f"plan: {document['summary']}", "bold")


def _print_service(service: dict[str, Any]) -> None:
    from stoker.cli.table import say

    sign, style = SIGNS[service["change"]]
    say(f"{sign} {service['deployment']}/{service['name']}: {_headline(service)}", style)
    if service["restart_causes"]:
        say(f"    restarted because of {', '.join(service['restart_causes'])} ({service['strategy']})")
    in_place = [key for key in service["keys"] if key not in service["restart_causes"]]
    if in_place:
        say(f"    {'also ' if service['restart_causes'] else ''}changes {', '.join(in_place)}")
    before, after = (_devices(service["devices"][when]) for when in ("before", "after"))
    if before and before != after:
        say(f"    devices {before} -> {after or 'none'}")
    for start in service["starts"]:
        say(f"    start {start['replica']}{_where(start)}")
    for replica in service["stops"]:
        say(f"    stop  {replica}")
    for waiting in service["waits"]:
        say(f"    {waiting['replica']} would wait: {waiting['reason']}", "yellow")
    say()


def _devices(devices: list[dict[str, Any]]) -> str:
    """`GPU 0, GPU 3`; the UUID of one that is gone from the box."""
    return ", ".join(f"GPU {each['index']}" if each["index"] >= 0 else each["uuid"] for each in devices)


def _where(start: dict[str, Any]) -> str:
    devices, reason = start["devices"], start["reason"]
    if not devices:
        return ""
    # The placement's reason names the devices itself; only if it does not they are listed.
    return f" on {reason}" if devices[0] in reason else f" on {', '.join(devices)}: {reason}"


def _headline(service: dict[str, Any]) -> str:
    running, wanted = service["replicas"]["running"], service["replicas"]["wanted"]
    counts = _replicas(running) if running == wanted else f"{running} -> {_replicas(wanted)}"
    low, high = service["bounds"]["min_replicas"], service["bounds"]["max_replicas"]
    words = {
        "add": f"new, {_replicas(wanted)} (bounds {low}..{high})",
        "remove": f"removed, {_replicas(running)} to stop",
        "restart": f"new workers, {counts}",
        "scale": f"{counts} (bounds {low}..{high})",
        "in-place": "changes in place, no worker restarts",
    }
    return words[service["change"]]


def _replicas(count: int) -> str:
    return "1 replica" if count == 1 else f"{count} replicas"
