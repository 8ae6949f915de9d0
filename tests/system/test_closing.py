"""The daemon gives back what its drivers hold before it ends: seen at the process that starts workers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

DAEMON = """
import os, sys
from pathlib import Path
import anyio
from stoker.runtime.daemon import run_daemon
from stoker.runtime.options import DaemonOptions

found = []

def children():
    for task in Path("/proc/self/task").iterdir():
        yield from (int(pid) for pid in (task / "children").read_text().split())

async def observe(facade):
    while not found:
        await anyio.sleep(0.02)
        environ = {pid: Path(f"/proc/{pid}/environ").read_bytes() for pid in children()}
        found.extend(pid for pid, text in environ.items() if b"STOKER_ROLE=forkserver" in text)
    await facade.down()
    await anyio.sleep_forever()

place = sys.argv[1]
run_daemon(DaemonOptions(
    files=(f"{place}/stoker.yaml",), socket=f"{place}/s", state_dir=f"{place}/state",
    runtime_dir=f"{place}/run", observers=(observe,),
))
print("left" if os.path.exists(f"/proc/{found[0]}") else "gone")
"""


def test_drivers_are_closed_before_the_daemon_ends(tmp_path: Path) -> None:
    (tmp_path / "stoker.yaml").write_text("services: {a: {command: sleep 1000}}\n")
    done = subprocess.run(
        [sys.executable, "-c", DAEMON, str(tmp_path)], capture_output=True, text=True, timeout=40, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "gone\n", "")
