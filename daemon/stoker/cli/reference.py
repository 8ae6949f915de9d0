"""The page of the commands, made from what they say of themselves: `python -m stoker.cli.reference`."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator

import click

from stoker.cli import exits
from stoker.cli.catalogue import COMMANDS
from stoker.cli.group import cli

SHARED = ("socket", "state_dir")
HEAD = f"""# The commands

Made from the program by `python -m stoker.cli.reference`; do not edit. The same words on the spot:
`stoker COMMAND --help`.

Every command takes `--socket` and `--state-dir`, before or after its name: where the daemon is that is meant.
Without them the daemon is found by `STOKER_SOCKET`, then at `$XDG_RUNTIME_DIR/stoker/stoker.sock`, then, for
root, at `/run/stoker/stoker.sock`; the state by `STOKER_STATE_DIR`, then `$XDG_STATE_HOME/stoker` or
`/var/lib/stoker`. `-o json` prints one JSON document and nothing else. Errors go to stderr as one or two
plain lines.

Exit codes: {exits.OK} ok, {exits.FAILED} failed, {exits.USAGE} usage or bad configuration,
{exits.NO_DAEMON} no daemon answers.
"""


def markdown() -> str:
    """The whole page."""
    with click.Context(cli, info_name="stoker") as root:
        sections = [part for name in COMMANDS for part in _sections(name, cli.get_command(root, name), root)]
    return HEAD + "".join(sections)


def _sections(name: str, command: click.Command | None, parent: click.Context) -> Iterator[str]:
    assert command is not None
    with click.Context(command, info_name=name, parent=parent) as context:
        usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
        words = re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.cleandoc(command.help or ""))
        title = context.command_path
        yield f"\n## {title}\n\n    {usage}\n\n{words}\n"
        rows = [row for option in command.get_params(context) if (row := _row(option, context))]
        if rows:
            yield "\n| option | |\n|---|---|\n" + "".join(rows)
        if isinstance(command, click.Group):
            for inner in command.list_commands(context):
                yield from _sections(inner, command.get_command(context, inner), context)


def _row(option: click.Parameter, context: click.Context) -> str | None:
    if (
        not isinstance(option, click.Option)
        or option.name in SHARED
        or "--help" in option.opts
        or option.hidden
    ):
        return None
    names, words = option.get_help_record(context) or ("", "")
    if option.envvar:
        words += f" Also: `{option.envvar}`."
    names = ", ".join(f"`{part.strip()}`" for part in re.split(r", (?=-)", names))
    return f"| {names.replace('|', '&#124;')} | {words.replace('|', '&#124;')} |\n"


if __name__ == "__main__":
    sys.stdout.write(markdown())
