"""`stoker story`: the chain of events and actions behind a replica."""

from __future__ import annotations

import click

from stoker.cli.client import story_path
from stoker.cli.quick import print_json
from stoker.cli.session import complete_names, output_option, session_of, session_options


@click.command()
@click.argument("replica", shell_complete=complete_names(replicas=True, services=False))
@output_option
@session_options
@click.pass_context
def command(context: click.Context, replica: str, output: str) -> None:
    """Tell what happened to REPLICA and what caused it, oldest first; also of one that is gone."""
    document = session_of(context).client().get(story_path(replica))
    if output == "json":
        print_json(document)
        return
    from stoker.cli.events_text import story_lines
    from stoker.cli.table import say

    for line, style in story_lines(document["events"]):
        say(line, style)
