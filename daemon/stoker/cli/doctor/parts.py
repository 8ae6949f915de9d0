"""The plugins: those that failed to load cost what they bring."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from stoker.cli.doctor.finding import Finding, Place, fail, ok, warn
from stoker.plugin.manager import PluginRecord, PluginRegistry

NEEDED = ("driver", "router", "policy")
"""Kinds of parts without which nothing can run."""


def check(place: Place) -> Iterator[Finding]:
    """What this installation loads."""
    del place
    registry = PluginRegistry()
    registry.load()
    yield from judge(registry.records)


def judge(records: Iterable[PluginRecord]) -> Iterator[Finding]:
    """The verdict on what was found. Pure."""
    known = list(records)
    for record in known:
        if record.state == "failed":
            source = record.distribution or record.name
            remedy = f"repair or uninstall {source}"
            yield warn("plugins", f"{record.name} failed to load: {record.reason}", remedy)
    brought = {part.partition(":")[0] for record in known for part in record.parts}
    missing = [kind for kind in NEEDED if kind not in brought]
    if missing:
        text = f"no plugin brings a {' or a '.join(missing)}"
        yield fail("plugins", text, "install Stoker again: its own plugins are not there")
    else:
        loaded = [record.name for record in known if record.state == "loaded"]
        yield ok("plugins", f"loaded: {', '.join(loaded)}")
