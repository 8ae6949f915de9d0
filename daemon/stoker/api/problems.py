"""Errors as RFC 9457 problem details: what a client gets when something is wrong. Pure."""

from __future__ import annotations

from typing import Any

from stoker.api.documents import problem_document
from stoker.errors import ConfigError, ConflictError, NotFoundError, StokerError

MEDIA_TYPE = "application/problem+json"


class BadRequestError(StokerError):
    """The request itself is malformed: no JSON, a missing field, a wrong type."""


class BusyError(StokerError):
    """More is asked at once than the daemon gives room for."""


_KINDS: tuple[tuple[type[StokerError], int, str], ...] = (
    (ConfigError, 422, "The configuration cannot be used"),
    (NotFoundError, 404, "Not found"),
    (ConflictError, 409, "Conflict with the present state"),
    (BadRequestError, 400, "Bad request"),
    (BusyError, 503, "Busy"),
    (StokerError, 500, "Failed"),
)


def problem(error: StokerError) -> tuple[int, dict[str, Any]]:
    """The HTTP status and the problem document of an error that is meant for a person."""
    status, title = next((status, title) for kind, status, title in _KINDS if isinstance(error, kind))
    document: dict[str, Any] = {
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": str(error),
    }
    if isinstance(error, ConfigError):
        document["errors"] = [problem_document(fault) for fault in error.problems]
    return status, document


def plain_problem(status: int, title: str, detail: str) -> dict[str, Any]:
    """A problem document for faults that are no StokerError (unknown route, wrong method, a bug)."""
    return {"type": "about:blank", "title": title, "status": status, "detail": detail}
