"""`stoker scale`: live bounds."""

from __future__ import annotations

import re

import click

from stoker.cli.exits import UsageError
from stoker.cli.session import service_argument, session_of, session_options


@click.command()
@service_argument()
@click.argument("bounds", metavar="N|MIN..MAX")
@session_options
@click.pass_context
def command(context: click.Context, service: str, bounds: str) -> None:
    """Override the bounds of SERVICE: a fixed number N, or MIN..MAX. `stoker unset` takes it back."""
    low, high = parse_bounds(bounds)
    body = {"service": service, "min_replicas": low, "max_replicas": high}
    click.echo(session_of(context).client().post("/v1/scale", body)["message"])


def parse_bounds(text: str) -> tuple[int, int]:
    """(min, max) of "3" or "1..4". Pure. Raises UsageError."""
    match = re.fullmatch(r"(\d+)(?:\.\.(\d+))?", text.strip())
    if match is None:
        raise UsageError(f"{text!r} is neither a number nor MIN..MAX; write for example 3 or 1..4")
    low, high = int(match[1]), int(match[2] or match[1])
    if low > high:
        raise UsageError(f"min {low} is larger than max {high}; write for example {high}..{low}")
    return low, high
