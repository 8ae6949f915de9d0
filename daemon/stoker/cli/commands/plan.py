"""`stoker plan`: what would change."""

from __future__ import annotations

import os
from typing import Any

import click

from stoker.cli.session import (
    Session,
    config_options,
    output_option,
    print_json,
    session_of,
    session_options,
)

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
    for start in service["starts"]:
        where = f" on {', '.join(start['devices'])}" if start["devices"] else ""
        why = f" ({start['reason']})" if start["devices"] and start["reason"] else ""
        say(f"    start {start['replica']}{where}{why}")
    for replica in service["stops"]:
        say(f"    stop  {replica}")
    for waiting in service["waits"]:
        say(f"    {waiting['replica']} would wait: {waiting['reason']}", "yellow")
    say()


def _headline(service: dict[str, Any]) -> str:
    running, wanted = service["replicas"]["running"], service["replicas"]["wanted"]
    counts = f"{running} replicas" if running == wanted else f"{running} -> {wanted} replicas"
    low, high = service["bounds"]["min_replicas"], service["bounds"]["max_replicas"]
    words = {
        "add": f"new, {wanted} replicas (bounds {low}..{high})",
        "remove": f"removed, {running} replicas stop",
        "restart": f"new workers, {counts}",
        "scale": f"{counts} (bounds {low}..{high})",
        "in-place": "changes in place, no worker restarts",
    }
    return words[service["change"]]
