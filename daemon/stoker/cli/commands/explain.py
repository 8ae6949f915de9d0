"""`stoker explain`: where a value, a target or a placement comes from."""

from __future__ import annotations

from typing import Any

import click

from stoker.cli.session import complete_names, output_option, print_json, session_of, session_options

LONGEST = 48
"""Columns a value may take in the table of layers."""


@click.command()
@click.argument("what", metavar="PATH|SERVICE|REPLICA", shell_complete=complete_names(replicas=True))
@output_option
@session_options
@click.pass_context
def command(context: click.Context, what: str, output: str) -> None:
    """Say where a thing comes from.

    A config PATH (services.infer.scaling.max_replicas): its value, the layer that wins and those under it.
    A SERVICE: the last scaling decision and its samples. A REPLICA: its placement, its phase, its story.
    """
    document = session_of(context).client().get("/v1/explain", of=what)
    if output == "json":
        print_json(document)
    else:
        {"path": _path, "service": _service, "replica": _replica}[document["kind"]](document)


def _path(document: dict[str, Any]) -> None:
    import json

    from stoker.cli.table import Cell, Column, Table, say, shorten, show

    def text(value: Any) -> str:
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

    value = document["value"]
    whole = json.dumps(value, indent=2, ensure_ascii=False) if isinstance(value, dict) else text(value)
    if "asked" in document:
        say(f"{document['asked']}: a key of BentoML's, here {document['path']}", "dim")
    say(f"{document['path']} = {whole}", "bold")
    rows = tuple(
        (
            Cell("=>" if layer["wins"] else "", "green"),
            Cell(layer["layer"], "bold" if layer["wins"] else ""),
            Cell(shorten(text(layer["value"]), LONGEST)),
            Cell(layer["source"], "dim"),
        )
        for layer in document["layers"]
    )
    show(
        Table((Column(""), Column("LAYER"), Column("VALUE", shrink=True), Column("FROM", shrink=True)), rows)
    )


def _service(document: dict[str, Any]) -> None:
    from stoker.cli.table import say

    decision, window, rules = document["decision"], document["window"], document["rules"]
    say(f"{document['deployment']}/{document['name']}: target {document['target']}", "bold")
    if document.get("rejected"):
        say(f"  update    {document['rejected']['message']}", "yellow")
    say(f"  decision  {decision['target']}: {decision['reason']}")
    if document["target"] != decision["target"]:
        say(f"  settled   {document['target']}, after bounds, stabilization and the box's budget")
    say(f"  bounds    {document['min_replicas']}..{document['max_replicas']}, {document['ready']} ready")
    if window and window["seconds"]:
        say(
            f"  samples   over {window['seconds']:.0f} s: {window['in_flight']:.2f} in flight, "
            f"{window['queued']:.2f} queued, {window['rps']:.2f} requests/s, "
            f"{window['service_time'] * 1000:.0f} ms each; newest {window['age']:.1f} s old"
        )
    else:
        say("  samples   none yet (no data is not zero load)")
    for policy in rules["policies"] if rules else ():
        say(f"  policy    {_policy(policy)}")
    for name, value in decision.get("facts", {}).items():
        say(f"  {name:<20} {value:g}", "dim")


def _policy(policy: dict[str, Any]) -> str:
    target = "" if policy["target"] is None else f", target {policy['target']:g}"
    up, down = policy["scale_up_stabilization_window"], policy["scale_down_stabilization_window"]
    return f"{policy['metric']}{target}; up after {up:g} s, down after {down:g} s"


def _replica(document: dict[str, Any]) -> None:
    from stoker.cli.events_text import event_line
    from stoker.cli.table import say
    from stoker.model.quantity import format_duration

    say(
        f"{document['id']}: {document['phase']}" + (f": {document['reason']}" if document["reason"] else ""),
        "bold",
    )
    say(f"  service   {document['deployment']}/{document['service']}, revision {document['revision']}")
    if document["pid"]:
        say(f"  worker    pid {document['pid']} at {document['endpoint']}")
    say(f"  since     {format_duration(document['since_s'])}; {document['restarts']} restarts")
    if document["last_exit"]:
        say(f"  last exit {document['last_exit']}")
    placement = document["placement"]
    for device in placement["devices"]:
        share = "" if device["share"] >= 1 else f"{device['share']:g} of "
        say(f"  device    {share}GPU {device['index']} {device['name']} ({device['uuid']})")
    if placement["reason"]:
        say(f"  placement {placement['reason']}")
    say("  story")
    for event in document["chain"]:
        say(f"    {event_line(event)}")
