"""`stoker daemon`: the same for systemd."""

from __future__ import annotations

from typing import Any

import click

from stoker.cli.session import listen_option, session_of, session_options, sink_options


@click.command()
@click.option(
    "--config", default="/etc/stoker", show_default=True, type=click.Path(), help="Directory of the files."
)
@listen_option
@sink_options
@session_options
@click.pass_context
def command(context: click.Context, /, config: str, **more: Any) -> int:
    """Run the daemon for systemd: no terminal, sd_notify, watchdog.

    SIGTERM ends the daemon alone: workers and router go on, and the next daemon takes them over.
    """
    import os

    from stoker.cli import launch
    from stoker.cli.exits import UsageError

    with launch.loading():
        from stoker.cli.observers import observer_for_service
        from stoker.runtime.daemon import run_daemon
    if not os.path.exists(config):
        raise UsageError(f"there is no {config}; make it and put deployment files there, or name another")
    options = launch.options_for(
        session_of(context),
        (config,),
        **launch.doors_for(more),
        systemd=True,
        stop_on_exit=False,
        observers=(observer_for_service(), *launch.sinks_for(more)),
    )
    return run_daemon(options)
