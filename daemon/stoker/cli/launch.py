"""Starting a daemon: here in the foreground, or in the background and seen to be up."""

from __future__ import annotations

import gc
import grp
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from stoker.cli.exits import FAILED, OK, UsageError
from stoker.cli.place import Session
from stoker.errors import StokerError

if TYPE_CHECKING:
    from stoker.runtime.options import DaemonOptions, Observer

DEFAULT_FILES = ("stoker.yaml", "stoker.yml")
ROUTER_OPTIONS = ("daemon", "token_file", "daemon_ca", "at")
PATIENCE = 60.0
"""Seconds a daemon in the background gets to put its configuration in force."""
ADDRESSES_PATIENCE = 4.0
"""Seconds after that in which its services' addresses should answer."""


@contextmanager
def loading() -> Iterator[None]:
    """While a daemon is loaded nothing is looked through for garbage, nor is what was loaded while it begins:
    it stays, and each look costs a part of the start."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def default_files(files: Sequence[str]) -> tuple[str, ...]:
    """The named files, or `./stoker.yaml`. Raises UsageError where there is none."""
    if files:
        return tuple(files)
    for name in DEFAULT_FILES:
        if os.path.exists(name):
            return (name,)
    raise UsageError(f"there is no stoker.yaml in {os.getcwd()}; name a file, or go where one is")


def options_for(
    session: Session,
    files: Sequence[str],
    *,
    profile: str | None = None,
    sets: Sequence[str] = (),
    **more: Any,
) -> DaemonOptions:
    """What a daemon is started with, all paths absolute."""
    from stoker.runtime.options import DaemonOptions

    return DaemonOptions(
        files=tuple(os.path.abspath(path) for path in files),
        socket=session.socket,
        state_dir=session.state_dir,
        runtime_dir=session.runtime_dir,
        profile=profile,
        sets=tuple(sets),
        in_journal=_in_journal(),
        **more,
    )


def as_owner(session: Session, *arguments: str) -> None:
    """Where root acts for the account whose state it is: become that account and begin anew with these
    arguments, so that what is written stays its own. Raises StokerError where it cannot run this program."""
    owner = os.stat(session.state_dir)
    if os.geteuid() != 0 or owner.st_uid == 0:
        return
    places = ("--socket", session.socket, "--state-dir", session.state_dir)
    os.setgroups([])
    os.setgid(owner.st_gid)
    os.setuid(owner.st_uid)
    try:
        # Begun anew, because the kernel hides what a process has from itself after such a change.
        os.execv(sys.executable, [sys.executable, "-P", "-m", "stoker.cli", *arguments, *places])
    except OSError as error:
        raise StokerError(
            f"user {owner.st_uid}, whose state this is, cannot run {sys.executable}: {error}"
        ) from error


def _in_journal() -> bool:
    if "JOURNAL_STREAM" not in os.environ:
        return False
    from stoker.cli.journald import is_our_output

    return is_our_output(os.environ, 1)


def doors_for(given: Mapping[str, Any]) -> dict[str, Any]:
    """What `session.listen_option` means to a daemon. Raises UsageError."""
    chain, key, group = given.get("tls_cert"), given.get("tls_key"), given.get("operators")
    if bool(chain) != bool(key):
        raise UsageError("--tls-cert and --tls-key go together: name the certificate chain and its key")
    return {
        "listen": given.get("listen"),
        "tls": (os.path.abspath(chain), os.path.abspath(key)) if chain and key else None,
        "operators": _group(group) if group else None,
    }


def refuse_router_options(given: dict[str, Any]) -> None:
    """Take those of the role router out, which mean nothing to a daemon. Raises UsageError where one was
    given on the command line."""
    for name in ROUTER_OPTIONS:
        value, option = given.pop(name, None), f"--{name.replace('_', '-')}"
        if value and any(word.split("=")[0] == option for word in sys.argv[1:]):
            raise UsageError(f"{option} belongs to a router without a daemon; add --role router")


def _group(name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise UsageError(f"--operators {name!r}: there is no group of that name on this box") from None


def sinks_for(given: Mapping[str, Any]) -> tuple[Observer, ...]:
    """Observers for the options of `session.sink_options`. Raises StokerError for a bad URL or secret."""
    found: list[Observer] = []
    if path := given.get("event_log"):
        from stoker.cli.sinks.event_log import event_log

        found.append(event_log(os.path.abspath(path)))
    if url := given.get("webhook"):
        from stoker.cli.sinks.webhook import Target, secret_of, webhook

        if not url.startswith(("http://", "https://")):
            raise UsageError(f"--webhook {url!r} is no http:// or https:// address")
        secret = None
        if file := given.get("webhook_secret_file"):
            try:
                secret = secret_of(Path(file).read_text())
            except (OSError, ValueError) as error:
                raise StokerError(f"the webhook's secret cannot be read from {file}: {error}") from error
        found.append(webhook(Target(url=url, least=given.get("webhook_level") or "warning", secret=secret)))
    if given.get("spans"):
        from stoker.cli.sinks.spans import spans

        found.append(spans())
    return tuple(found)


def arguments_of(given: Mapping[str, Any]) -> list[str]:
    """The options of sinks and doors for another process, paths absolute."""
    paths = {"event_log", "webhook_secret_file", "tls_cert", "tls_key"}
    found = []
    for name, value in given.items():
        if value:
            text = os.path.abspath(value) if name in paths else value
            found.append(f"--{name.replace('_', '-')}" + ("" if value is True else f"={text}"))
    return found


def in_background(session: Session, arguments: Sequence[str]) -> int:
    """Start `stoker up ARGUMENTS` in a session of its own and wait until its configuration is in force."""
    log = _log_file(session)
    command = [
        sys.executable,
        "-P",
        "-m",
        "stoker.cli",
        "up",
        *arguments,
    ]  # a file here may be called queue.py
    command += ["--socket", session.socket, "--state-dir", session.state_dir]
    with log.open("ab") as output:
        start = output.tell()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None:
        status = _status(session)
        if status is not None and status["daemon"]["pid"] == process.pid and _in_force(status):
            _await_addresses(status)
            _report(session, status, log)
            sys.stdout.flush()
            tell_failures(_status(session) or status)
            return OK
        if time.monotonic() > deadline:
            raise StokerError(f"the daemon (pid {process.pid}) is not ready yet; see {log}")
        time.sleep(0.05)
    sys.stderr.write(last_words(log, start))
    return process.returncode if process.returncode > 0 else FAILED


def _in_force(status: dict[str, Any]) -> bool:
    return bool(status["daemon"]["config"]["generation"])


def _await_addresses(status: dict[str, Any]) -> None:
    """Wait until the router listens on each service's address: what is printed can be used at once. For a
    while only: one that cannot be bound is told by events and status."""
    deadline = time.monotonic() + ADDRESSES_PATIENCE
    waiting = [urlsplit(service["url"]) for service in status["services"] if service["url"]]
    while waiting and time.monotonic() < deadline:
        where = (waiting[-1].hostname or "", waiting[-1].port or 80)
        try:
            socket.create_connection(where, timeout=1).close()
            waiting.pop()
        except OSError:
            time.sleep(0.02)


def _report(session: Session, status: dict[str, Any], log: Path) -> None:
    many = len(status["services"])
    words = f"{many} service{'s' * (many != 1)}"
    sys.stdout.write(f"stoker is up, pid {status['daemon']['pid']}, {words}\n")
    width = max((len(service["name"]) for service in status["services"]), default=0)
    width = max(width, len("front door" if status.get("doors") else "socket"))
    for service in status["services"]:
        sys.stdout.write(f"  {service['name']:<{width}}  {service['url']}\n")
    for door in status.get("doors", []):
        sys.stdout.write(f"  {'front door':<{width}}  {door['url']}\n")
    sys.stdout.write(f"  {'socket':<{width}}  {session.socket}\n  {'log':<{width}}  {log}\n")


def tell_failures(status: dict[str, Any]) -> None:
    """What failed at once, and what is noted: nobody should have to ask for it."""
    for notice in status["daemon"].get("notices", ()):
        sys.stderr.write(f"stoker: {notice}\n")
    for service in status["services"]:
        failed = [one for one in service["replicas"] if one["restarts"] and one["phase"] == "pending"]
        if failed and not service["ready"]:
            sys.stderr.write(f"stoker: {service['name']} serves nothing yet: {failed[0]['reason']}\n")


def _log_file(session: Session) -> Path:
    directory = Path(session.state_dir)
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o750)
    except OSError as error:
        raise StokerError(
            f"cannot use the state directory {directory}: {error.strerror}; choose another with --state-dir"
        ) from error
    return directory / "daemon.log"


def _status(session: Session) -> dict[str, Any] | None:
    from stoker.cli.client import Client

    try:
        return Client([session.socket], timeout=5).get("/v1/status")
    except StokerError:
        return None


def last_words(log: Path, start: int) -> str:
    """What a daemon that ended wrote into its log, which began at `start`."""
    with log.open("rb") as output:
        output.seek(start)
        text = output.read()[-4000:].decode("utf-8", "replace")
    text = "".join(dict.fromkeys(text.splitlines(keepends=True)))  # several that begin at once say the same
    return text or f"stoker: the daemon ended without a word; see {log}\n"
