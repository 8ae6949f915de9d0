"""`stoker events`: what the daemon saw and did."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import click

from stoker.cli.client import Client
from stoker.cli.quick import print_json
from stoker.cli.session import output_option, session_of, session_options

FIRST = 10
"""Events shown before the new ones when following."""


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on with new events as they happen.")
@click.option("-n", "--tail", type=click.IntRange(min=0), metavar="N", help="Only the last N kept events.")
@output_option
@session_options
@click.pass_context
def command(context: click.Context, follow: bool, tail: int | None, output: str) -> None:
    """Show the daemon's events, oldest first. With -f and -o json: one JSON document per line."""
    client = session_of(context).client()
    if follow:
        for event in news(followed(client, FIRST if tail is None else tail), output):
            sys.stdout.write(_line(event, output) + "\n")
            sys.stdout.flush()
        return
    document = client.get("/v1/events", follow="false", tail=tail)
    if output == "json":
        print_json(document)
    else:
        for event in news(document["events"], output):
            sys.stdout.write(_line(event, output) + "\n")


def followed(client: Client, tail: int) -> Iterator[dict[str, Any]]:
    """Events out of the daemon's server-sent events."""
    for line in client.lines("/v1/events", tail=tail):
        if line.startswith("data: "):
            yield json.loads(line[len("data: ") :])


def news(events: Iterable[dict[str, Any]], output: str) -> Iterator[dict[str, Any]]:
    """The events; for people without those that say of the devices what was said of them last."""
    said = ""
    for event in events:
        if event["type"] == "InventoryChanged" and output != "json":
            before, said = said, event["message"]
            if before == said:
                continue
        yield event


def _line(event: dict[str, Any], output: str) -> str:
    if output == "json":
        return json.dumps(event, ensure_ascii=False)
    from stoker.cli.events_text import STYLES, event_line
    from stoker.cli.table import coloured, paint

    return paint(event_line(event), STYLES.get(event["severity"], ""), colour=coloured())
