"""Services that are somebody else's server behind BentoML's proxy (`cmd`, `__command__`).

BentoML gives all of them one port, 8000 by default, so two replicas on a box would fight for it. Here each
gets a free one: it is in the variable PORT, takes the place of the declared port in the command, and the
proxy knows it.
"""

from __future__ import annotations

import os
import re
import socket
from typing import Any

DEFAULT_PORT = 8000


def notes(service: Any) -> list[str]:
    """What is to be said of the service's command before it runs."""
    declared = int((service.config.get("http") or {}).get("proxy_port") or DEFAULT_PORT)
    if service.cmd is None or with_port(list(service.cmd), declared, declared + 1)[1]:
        return []
    once = f"its command does not name its port {declared}, so one replica at a time can run on this box"
    return [f"{once}; write ${{PORT}} where the command takes its port"]


def prepare(service: Any) -> None:
    """Give the service's command a port of its own."""
    http = service.config.setdefault("http", {})
    declared = int(http.get("proxy_port") or DEFAULT_PORT)
    own = free_port()
    made = getattr(service.inner, "__command__", None)
    if made is None:
        service.cmd, moved = with_port(list(service.cmd), declared, own)
    else:
        moved = True

        def command(instance: Any) -> list[str]:
            return with_port(list(made(instance)), declared, own)[0]

        service.inner.__command__ = command
    if moved:
        os.environ["PORT"] = str(own)
        http["proxy_port"] = own
    # A command that names no port anywhere has its own mind about it, and can run only once on this box.


def with_port(command: list[str], declared: int, own: int) -> tuple[list[str], bool]:
    """The command with `own` in place of the declared port, and whether it names a port at all. Pure."""
    number = re.compile(rf"(?<![\w.]){declared}(?![\w.])")
    variable = re.compile(r"\$(?:PORT\b|\{PORT[:}])")
    moved = [number.sub(str(own), word) for word in command]
    return moved, moved != command or any(variable.search(word) for word in command)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port: int = probe.getsockname()[1]
    return port
