"""Which process of a container is the command, beyond this daemon's life.

It is the child of the container's init. But when it has just ended, what it has left is the init's as well
for a moment, and looks the same.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path


class Mains:
    """A file for each container, with the command's pid and start time."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def note(self, container: str, pid: int, start: int) -> None:
        """Keep it for the next daemon."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self._directory / container).write_text(f"{pid} {start}", encoding="ascii")

    def of(self, container: str) -> tuple[int, int] | None:
        """Pid and start time; None where the daemon before did not come to keep it."""
        try:
            pid, start = map(int, (self._directory / container).read_text(encoding="ascii").split())
        except (OSError, ValueError):
            return None
        return pid, start

    def forget(self, container: str) -> None:
        """The container is gone."""
        (self._directory / container).unlink(missing_ok=True)

    def forget_others(self, kept: Collection[str]) -> None:
        """All but these containers are gone."""
        for path in self._directory.glob("*"):
            if path.name not in kept:
                path.unlink(missing_ok=True)
