"""`stoker up`: a daemon in the foreground."""

from __future__ import annotations

from typing import Any

import click

from stoker.cli.session import (
    config_options,
    listen_option,
    role_options,
    session_of,
    session_options,
    sink_options,
)


@click.command()
@config_options
@listen_option
@sink_options
@role_options
@click.option("-d", "--detach", is_flag=True, help="Go on in the background once all is in force.")
@session_options
@click.pass_context
def command(
    context: click.Context,
    /,
    files: tuple[str, ...],
    sets: tuple[str, ...],
    profile: str | None,
    detach: bool,
    role: str,
    **more: Any,
) -> int:
    """Run the services of ./stoker.yaml or of the FILEs until Ctrl-C, which drains and stops them all.

    A second Ctrl-C makes it short. In a terminal the state is shown live, elsewhere as plain lines.

    With --role router it runs no service: it opens here the addresses of the services that the --daemon on
    another box runs, and leads requests there.
    """
    import os

    from stoker.cli import launch

    session = session_of(context)
    if role == "router":
        from stoker.cli import router_role

        return router_role.run(session, files, detach=detach, given=more)
    launch.refuse_router_options(more)
    chosen = launch.default_files(files)
    if detach:
        arguments = [os.path.abspath(path) for path in chosen]
        arguments += [f"--set={text}" for text in sets]
        arguments += ["--profile", profile] if profile else []
        arguments += launch.arguments_of(more)
        return launch.in_background(session, arguments)
    with launch.loading():
        from stoker.cli.observers import observers_for_terminal
        from stoker.runtime.daemon import run_daemon

        observers = (*observers_for_terminal(), *launch.sinks_for(more))
    doors = launch.doors_for(more)
    options = launch.options_for(session, chosen, profile=profile, sets=sets, observers=observers, **doors)
    return run_daemon(options)
