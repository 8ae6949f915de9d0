"""`stoker config`: the effective file."""

from __future__ import annotations

from typing import Any

import click

from stoker.cli.place import Session
from stoker.cli.quick import print_json
from stoker.cli.session import config_options, output_option, session_of, session_options


@click.command()
@config_options
@click.option("--sources", is_flag=True, help="Say of each value which layer gives it, and where.")
@output_option
@session_options
@click.pass_context
def command(
    context: click.Context,
    files: tuple[str, ...],
    sets: tuple[str, ...],
    profile: str | None,
    sources: bool,
    output: str,
) -> None:
    """Print the configuration in force, or the one that the FILEs make: all layers as one file.

    What is built in and said nowhere is left out. Secrets are named, never shown.
    """
    document = effective_of(session_of(context), files, sets, profile)
    if output == "json":
        hidden = {"instance_types"} if sources else {"instance_types", "sources"}
        shown = [
            {key: value for key, value in one.items() if key not in hidden} for one in document["deployments"]
        ]
        print_json({"deployments": shown})
        return
    for index, one in enumerate(document["deployments"]):
        click.echo("---" if index else "", nl=bool(index))
        _print(one, sources=sources)


def effective_of(
    session: Session, files: tuple[str, ...], sets: tuple[str, ...], profile: str | None
) -> dict[str, Any]:
    """The daemon's configuration; that of the files where any are named or no daemon runs."""
    from stoker.cli.exits import NoDaemonError

    if not (files or sets or profile):
        try:
            return session.client().get("/v1/config")
        except NoDaemonError:
            pass  # the file beside us is meant, then
    from stoker.cli import launch, loading
    from stoker.config.effective import effective_document

    effective = loading.load(launch.default_files(files), profile=profile, sets=sets, to_run=False)
    return effective_document(effective)


def _words(layer: str, source: str) -> str:
    return source if layer in source or layer == "built-in default" else f"{layer} {source}"


def _print(one: dict[str, Any], *, sources: bool) -> None:
    from stoker.cli.yaml_out import yaml_lines
    from stoker.config.assign import split_path

    click.echo(f"# {one['name']}: {one['file']}")
    said = one["sources"] if sources else {}
    notes = {split_path(path): _words(**each) for path, each in said.items()}
    for line in yaml_lines(one["config"], notes):
        click.echo(line)
