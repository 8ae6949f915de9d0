"""What HAProxy processes log to the daemon: a request has ended, or come to a service at rest. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ended:
    """A request that has ended; `weight` requests like it are told by this one alone. Times in seconds."""

    waited: float
    total: float
    status: int
    weight: int
    answered: bool
    """A worker had it and gave an answer, and the client stayed for it."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the process of that name. `ended` None: it was at rest and has a request now."""

    process: str
    ended: Ended | None = None


def read_line(data: bytes) -> Line | None:
    """What one datagram says; None if it is none of ours."""
    fields = data.decode(errors="replace").split()
    try:
        if fields[0] == "stir":
            return Line(fields[1])
        if fields[0] != "end":
            return None
        name, waited, head, total, status, weight, end, server = fields[1:9]
        ended = Ended(
            waited=max(0, int(waited)) / 1000,
            total=max(0, int(total)) / 1000,
            status=max(0, int(status)),
            weight=int(weight),
            answered=int(head) >= 0 and end[0] != "C" and not server.startswith("<"),
        )
    except (ValueError, IndexError):
        return None
    return Line(name, ended)
