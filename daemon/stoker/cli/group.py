"""All commands as click knows them: each one's module is found and loaded when it is called."""

from __future__ import annotations

import os
import sys
from importlib import import_module

import click
from click.shell_completion import CompletionItem, shell_complete

from stoker import __version__
from stoker.cli import exits
from stoker.cli.catalogue import COMMANDS, SECTIONS
from stoker.cli.quick import COMPLETE
from stoker.cli.session import session_options


class LazyGroup(click.Group):
    """Imports a command's module only when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands, in the order of help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name."""
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"stoker.cli.commands.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        command.name = cmd_name
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands by what one wants of them."""
        longest = max(map(len, COMMANDS))
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(longest), words) for name, words in commands.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The commands that begin so, and the options."""
        return [
            *(
                CompletionItem(name, help=words)
                for name, words in COMMANDS.items()
                if name.startswith(incomplete)
            ),
            *click.Command.shell_complete(self, ctx, incomplete),
        ]


@click.group(cls=LazyGroup, no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="stoker %(version)s")
@session_options
def cli() -> None:
    """Runs model services as scaled, pinned, isolated worker pools on a GPU box you own."""


def run(args: list[str]) -> int:
    """Run the command line or answer the shell's completion; returns the exit code. Raises StokerError and
    what is a bug; what was typed wrongly is told here."""
    try:
        if instruction := os.environ.get(COMPLETE):
            return shell_complete(cli, {}, "stoker", COMPLETE, instruction)
        # Not cli.main(): it has its own ideas of what a closed pipe and Ctrl-C mean.
        with cli.make_context("stoker", args) as context:
            result = cli.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.Abort:
        return exits.INTERRUPTED
    except click.ClickException as error:
        return _tell(error)
    return result if isinstance(result, int) else exits.OK


def _tell(error: click.ClickException) -> int:
    """Say on stderr what is wrong with the line; returns the exit code."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        sys.stderr.write(error.format_message() + "\n")
        return exits.USAGE
    if isinstance(error, click.UsageError):
        where = error.ctx.command_path if error.ctx else "stoker"
        sys.stderr.write(f"stoker: {error.format_message()}\nstoker: see {where} --help\n")
        return exits.USAGE
    sys.stderr.write(f"stoker: {error.format_message()}\n")
    return exits.FAILED
