"""`stoker systemd`: the daemon as a service of this box, installed and taken away again."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from stoker.cli.systemd_unit import Files, Plan, reachable, systemd_version, unit_files
from stoker.errors import StokerError

ROOT_DROP_IN = "etc/systemd/system/stoker.service.d/root.conf"
SUBGROUP_DROP_IN = "etc/systemd/system/stoker.service.d/subgroup.conf"
KNOWS_SUBGROUPS = 254
"""The first systemd that does."""
NEXT = """\
Next:
  put deployment files into /etc/stoker (`stoker init` writes a first one), see: stoker check /etc/stoker
  start it, and with the box: systemctl enable --now stoker
  who may operate it: root, and members of the group stoker (usermod -aG stoker NAME)
Upgrade later:
  install the new version where this one is, then: stoker systemd install && systemctl restart stoker
  (workers and router go on, no request is lost; `stoker reexec` does it without systemd)
"""


@click.group()
def command() -> None:
    """Install Stoker as a systemd service, or take it away."""


@command.command()
@click.option(
    "--privileged", is_flag=True, help="The daemon as root: for `user:` of services and containers."
)
@click.option("--now", is_flag=True, help="Enable and start it too.")
@click.option(
    "--destination", type=click.Path(file_okay=False), help="Write the files below DIR and do nothing else."
)
def install(privileged: bool, now: bool, destination: str | None) -> int:
    """Write the unit, its slice, account and directories; tell systemd of them.

    The daemon runs as the account stoker, hardened so far as GPU services allow.
    """
    program = Path(sys.argv[0] if os.path.exists(sys.argv[0]) else sys.executable).absolute().parent
    if not privileged and not destination:
        _must_reach(program)
    wanted = unit_files(str(program))
    unfit = [] if privileged else [ROOT_DROP_IN]
    if systemd_version() < KNOWS_SUBGROUPS:
        unfit.append(SUBGROUP_DROP_IN)
    plan = Plan(Files(destination or "/"), live=destination is None)
    for name in unfit:
        del wanted[name]
        plan.remove(name)
    plan.write(wanted)
    if destination is None:
        plan.run("systemd-sysusers", "stoker.conf")
        plan.run("systemd-tmpfiles", "--create", "stoker.conf")
        plan.run("systemctl", "daemon-reload")
        if now:
            plan.run("systemctl", "enable", "--now", "stoker.service")
        else:
            sys.stdout.write(NEXT)
    return 0


def _must_reach(program: Path) -> None:
    """Raise StokerError if the account could not run the program: its folder, its Python, its modules."""
    for place in (program, Path(sys.executable).resolve(), Path(__file__).resolve().parent):
        if wall := reachable(place):
            raise StokerError(
                f"the account stoker could not reach {place}: {wall} is closed to others; install Stoker "
                "with a Python that all may run (/usr/bin/python3 -m venv /opt/stoker), or say --privileged"
            )


@command.command()
@click.option("--purge", is_flag=True, help="Remove configuration, secrets and state as well.")
def uninstall(purge: bool) -> int:
    """Stop the service, which drains its workers, and remove what `install` wrote."""
    plan = Plan(Files("/"), live=True)
    wanted = unit_files("")
    if plan.files.exists("etc/systemd/system/stoker.service"):
        plan.run("systemctl", "disable", "--now", "stoker.service")
    for name in wanted:
        plan.remove(name)
    plan.run("systemctl", "daemon-reload")
    kept = ["/etc/stoker", "/var/lib/stoker", "/var/cache/stoker"]
    if purge:
        for path in kept:
            plan.files.clear(path)
    elif there := [path for path in kept if os.path.exists(path)]:
        sys.stdout.write(f"kept: {', '.join(there)} (--purge removes them), and the account stoker\n")
    return 0
