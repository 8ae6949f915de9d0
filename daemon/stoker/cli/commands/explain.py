"""`stoker explain`: where a value, a target or a placement comes from."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

import click

from stoker.cli.quick import print_json
from stoker.cli.session import complete_names, output_option, session_of, session_options

Line = tuple[str, str]
STORY = 20
"""Events of a replica's story that are told here."""
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
    elif document["kind"] == "path":
        _path(document)
    else:
        from stoker.cli.table import say

        for text, style in told(document):
            say(text, style)


def told(document: dict[str, Any]) -> Iterator[Line]:
    """Why a service or a replica is as it is: (line, style) of each line. Pure."""
    return _service(document) if document["kind"] == "service" else _replica(document)


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
    if "note" in document:
        say(f"{document['note']}", "yellow")
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


def _service(document: dict[str, Any]) -> Iterator[Line]:
    decision, window, rules = document["decision"], document["window"], document["rules"]
    yield (f"{document['deployment']}/{document['name']}: target {document['target']}", "bold")
    if document.get("rejected"):
        yield (f"  update    {document['rejected']['message']}", "yellow")
    formula, *steps = decision["reason"].split("; ")
    recommended = decision.get("facts", {}).get("recommended")
    said = f"{recommended:g} by policy: " if recommended is not None else ""
    yield (f"  decision  {said}{formula}", "")
    for step in steps:
        yield (f"  then      {step}", "")
    if document["target"] != decision["target"]:
        yield (f"  settled   {document['target']} so far; the decision is for {decision['target']}", "yellow")
    bounds, ready = f"{document['min_replicas']}..{document['max_replicas']}", f"{document['ready']} ready"
    yield f"  bounds    {bounds}, {ready}{_starts(document.get('startups_s', ()))}", ""
    for replica in document["replicas"]:
        if replica["phase"] != "ready" and replica["reason"]:
            yield f"  not ready {replica['id']} {replica['phase']}: {replica['reason']}", "yellow"
    if window and window["seconds"]:
        mean = (
            f"{window['in_flight']:.2f} in flight, {window['queued']:.2f} queued, "
            f"{window['rps']:.2f} requests/s, {window['service_time'] * 1000:.0f} ms each"
        )
        yield f"  samples   over {window['seconds']:.0f} s: {mean}; newest {window['age']:.1f} s old", ""
    else:
        yield ("  samples   none yet (no data is not zero load)", "")
    if document.get("router"):
        yield f"  router    {document['router']}", ""
    for policy in rules["policies"] if rules else ():
        yield (f"  policy    {_policy(policy)}", "")
    facts = {name: value for name, value in decision.get("facts", {}).items() if name != "recommended"}
    if facts:
        yield "  numbers   " + ", ".join(f"{name} {value:g}" for name, value in facts.items()), "dim"
    yield from _past(document.get("decisions", []), document.get("history"), document.get("now", 0.0))


def _starts(seconds: Sequence[float]) -> str:
    """What a start costs, as the policy knows it."""
    if not seconds:
        return ""
    most = f", at most {max(seconds):.2g} s" if len(seconds) > 1 else ""
    return f"; a start takes {median(seconds):.2g} s (the last {len(seconds)}{most})"


def _past(decisions: Sequence[dict[str, Any]], history: dict[str, Any] | None, now: float) -> Iterator[Line]:
    """The last decisions, and the load that they answered to as a chart."""
    if history and history["levels"]["t"]:
        from stoker.cli.chart import SPANS, chart

        since = [one["at"] for one in decisions if now - one["at"] <= SPANS[-1]]
        yield "", ""
        for line in chart(history, now, min(since, default=now)):
            yield f"  {line}", "cyan"
    if decisions:
        yield "  decisions", ""
    for one in decisions:
        clock = time.strftime("%H:%M:%S", time.localtime(one["at"]))
        yield f"    {clock}  {one['before']} > {one['target']}  {one['reason']}", ""


def _policy(policy: dict[str, Any]) -> str:
    target = "" if policy["target"] is None else f", target {policy['target']:g}"
    up, down = policy["scale_up_stabilization_window"], policy["scale_down_stabilization_window"]
    return f"{policy['metric']}{target}; up after {up:g} s, down after {down:g} s"


def _replica(document: dict[str, Any]) -> Iterator[Line]:
    from stoker.cli.events_text import event_line
    from stoker.model.quantity import format_duration

    yield (
        f"{document['id']}: {document['phase']}" + (f": {document['reason']}" if document["reason"] else ""),
        "bold",
    )
    yield (f"  service   {document['deployment']}/{document['service']}, revision {document['revision']}", "")
    if document["pid"]:
        yield (f"  worker    pid {document['pid']} at {document['endpoint']}", "")
    yield (f"  since     {format_duration(document['since_s'])}; {document['restarts']} restarts", "")
    if document["last_exit"]:
        yield (f"  last exit {document['last_exit']}", "")
    placement = document["placement"]
    for device in placement["devices"]:
        share = "" if device["share"] >= 1 else f"{device['share']:g} of "
        yield (f"  device    {share}GPU {device['index']} {device['name']} ({device['uuid']})", "")
        if device["health"] != "healthy":
            yield (f"            {device['health']}: {device['health_reason']}", "yellow")
    if placement["reason"]:
        yield (f"  placement {placement['reason']}", "")
    if document.get("last_lines"):
        yield ("  it said last", "")
        yield from ((f"    {line}", "dim") for line in document["last_lines"])
    earlier = len(document["chain"]) - STORY
    yield (
        "  story" + (f", {earlier} events before: stoker story {document['id']}" if earlier > 0 else ""),
        "",
    )
    for event in document["chain"][-STORY:]:
        yield (f"    {event_line(event)}", "")
