"""What every command shares: where the daemon is, how the answer is wanted. Options work before and after
the command's name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from stoker.cli.catalogue import REPLICAS, SERVICES
from stoker.cli.place import Session
from stoker.cli.quick import daemon_names

F = TypeVar("F", bound=Callable[..., Any])


def session_of(context: click.Context) -> Session:
    """The one session of this invocation."""
    return context.find_root().ensure_object(Session)


def _keep_socket(context: click.Context, _: click.Parameter, value: str | None) -> None:
    if value:
        session_of(context).socket_option = value


def _keep_state(context: click.Context, _: click.Parameter, value: str | None) -> None:
    if value:
        session_of(context).state_option = value


def session_options(command: F) -> F:
    """--socket and --state-dir, for the group and for each command."""
    path = click.Path(dir_okay=True)
    for option in (
        click.option(
            "--state-dir",
            type=path,
            expose_value=False,
            callback=_keep_state,
            help="The state directory.",
        ),
        click.option(
            "--socket", type=path, expose_value=False, callback=_keep_socket, help="The daemon's unix socket."
        ),
    ):
        command = option(command)
    return command


def output_option(command: F) -> F:
    """-o json."""
    option = click.option(
        "-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True,
        help="json prints one JSON document and nothing else.",
    )  # fmt: skip
    return option(command)


def config_options(command: F) -> F:
    """FILE..., --set and --profile."""
    for option in (
        click.option("--profile", metavar="P", help="Lay the profile file of that name over the file."),
        click.option("--set", "sets", multiple=True, metavar="K=V", help="Override a value by its path."),
        click.argument("files", nargs=-1, metavar="[FILE]...", type=click.Path()),
    ):
        command = option(command)
    return command


def listen_option(command: F) -> F:
    """--listen HOST:PORT, and who may come in by which door; each may stand in the environment too."""
    for option in (
        click.option(
            "--operators", metavar="GROUP", envvar="STOKER_OPERATORS",
            help="Only members of GROUP operate over the socket; the others of the socket's group look.",
        ),
        click.option(
            "--tls-key", type=click.Path(), envvar="STOKER_TLS_KEY", help="The certificate's key, PEM.",
        ),
        click.option(
            "--tls-cert", type=click.Path(), envvar="STOKER_TLS_CERT",
            help="Speak TLS on TCP with this certificate chain, PEM; read again when it changes.",
        ),
        click.option(
            "--listen", metavar="HOST:PORT", envvar="STOKER_LISTEN",
            help="Serve the API and the page on TCP too, to those who hold a token (`stoker ui` shows it).",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


def role_options(command: F) -> F:
    """What a box has a `stoker up` for."""
    for option in (
        click.option(
            "--at", metavar="HOST", envvar="STOKER_ROUTER_AT",
            help="Of the role router: open the addresses at HOST.  [default: 127.0.0.1]",
        ),
        click.option(
            "--daemon-ca", type=click.Path(), envvar="STOKER_DAEMON_CA",
            help="Of the role router: trust these certificates, PEM, in place of the system's.",
        ),
        click.option(
            "--token-file", type=click.Path(), envvar="STOKER_TOKEN_FILE",
            help="Of the role router: a file with the daemon's token, in place of STOKER_TOKEN.",
        ),
        click.option(
            "--daemon", metavar="URL", envvar="STOKER_DAEMON",
            help="Of the role router: where the daemon's API listens on TCP.",
        ),
        click.option(
            "--role", type=click.Choice(["all", "router"]), default="all", show_default=True,
            help="router: only a router here, for the services of a daemon on another box.",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


def sink_options(command: F) -> F:
    """Where events go besides the screen; each may stand in the environment too."""
    for option in (
        click.option(
            "--webhook-level", type=click.Choice(["info", "warning", "error"]), default="warning",
            show_default=True, envvar="STOKER_WEBHOOK_LEVEL", help="Send events of that severity and above.",
        ),
        click.option(
            "--webhook-secret-file", type=click.Path(), envvar="STOKER_WEBHOOK_SECRET_FILE",
            help="Sign them with the secret in this file.",
        ),
        click.option(
            "--webhook", metavar="URL", envvar="STOKER_WEBHOOK", help="POST events there, until they arrive.",
        ),
        click.option(
            "--spans", is_flag=True, envvar="STOKER_SPANS",
            help="Send traces of requests and of what the daemon does to OpenTelemetry (OTEL_... variables).",
        ),
        click.option(
            "--event-log", type=click.Path(), envvar="STOKER_EVENT_LOG", help="Append every event as JSON.",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


def complete_names(
    *, replicas: bool = False, services: bool = True
) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    """A completion that asks the daemon for its services and replicas; silent where none answers."""

    kinds = frozenset({*([SERVICES] if services else []), *([REPLICAS] if replicas else [])})

    def complete(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(name) for name in daemon_names(session_of(context), kinds, incomplete)]

    return complete


def service_argument(*, required: bool = True, replicas: bool = False) -> Callable[[F], F]:
    """SERVICE, completed by asking the daemon."""
    return click.argument(
        "service",
        required=required,
        metavar="[SERVICE]" if not required else "SERVICE",
        shell_complete=complete_names(replicas=replicas),
    )
