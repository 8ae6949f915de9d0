"""`stoker up --role router`: its options, its output, and how `stoker status` shows it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stoker.cli.exits import UsageError
from stoker.cli.launch import ROUTER_OPTIONS, in_background
from stoker.cli.place import Session
from stoker.errors import StokerError

SHORTEST = 16
"""Characters of a token at least."""


def run(session: Session, files: Sequence[str], *, detach: bool, given: Mapping[str, Any]) -> int:
    """Run it here until it is told to end, or begin one in the background."""
    strange = [f"--{name.replace('_', '-')}" for name, value in given.items() if _of_daemon(name, value)]
    if files or strange:
        raise UsageError(f"a router runs no services: leave out {', '.join([*files, *strange])}")
    url = given.get("daemon")
    if not url:
        raise UsageError("--role router wants to know the daemon: --daemon https://HOST:PORT")
    if detach:
        return in_background(session, ["--role=router", *_arguments(given)])
    from stoker.runtime.home import Home, check
    from stoker.runtime.remote_router import RouterOptions, run_router

    home = Home(url=check(url), token=_token(given.get("token_file")), authority=given.get("daemon_ca"))
    return run_router(
        RouterOptions(
            home=home,
            socket=session.socket,
            state_dir=session.state_dir,
            runtime_dir=session.runtime_dir,
            listen=given.get("at") or "127.0.0.1",
            say=_say,
        )
    )


def _of_daemon(name: str, value: Any) -> bool:
    """Whether it was asked for and means nothing here."""
    defaults = {"webhook_level": "warning"}
    return name not in ROUTER_OPTIONS and bool(value) and value != defaults.get(name)


def _arguments(given: Mapping[str, Any]) -> list[str]:
    paths = {"token_file", "daemon_ca"}
    return [
        f"--{name.replace('_', '-')}={os.path.abspath(given[name]) if name in paths else given[name]}"
        for name in ROUTER_OPTIONS
        if given.get(name)
    ]


def _token(file: str | None) -> str:
    """The token, from the file or the environment: never from the command line, which everybody reads."""
    if file is None:
        found, where = os.environ.get("STOKER_TOKEN", "").strip(), "STOKER_TOKEN"
    else:
        where = file
        try:
            found = Path(file).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise StokerError(f"the token cannot be read from {file}: {error}") from error
    if len(found) < SHORTEST:
        raise UsageError(
            f"{where} holds no token of the daemon; `stoker ui --view` on its box shows one that only looks"
        )
    return found


def _say(words: str) -> None:
    stamp = "" if "JOURNAL_STREAM" in os.environ else time.strftime("%H:%M:%S ")
    try:
        sys.stdout.write(f"{stamp}{words}\n")
        sys.stdout.flush()
    except OSError:
        return  # nobody reads any more; it goes on


def show(status: Mapping[str, Any]) -> None:
    """The table of `stoker status`."""
    from stoker.cli import rows
    from stoker.cli.table import Cell, Column, Table, say
    from stoker.cli.table import show as show_table

    daemon = status["daemon"]
    say(f"stoker {daemon['version']}, router of {daemon['of']}, pid {daemon['pid']}", "dim")
    if daemon["away"]:
        since = rows.age(daemon["away_s"])
        say(f"  the daemon is away for {since}: {daemon['away']}; what it told last is served", "yellow")
    for notice in daemon["notices"]:
        say(f"  {notice}", "yellow")
    names = rows.service_names(status)
    columns = (
        Column("SERVICE", shrink=True),
        Column("ADDRESS"),
        Column("LEADS TO"),
        Column("BUSY", right=True),
        Column("QUEUED", right=True),
        Column("WHY", shrink=True),
    )
    found = tuple(
        (
            Cell(names[rows.key_of(one)], "bold"),
            Cell(one["url"], "cyan"),
            Cell(one["home"]),
            Cell(str(one["load"]["in_flight"] or "-")),
            Cell(str(one["load"]["queued"] or "-")),
            Cell(one["reason"], "yellow"),
        )
        for one in status["services"]
    )
    if not found:
        say("no services")
        return
    say()
    show_table(Table(columns, found))
