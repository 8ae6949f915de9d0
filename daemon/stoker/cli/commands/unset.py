"""`stoker unset`: live overrides off."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

from stoker.cli.session import session_of, session_options
from stoker.errors import StokerError


def _overrides(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    try:
        status = session_of(context).client(timeout=0.5).get("/v1/status")
    except StokerError:
        return []
    known = status["daemon"]["config"].get("overrides", {})
    return [CompletionItem(path) for path in known if path.startswith(incomplete)]


@click.command()
@click.argument("paths", metavar="K...", nargs=-1, required=True, shell_complete=_overrides)
@session_options
@click.pass_context
def command(context: click.Context, paths: tuple[str, ...]) -> None:
    """Remove live overrides, so that the layers under them count again.

    A K takes all below it along: services.infer.scaling undoes `stoker scale infer`.
    """
    click.echo(session_of(context).client().post("/v1/unset", {"paths": list(paths)})["message"])
