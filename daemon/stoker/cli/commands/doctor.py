"""`stoker doctor`: checks of this box, each with its remedy."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from stoker.cli import exits
from stoker.cli.place import Session
from stoker.cli.quick import print_json
from stoker.cli.session import output_option, session_of, session_options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stoker.cli.doctor.finding import Finding, Place
    from stoker.cli.table import Style

STYLES: Mapping[str, Style] = {"ok": "green", "warn": "yellow", "fail": "red"}
PATIENCE = 5.0
"""Seconds for the daemon's answer: one that hangs is itself a finding."""


@click.command()
@output_option
@session_options
@click.pass_context
def command(context: click.Context, output: str) -> int:
    """Check what Stoker needs of this box, with a daemon or without; exit code 1 if something is amiss."""
    from stoker.cli.doctor.registry import examine

    findings = list(examine(look(session_of(context))))
    failed = any(finding.state == "fail" for finding in findings)
    if output == "json":
        print_json({"ok": not failed, "checks": [finding.document() for finding in findings]})
    else:
        _show(findings)
    return exits.FAILED if failed else exits.OK


def look(session: Session) -> Place:
    """The place to check."""
    from stoker.cli.doctor.finding import Place
    from stoker.errors import StokerError

    client = session.client(timeout=PATIENCE)
    found: dict[str, Any] = {}
    try:
        found = {"status": client.get("/v1/status"), "devices": client.get("/v1/devices")}
    except exits.NoDaemonError:
        pass  # the checks of the box itself need none
    except StokerError as error:
        found = {"trouble": str(error)}
    status = found.get("status")
    return Place(
        socket=client.socket if found else session.socket,
        state_dir=status["daemon"]["state_dir"] if status else session.state_dir,
        runtime_dir=session.runtime_dir,
        uid=os.geteuid(),
        environ=dict(os.environ),
        **found,
    )


def _show(findings: list[Finding]) -> None:
    from stoker.cli.table import say

    width = max(len(finding.check) for finding in findings)
    for finding in findings:
        say(f"{finding.state:4}  {finding.check:{width}}  {finding.text}", STYLES[finding.state])
        if finding.remedy:
            say(f"{'':4}  {'':{width}}  > {finding.remedy}")
