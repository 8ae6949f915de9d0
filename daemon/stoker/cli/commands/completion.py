"""`stoker completion`: the script a shell needs."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print the completion script for a shell.

    bash: eval "$(stoker completion bash)"; fish: stoker completion fish | source
    """
    from stoker.cli.quick import COMPLETE

    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(context.find_root().command, {}, "stoker", COMPLETE).source())
