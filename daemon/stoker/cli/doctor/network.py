"""Ports: the ranges that Stoker chooses from, and whether the router answers on the services' addresses."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from stoker.cli.doctor.finding import Finding, Place, fail, ok, warn
from stoker.runtime.addresses import SERVICE_PORTS, WORKER_PORTS, is_free

EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
LONGEST_SOCKET = 107
"""Bytes of a path that a unix socket's address takes."""
SAMPLE = 50
"""Ports that are tried: enough to tell an empty range from a crowded one."""


def check(place: Place) -> Iterator[Finding]:
    """Loopback, ranges, the socket's path, the router."""
    yield free_ports(SERVICE_PORTS)
    if EPHEMERAL.exists():
        low, high = (int(word) for word in EPHEMERAL.read_text().split())
        yield ephemeral(low, high)
    yield socket_path(place.socket)
    if place.status is not None:
        urls = [service["url"] for service in place.status["services"] if service["url"]]
        yield from router(urls, place.status["daemon"]["notices"])


def free_ports(ports: range) -> Finding:
    """Whether services can be given an address on loopback."""
    step = max(1, len(ports) // SAMPLE)
    tried = ports[::step]
    free = sum(is_free("127.0.0.1", port) for port in tried)
    text = f"{free} of {len(tried)} tried between {ports[0]} and {ports[-1]} are free on 127.0.0.1"
    if not free:
        return fail("ports", text, "see what listens there (ss -ltnp), or write endpoint: {port: N}")
    if free < len(tried) / 2:
        return warn("ports", text, "see what listens there (ss -ltnp)")
    return ok("ports", text)


def ephemeral(low: int, high: int) -> Finding:
    """Whether outgoing connections of anybody can sit on a port that was chosen for a worker. Pure."""
    ours = f"{SERVICE_PORTS[0]} to {WORKER_PORTS[-1]}"
    if low <= WORKER_PORTS[-1] and high >= SERVICE_PORTS[0]:
        text = f"outgoing connections use {low} to {high}, which overlaps with Stoker's {ours}"
        remedy = f"sysctl net.ipv4.ip_local_port_range='{WORKER_PORTS[-1] + 1} 60999'"
        return warn("port ranges", text, remedy)
    return ok("port ranges", f"Stoker's {ours}, outgoing connections {low} to {high}")


def socket_path(path: str) -> Finding:
    """Whether the API's socket can have that path. Pure."""
    length = len(os.fsencode(path))
    if length > LONGEST_SOCKET:
        text = f"{path} has {length} bytes; a unix socket's path has at most {LONGEST_SOCKET}"
        return fail("socket", text, "choose a shorter one with --socket or STOKER_SOCKET")
    return ok("socket", path)


def router(urls: Sequence[str], notices: Sequence[str] = ()) -> Iterator[Finding]:
    """Whether the router answers on each address; or, as the daemon notes, another program."""
    taken = [note for note in notices if any(f" {urlsplit(url).netloc} " in note for url in urls)]
    silent = [url for url in urls if not _answers(url)]
    if taken:
        yield fail("router", "; ".join(taken), "`ss -ltnp` shows what listens there")
    elif silent:
        text = f"nothing listens on {', '.join(silent)}"
        remedy = "`stoker status` shows why; logs/router.log in the state directory has the router's words"
        yield fail("router", text, remedy)
    elif urls:
        yield ok("router", f"listens on all {len(urls)} services' addresses")


def _answers(url: str) -> bool:
    address = urlsplit(url)
    host = "127.0.0.1" if address.hostname in {None, "0.0.0.0"} else address.hostname
    try:
        with socket.create_connection((host, address.port or 80), timeout=2):
            return True
    except OSError:
        return False
