"""Kills of the whole daemon, `stoker up`, while requests come in: everything from the command line."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from system.harness import Box

KILLS = 20
FILE = """services:
  web:
    command: [{program}, "{{port}}"]
    scaling: {{min_replicas: 4, max_replicas: 4}}
    traffic: {{concurrency: 16}}
"""

Load = Callable[[int, int], Awaitable[tuple[int, int, list[str]]]]


async def kills(folder: Path, program: Path, requests: int, load: Load) -> dict[str, Any]:
    """The daemon is killed with -9 and begun again `KILLS` times at least, until there were so many requests.
    `load` sends some for a few seconds: port, seconds."""
    folder.mkdir()
    with Box(folder) as box:
        box.write(FILE.format(program=program))
        await asyncio.to_thread(box.up)
        before = {one["pid"] for one in await asyncio.to_thread(box.ready, "web", 4)}
        port = int(box.service("web")["url"].rpartition(":")[2])
        found: dict[str, Any] = {"requests": 0, "failed": 0, "disturbed": 0, "detail": []}
        over = asyncio.Event()
        killing = asyncio.ensure_future(_kill(box, found, over))
        while found["requests"] < requests or found["disturbed"] < KILLS:
            sent, failed, detail = await load(port, 4)
            found["requests"] += sent
            found["failed"] += failed
            found["detail"] += detail
            if killing.done():
                break
        over.set()
        await killing
        after = {one["pid"] for one in await asyncio.to_thread(box.ready, "web", 4)}
        return {**found, "workers that are still the same": len(before & after)}


async def _kill(box: Box, found: dict[str, Any], over: asyncio.Event) -> None:
    while not over.is_set():
        await asyncio.sleep(random.uniform(0.1, 0.5))
        await asyncio.to_thread(box.kill)
        await asyncio.sleep(random.uniform(0.0, 0.3))
        await asyncio.to_thread(box.up)
        found["disturbed"] += 1
