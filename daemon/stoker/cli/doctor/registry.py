"""All checks, in the order of the answer. A new group is a module with such a function and a line here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from stoker.cli.doctor import daemon, devices, limits, network, parts, python, storage, systemd, trees
from stoker.cli.doctor.finding import Finding, Place, warn

Check = Callable[[Place], Iterable[Finding]]

CHECKS: tuple[tuple[str, Check], ...] = (
    ("python", python.check),
    ("daemon", daemon.check),
    ("plugins", parts.check),
    ("devices", devices.check),
    ("process trees", trees.check),
    ("storage", storage.check),
    ("network", network.check),
    ("limits", limits.check),
    ("systemd", systemd.check),
)


def examine(place: Place, checks: Iterable[tuple[str, Check]] = CHECKS) -> Iterator[Finding]:
    """Every finding, as it is made. A check that fails itself costs only itself."""
    for name, check in checks:
        try:
            yield from check(place)
        except Exception as error:  # noqa: BLE001 - a box in a state nobody foresaw is what this is run on
            text = f"could not be checked: {type(error).__name__}: {error}"
            yield warn(name, text, "please report this with the output of `stoker doctor -o json`")
