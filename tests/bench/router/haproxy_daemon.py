"""A daemon that has the router `haproxy` only: `haproxy_daemon.py FOLDER PORT WORKER`; prints its record."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import anyio

from stoker.model.state import Route, RoutingTable, WorkerRoute
from stoker.plugin.ports import PluginContext
from stoker.plugin.testing.router_bench import Facts
from stoker_haproxy.plugin import make


async def main(folder: Path, port: int, worker: int) -> None:
    context = PluginContext(
        instance="bench",
        state_dir=str(folder / "state"),
        runtime_dir=str(folder / "run"),
        environ={"PATH": os.environ["PATH"]},
    )
    router, facts = make(context), Facts()
    route = Route(
        service="bench/web",
        host="127.0.0.1",
        port=port,
        workers=(WorkerRoute(id="w", endpoint=f"127.0.0.1:{worker}"),),
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(router.run, facts)
        await router.apply(RoutingTable(routes={route.service: route}))
        while not facts.addresses:
            await anyio.sleep(0.01)
        for record in (folder / "state" / "haproxy").glob("*.json"):
            print(record.read_text(), flush=True)


anyio.run(main, Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
