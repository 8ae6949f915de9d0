"""Whether systemd can keep the daemon running here, and does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from stoker.cli.doctor.finding import Finding, Place, ok, warn

RUNS = Path("/run/systemd/system")
UNIT = "stoker.service"
FOLDERS = tuple(map(Path, ("/etc/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system",
                           "/lib/systemd/system")))  # fmt: skip


def check(place: Place) -> Iterator[Finding]:
    """Systemd and the unit."""
    del place
    yield judge(RUNS.is_dir(), [folder / UNIT for folder in FOLDERS if (folder / UNIT).exists()])


def judge(runs: bool, units: Sequence[Path]) -> Finding:
    """The verdict on where the unit lies. Pure."""
    if not runs:
        return ok("systemd", "does not run this box; keep `stoker up` alive by other means")
    if not units:
        text = f"runs this box, but {UNIT} is not installed"
        return warn("systemd", text, "see systemd/README.md; without it the daemon ends with your session")
    if len(units) > 1:
        return ok("systemd", f"{units[0]} (it hides {', '.join(map(str, units[1:]))})")
    return ok("systemd", str(units[0]))
