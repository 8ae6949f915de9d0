"""The entry point: finds the command's module, runs it, turns every error into a line and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

import click
from click.shell_completion import shell_complete

from stoker import __version__
from stoker.cli import exits
from stoker.cli.session import session_options
from stoker.errors import StokerError

COMMANDS = (
    "init", "up", "daemon", "check", "plan", "status", "top", "ui", "explain", "config", "story", "scale",
    "set", "unset", "restart", "stop", "start", "down", "logs", "events", "gpus", "instance-types",
    "simulate", "record", "schema", "doctor", "plugins", "reload", "reexec", "systemd", "completion",
)  # fmt: skip
"""In the order of help: each is `command` in the module of its name under `stoker.cli.commands`."""


COMPLETE = "_STOKER_COMPLETE"
"""The variable by which a shell's completion script asks."""


class LazyGroup(click.Group):
    """Imports a command's module only when it is called or its help is wanted."""

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


@click.group(cls=LazyGroup, no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="stoker %(version)s")
@session_options
def cli() -> None:
    """Runs model services as scaled, pinned, isolated worker pools on a GPU box you own."""


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code. Never shows a traceback unless STOKER_DEBUG is set."""
    try:
        code = _run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read us has gone; nothing is left to flush into at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exits.PIPE_CLOSED
    return code


def _run(args: Sequence[str] | None) -> int:
    try:
        if instruction := os.environ.get(COMPLETE):
            return shell_complete(cli, {}, "stoker", COMPLETE, instruction)
        # Not cli.main(): it has its own ideas of what a closed pipe and Ctrl-C mean.
        with cli.make_context("stoker", list(sys.argv[1:] if args is None else args)) as context:
            result = cli.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code
    except (click.Abort, KeyboardInterrupt):
        return exits.INTERRUPTED
    except BrokenPipeError:
        raise
    except Exception as error:
        if os.environ.get("STOKER_DEBUG") and not isinstance(error, click.ClickException):
            raise
        return _tell(error)
    return result if isinstance(result, int) else exits.OK


def _tell(error: Exception) -> int:
    """Say the error on stderr; returns its exit code."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        sys.stderr.write(error.format_message() + "\n")
        return exits.USAGE
    if isinstance(error, click.UsageError):
        where = error.ctx.command_path if error.ctx else "stoker"
        sys.stderr.write(f"stoker: {error.format_message()}\nstoker: see {where} --help\n")
        return exits.USAGE
    if isinstance(error, click.ClickException):
        sys.stderr.write(f"stoker: {error.format_message()}\n")
        return exits.FAILED
    if isinstance(error, StokerError):
        exits.tell(error)
        return exits.exit_code(error)
    sys.stderr.write(f"stoker: internal error: {type(error).__name__}: {error}\n")
    sys.stderr.write("stoker: set STOKER_DEBUG=1 to see where, and please report it\n")
    return exits.FAILED
