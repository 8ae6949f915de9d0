"""The daemon itself: does it answer, is its configuration in force, is it of this version."""

from __future__ import annotations

from collections.abc import Iterator

from stoker import __version__
from stoker.cli.doctor.finding import Finding, Place, fail, ok, warn


def check(place: Place) -> Iterator[Finding]:
    """What the daemon says of itself."""
    if place.trouble:
        yield fail("daemon", place.trouble, "see its log; its workers go on while it is started again")
        return
    if place.status is None:
        yield ok("daemon", f"none answers at {place.socket}; `stoker up` starts one")
        return
    daemon = place.status["daemon"]
    config = daemon["config"]
    yield ok("daemon", f"{daemon['version']}, pid {daemon['pid']}, answers at {place.socket}")
    if daemon["version"] != __version__:
        text = f"the daemon is {daemon['version']}, this command {__version__}"
        yield warn("daemon version", text, "restart the daemon when it suits; its workers go on meanwhile")
    if config["state"] == "rejected":
        count = len(config["errors"])
        text = f"rejected, with {count} error{'s' if count > 1 else ''}; the last good one is in force"
        yield warn("configuration", text, "`stoker status` shows each error with its place")
    else:
        yield ok("configuration", f"generation {config['generation']} in force")
