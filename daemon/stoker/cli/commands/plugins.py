"""`stoker plugins`: what was found behind the plugin door."""

from __future__ import annotations

from typing import Any

import click

from stoker.cli.exits import NoDaemonError
from stoker.cli.quick import print_json
from stoker.cli.session import output_option, session_of, session_options


@click.command()
@output_option
@session_options
@click.pass_context
def command(context: click.Context, output: str) -> None:
    """Show the loaded plugins and the parts they bring; without a daemon, what one would load."""
    try:
        document = session_of(context).client().get("/v1/plugins")
    except NoDaemonError:
        document = _installed()
    if output == "json":
        print_json(document)
        return
    from stoker.cli.table import Cell, Column, Table, show

    columns = (Column("PLUGIN"), Column("VERSION"), Column("STATE"), Column("PARTS", shrink=True))
    rows = tuple(
        (
            Cell(plugin["name"], "bold"),
            Cell(f"{plugin['distribution']} {plugin['version']}".strip(), "dim"),
            Cell(plugin["state"], "green" if plugin["state"] == "loaded" else "red"),
            Cell(", ".join(plugin["parts"]) or plugin["reason"]),
        )
        for plugin in document["plugins"]
    )
    show(Table(columns, rows))


def _installed() -> dict[str, Any]:
    from stoker.api.documents import plugins_document
    from stoker.plugin.manager import PluginRegistry

    registry = PluginRegistry()
    registry.load()
    return plugins_document(registry.records)
