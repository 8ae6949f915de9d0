"""Ask Stoker's NVML process itself."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from contextlib import contextmanager

COMMAND = [sys.executable, "-m", "stoker_nvidia.child"]


def once(environ: dict[str, str]) -> dict:
    done = subprocess.run(
        [*COMMAND, "--once"], env={**os.environ, **environ}, capture_output=True, timeout=30, check=True
    )
    return json.loads(done.stdout)


@contextmanager
def serving(environ: dict[str, str]):
    child = subprocess.Popen(
        COMMAND, env={**os.environ, **environ}, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        yield child
    finally:
        child.kill()
        child.wait(timeout=10)
        child.stdin.close()
        child.stdout.close()


def ask(child, patience: float | None = None) -> dict:
    """The child's next report; `patience` is what it may wait for one GPU."""
    child.stdin.write(b"\n" if patience is None else b"%g\n" % patience)
    child.stdin.flush()
    assert select.select([child.stdout], [], [], 20)[0], "no answer"
    return json.loads(child.stdout.readline())
