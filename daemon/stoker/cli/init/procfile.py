"""A Procfile: `name: command` a line. Pure."""

from __future__ import annotations

import re

from stoker.cli.init.draft import Draft, Service, command_of, service_name


def draft_of(text: str, origin: str = "the Procfile") -> Draft:
    """Each process type as a service; `release` is a step before a start, which Stoker does not have."""
    services, left_out = [], []
    for line in text.splitlines():
        found = re.fullmatch(r"\s*([\w-]+)\s*:\s*(.+?)\s*", line)
        if found is None or line.lstrip().startswith("#"):
            continue
        name, command = found[1], found[2]
        if name == "release":
            left_out.append(f"{name} ({command}): run it by hand before `stoker up`")
            continue
        services.append(Service(name=service_name(name), values={"command": command_of(command)}))
    return Draft(origin=origin, services=tuple(services), left_out=tuple(left_out))
