"""A first deployment file in the making, whatever it was found in. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stoker.cli.yaml_out import yaml_lines


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One service: `values` as in the file, `notes` for people, one line each."""

    name: str
    values: Mapping[str, Any]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What was found. `origin` names the file or kind of project; `left_out` says what could not be taken
    over, and why. `top`: keys above the services."""

    origin: str
    services: tuple[Service, ...] = ()
    left_out: tuple[str, ...] = ()
    top: Mapping[str, Any] = field(default_factory=dict)


def text_of(draft: Draft, name: str, box: str) -> str:
    """The deployment file. Pure."""
    lines = [
        f"# Made by `stoker init` from {draft.origin}. This box: {box}.",
        "# Check it with `stoker check`, see what it would do with `stoker plan`, run it with `stoker up`.",
        *(f"# Left out: {what}" for what in draft.left_out),
        *yaml_lines({"name": service_name(name), **draft.top}, {}),
    ]
    if draft.services:
        lines += ["", "services:"]
    for service in draft.services:
        lines += [f"  # {note}" for note in (*service.notes, *_of_its_port(service))]
        lines += [f"  {line}" for line in yaml_lines({service.name: service.values}, {})]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _of_its_port(service: Service) -> tuple[str, ...]:
    """A replica is up when its own port answers: what to do about a command that does not take one."""
    command = service.values.get("command")
    told = "{port}" in f"{command} {service.notes}"
    if not command or told or "image" in service.values or "probes" in service.values:
        return ()
    return (
        "let it listen on {port}, which is also PORT in its environment;",
        'if it serves nothing, add probes: {startup: {exec: "true"}}',
    )


def service_name(text: str) -> str:
    """The nearest name that a service may have."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:63] or "app"


def filled(command: str) -> str:
    """A shell's command line with `$PORT` as Stoker fills it in, and what only looks like that kept."""
    kept = re.sub(r"(?<!\$)\{[A-Za-z_]+(?::[^{}]*)?\}", lambda braces: f"{{{braces[0]}}}", command)
    return re.sub(r"\$\{PORT(?::-\w*)?\}|\$PORT\b", "{port}", kept)


def command_of(line: str) -> str | list[str]:
    """A command line as it would run without a shell, or by a shell where it takes one."""
    line = filled(line.strip())
    if re.search(r"[|&;<>`*?~]|\$[\w({]|^\w+=", line):
        return ["sh", "-c", line]
    return line
