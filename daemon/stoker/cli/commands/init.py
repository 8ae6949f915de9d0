"""`stoker init`: a first deployment file."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import click

from stoker.cli.exits import UsageError
from stoker.cli.session import session_of, session_options
from stoker.errors import ConfigError, StokerError

NAME = "stoker.yaml"


@click.command()
@click.argument("folder", default=".", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--print", "only_print", is_flag=True, help="Print the file instead of writing it.")
@session_options
@click.pass_context
def command(context: click.Context, folder: Path, only_print: bool) -> int:
    """Write a first stoker.yaml in FOLDER (.), from what is there: a BentoML project, a docker compose file,
    supervisord's or circus' ini, a Procfile, an ASGI application; else an example.

    Nothing of what is found is run. A stoker.yaml that is there is never replaced.
    """
    from stoker.cli.init.draft import text_of
    from stoker.cli.init.folder import look

    path = folder / NAME
    if path.exists() and not only_print:
        raise UsageError(f"{path} is there already; --print shows what a new one would be")
    draft = look(folder)
    text = text_of(draft, folder.resolve().name, _box(session_of(context).state_dir))
    if all("command" in service.values for service in draft.services) and not draft.top:
        try:
            _try(folder, text)  # of code it would load the declarations, and nothing found is to be run
        except OSError as error:
            raise StokerError(f"cannot write to {folder.resolve()}: {error.strerror}") from error
    if only_print:
        sys.stdout.write(text)
        return 0
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise StokerError(f"cannot write {path}: {error.strerror}") from error
    what = ", ".join(service.name for service in draft.services) or str(draft.top.get("bento", ""))
    sys.stdout.write(f"wrote {path}, from {draft.origin}: {what}\n")
    for left in draft.left_out:
        sys.stdout.write(f"left out {left}\n")
    where = "" if folder == Path() else f"cd {folder} && "
    sys.stdout.write(f"next: {where}stoker up\n")
    return 0


def _box(state_dir: str) -> str:
    """This box in a few words."""
    import psutil

    from stoker.cli.loading import inventory_now
    from stoker.model.quantity import format_bytes

    devices = inventory_now(state_dir).devices
    gpus = "no GPU" if not devices else f"{len(devices)} x {devices[0].name}"
    cores, memory = len(os.sched_getaffinity(0)), psutil.virtual_memory().total
    return f"{gpus}, {cores} cores, {format_bytes(memory)} of memory"


def _try(folder: Path, text: str) -> None:
    """Raise StokerError if `stoker check` would refuse it: then it is told, and nothing is written."""
    from stoker.cli import loading

    with tempfile.NamedTemporaryFile("w", dir=folder, prefix=".stoker-", suffix=".yaml") as beside:
        beside.write(text)
        beside.flush()
        try:
            loading.load([beside.name], profile=None, sets=(), to_run=False)
        except ConfigError as error:
            words = "; ".join(f"{p.path}: {p.message}" if p.path else p.message for p in error.problems)
            raise StokerError(
                f"what was found cannot be taken over as it is: {words}; `stoker init --print` elsewhere "
                "gives an example to begin with"
            ) from error
