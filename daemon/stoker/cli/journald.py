"""Under systemd: events go to the journal in its own protocol, with their parts as fields beside the message.

`journalctl -u stoker STOKER_REPLICA=infer-k3x9` then finds what concerns one replica, `-p warning` what went
wrong, and `-o json` gives a program all of it.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress

from stoker.api.facade import DaemonFacade
from stoker.api.narrate import Narrator, severity
from stoker.model.event import Event
from stoker.to_journal import entries
from stoker.to_journal.entries import SOCKET

PRIORITIES = {"info": "6", "warning": "4", "error": "3"}
"""As syslog counts them."""


def is_our_output(environ: Mapping[str, str], descriptor: int) -> bool:
    """Whether what is written there goes to the journal: systemd names device and inode of its stream."""
    try:
        found = os.fstat(descriptor)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


async def journal_entries(facade: DaemonFacade, path: str = SOCKET) -> None:
    """One entry per event that matters. While the journal does not take them, as plain lines."""
    narrator = Narrator()
    with socket.socket(
        socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    ) as line:
        async for event in facade.events(facade.beginning):
            for text in narrator.tell(event):
                try:
                    line.sendto(datagram(event, text), path)
                except OSError:
                    with suppress(OSError):  # nobody reads that either; the daemon goes on
                        sys.stdout.write(f"{text}\n")
                        sys.stdout.flush()


def datagram(event: Event, text: str) -> bytes:
    """An entry in the journal's protocol. Pure."""
    return entries.datagram(dict(_fields(event, text)))


def _fields(event: Event, text: str) -> Iterator[tuple[str, str]]:
    deployment, _, service = event.service_key.partition("/")
    found = {
        "MESSAGE": text,
        "PRIORITY": PRIORITIES[severity(event)],
        "SYSLOG_IDENTIFIER": "stoker",
        "STOKER_EVENT": type(event).__name__,
        "STOKER_EVENT_ID": event.id,
        "STOKER_CAUSE": event.cause,
        "STOKER_DEPLOYMENT": deployment,
        "STOKER_SERVICE": service,
        "STOKER_REPLICA": getattr(event, "replica", ""),
    }
    return ((name, value) for name, value in found.items() if value)
