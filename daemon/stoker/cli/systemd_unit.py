"""The files of the systemd service: what goes where, and how it gets there."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from stoker.errors import StokerError

PLACES = {
    "stoker.service": "etc/systemd/system/stoker.service",
    "stoker-devices.service": "etc/systemd/system/stoker-devices.service",
    "stoker.slice": "etc/systemd/system/stoker.slice",
    "stoker-root.conf": "etc/systemd/system/stoker.service.d/root.conf",
    "stoker-subgroup.conf": "etc/systemd/system/stoker.service.d/subgroup.conf",
    "stoker.sysusers": "etc/sysusers.d/stoker.conf",
    "stoker.tmpfiles": "etc/tmpfiles.d/stoker.conf",
}
"""Each file of the package and where it goes."""
PATH_DROP_IN = "etc/systemd/system/stoker.service.d/path.conf"
KNOWN = ("/opt/stoker/bin", "/usr/local/bin", "/usr/bin")
"""Directories of the program that the unit looks into by itself."""


def unit_files(program: str) -> dict[str, str]:
    """All files by their place below the root: the unit finds the program that lies in that directory."""
    here = files("stoker.cli").joinpath("units")
    found = {place: here.joinpath(name).read_text() for name, place in PLACES.items()}
    path = f"{program}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"
    found[PATH_DROP_IN] = f"# Where stoker is installed.\n\n[Service]\nEnvironment=PATH={path}\n"
    if program in KNOWN:
        del found[PATH_DROP_IN]
    return found


def systemd_version() -> int:
    """The version of this box's systemd, 0 where it cannot be asked."""
    try:
        said = subprocess.run(["systemctl", "--version"], capture_output=True, text=True, check=False).stdout
    except OSError:
        return 0
    words = said.split(maxsplit=2)
    return int(words[1]) if len(words) > 1 and words[1].isdecimal() else 0


def reachable(path: Path) -> Path | None:
    """The first directory on the way to `path` that is closed to other accounts; None if all are open."""
    for place in (*reversed(path.parents), path):
        try:
            if not place.stat().st_mode & stat.S_IXOTH:
                return place
        except OSError:
            return place
    return None


class Files:
    """The file system below a root."""

    def __init__(self, root: str) -> None:
        self._root = Path(root)

    def exists(self, name: str) -> bool:
        """Whether it is there."""
        return self._at(name).exists()

    def write(self, name: str, text: str) -> str:
        """Replace it; returns what came of that. Raises StokerError."""
        path = self._at(name)
        try:
            before = path.read_text() if path.exists() else None
            if before == text:
                return "is up to date"
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
            fresh = path.with_name(f".{path.name}.new")
            fresh.write_text(text)
            fresh.chmod(0o644)
            fresh.replace(path)
        except OSError as error:
            raise StokerError(f"cannot write {path}: {error.strerror}; installing takes root") from error
        return "written" if before is None else "replaced"

    def remove(self, name: str) -> bool:
        """Remove it, and its directory if that is empty then. Raises StokerError."""
        path = self._at(name)
        try:
            path.unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise StokerError(f"cannot remove {path}: {error.strerror}; uninstalling takes root") from error
        if (
            path.parent.name.endswith(".d")
            and path.parent.name != "sysusers.d"
            and not os.listdir(path.parent)
        ):
            path.parent.rmdir()
        return True

    def clear(self, path: str) -> None:
        """Remove a whole directory, if it is there."""
        shutil.rmtree(self._at(path.lstrip("/")), ignore_errors=True)

    def _at(self, name: str) -> Path:
        return self._root / name


class Plan:
    """Does one step after the other and says each. `live`: on this box, not in a folder for packaging."""

    def __init__(self, files: Files, *, live: bool) -> None:
        self.files = files
        if live and not os.path.isdir("/run/systemd/system"):
            raise StokerError("systemd does not run here; `stoker up --detach` runs the daemon without it")

    def write(self, wanted: Mapping[str, str]) -> None:
        """Write files."""
        for name, text in wanted.items():
            sys.stdout.write(f"/{name}: {self.files.write(name, text)}\n")

    def remove(self, name: str) -> None:
        """Remove a file that may be there."""
        if self.files.remove(name):
            sys.stdout.write(f"/{name}: removed\n")

    def run(self, *command: str) -> None:
        """Run a command of systemd's. Raises StokerError with its words."""
        sys.stdout.write(f"{' '.join(command)}\n")
        sys.stdout.flush()
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            raise StokerError(f"{command[0]} cannot be run: {error.strerror}") from error
        if done.returncode:
            words = (done.stderr or done.stdout).strip() or f"exit code {done.returncode}"
            raise StokerError(f"{' '.join(command)} failed: {words}")
