"""Reading what a client sent: query and JSON body, each wrong thing named. Raises BadRequestError."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import anyio
from starlette.requests import ClientDisconnect, Request

from stoker.api.problems import BadRequestError

LARGEST_BODY = 1024 * 1024
BODY_SECONDS = 30.0


async def read_body(request: Request) -> dict[str, Any]:
    """The JSON object in the body; an empty body is an empty object."""
    body = b""
    with anyio.move_on_after(BODY_SECONDS) as patience:
        try:
            async for piece in request.stream():
                body += piece
                if len(body) > LARGEST_BODY:
                    raise BadRequestError(f"the body is larger than {LARGEST_BODY} bytes")
        except ClientDisconnect:
            raise BadRequestError("the body ended before it was complete") from None
    if patience.cancelled_caught:
        raise BadRequestError(f"the body did not come within {BODY_SECONDS:g} s")
    if not body.strip():
        return {}
    try:
        value = json.loads(body)
    except ValueError as error:
        raise BadRequestError(f"the body is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise BadRequestError("the body must be a JSON object")
    return value


def check_fields(body: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """Refuse fields nobody reads: a mistyped field must not be a silent default."""
    for name in body:
        if name not in known:
            raise BadRequestError(f"unknown field {name!r}; the fields are: {', '.join(known) or 'none'}")


def text(body: Mapping[str, Any], name: str) -> str:
    """A string that must be there."""
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise BadRequestError(f"the field {name!r} must be a string that is not empty")
    return value


def texts(body: Mapping[str, Any], name: str) -> list[str]:
    """A list of strings; missing is empty."""
    value = body.get(name, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise BadRequestError(f"the field {name!r} must be a list of strings")
    return value


def mapping(body: Mapping[str, Any], name: str) -> dict[str, Any]:
    """An object that must be there and hold something."""
    value = body.get(name)
    if not isinstance(value, dict) or not value:
        raise BadRequestError(f"the field {name!r} must be an object that is not empty")
    return value


def count(body: Mapping[str, Any], name: str) -> int:
    """A whole number, zero or more."""
    value = body.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise BadRequestError(f"the field {name!r} must be a whole number, zero or more")
    return value


def flag(request: Request, name: str, *, default: bool) -> bool:
    """A query parameter that is true or false."""
    value = request.query_params.get(name)
    if value is None:
        return default
    if value.lower() in {"1", "true", "yes", ""}:
        return True
    if value.lower() in {"0", "false", "no"}:
        return False
    raise BadRequestError(f"the parameter {name!r} must be true or false, not {value!r}")


def number(request: Request, name: str) -> float | None:
    """A query parameter that is a number, zero or more; None where it is missing."""
    value = request.query_params.get(name)
    if value is None:
        return None
    try:
        found = float(value)
    except ValueError:
        found = -1.0
    if not 0 <= found < float("inf"):
        raise BadRequestError(f"the parameter {name!r} must be a number, zero or more, not {value!r}")
    return found
