"""The `ray` driver: workers run on the nodes of a cluster, each below a detached actor."""

from __future__ import annotations

import json
import os
import signal
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import anyio

from stoker.errors import StokerError, WorkerError
from stoker.model.load import Usage
from stoker.model.node import Node
from stoker.model.replica import ExitStatus, WorkerHandle
from stoker.plugin.local import check_strings, open_log
from stoker.plugin.ports import FoundWorker, PluginContext, ProbeResult, StartRequest
from stoker.plugin.processes import boot_id
from stoker_ray.link import ActorLostError, Link, RayLostError

NAME = "ray"
KIND = "accelerator_type:"
"""Before the name of a GPU among a node's resources."""
PATIENCE = 30.0
"""Seconds Ray gets to find a place, before the start counts as failed and is tried again."""
PAUSE = 1.0
"""Seconds until a bridge that has died under a wait is asked again."""
FINDING = 5.0
"""Seconds a daemon that takes over waits for the cluster; it goes on without, and asks again."""
FOREIGN, NODES = 1 << 22, 500
"""No process of this box has a number above the first (the kernel's PID_MAX_LIMIT). Its product with the
second is still one that the kernel's calls take."""
_SENT = (
    "replica", "service", "mark", "argv", "environ", "working_dir", "log_path", "endpoint", "umask",
    "tmp_dir",
)  # fmt: skip


class RayDriver:
    """Runs workers as actors of the cluster at the option `address`; see `stoker.plugin.ports.WorkerDriver`.

    Ray decides where, and on which GPUs. The handle of a worker on another box has a number that no process
    of this one can have. Every start has a name of its own: what a node that was cut off still runs is found
    under another one and never served again.
    """

    def __init__(self, context: PluginContext) -> None:
        address = str(context.options.get("address", "auto"))
        log = os.path.join(context.state_dir, "ray", "bridge.log")
        environ = {**os.environ, **context.environ, **context.options.get("environ", {})}
        self._link = Link(address, f"stoker-{context.instance}", log, environ)
        self._log = context.log
        self._patience = float(context.options.get("patience", PATIENCE))
        self._finding = float(context.options.get("finding", FINDING))
        self._measured: dict[str, tuple[float, float]] = {}

    async def start(self, request: StartRequest) -> WorkerHandle:
        """Have Ray place it, and wait until it runs. Raises WorkerError."""
        check_strings(request)
        if request.user is not None or request.group is not None:
            raise WorkerError(
                f"{request.service}: a worker on Ray runs as the cluster's user; remove `user` and `group`",
                permanent=True,
            )
        os.close(open_log(request.log_path))
        base = os.stat(request.log_path).st_size
        name = f"{request.replica}:{time.monotonic_ns():x}"
        with anyio.CancelScope(shield=True):
            try:
                order = await self._order(request)
                order["log_base"] = base
                found = await self._link.ask(
                    "start", name=name, order=order, needs=needs(request), patience=self._patience
                )
            except ActorLostError as error:
                raise WorkerError(f"{request.service}: the actor has died at once: {error}") from error
            except StokerError as error:
                raise WorkerError(f"{request.service}: {error}") from error
        if "error" in found:
            raise WorkerError(str(found["error"]), permanent=bool(found["permanent"]))
        return self._handle(found, name, request.log_path)

    async def wait(self, handle: WorkerHandle) -> ExitStatus:
        """Return when its tree is gone, or its node is. Cancelling leaves the worker as it is. While the
        cluster is away nobody knows, and nothing could be started in its place: its probes tell whether it
        serves."""
        name = dict(handle.extra)["name"]
        while True:
            try:
                status = await self._link.ask("wait", name=name)
            except ActorLostError as error:
                self._measured.pop(name, None)
                return ExitStatus(detail=f"Ray has lost it: {error}")
            except RayLostError:
                await anyio.sleep(PAUSE)
            except StokerError as error:
                return ExitStatus(detail=str(error))
            else:
                self._measured.pop(name, None)
                return ExitStatus(
                    code=status["code"], signal=status["signal"], detail=str(status.get("detail", ""))
                )

    async def signal(self, handle: WorkerHandle, signum: int) -> None:
        """Send a signal to the main process. Gone is no error."""
        try:
            await self._link.ask("signal", name=dict(handle.extra)["name"], number=int(signum))
        except RayLostError as error:
            raise WorkerError(str(error)) from error
        except StokerError:
            return  # its actor is gone, and with it the worker

    async def kill(self, handle: WorkerHandle) -> None:
        """SIGKILL to the whole tree, by its guard."""
        await self.signal(handle, signal.SIGKILL)

    async def find(self) -> Sequence[FoundWorker]:
        """Workers of this instance on all nodes. Raises WorkerError while the cluster is away."""
        try:
            with anyio.fail_after(self._finding):
                found = await self._link.ask("find")
        except TimeoutError:
            words = f"the Ray cluster has not answered within {self._finding:g} s"
            raise WorkerError(words) from None
        except StokerError as error:
            raise WorkerError(str(error)) from error
        return [
            FoundWorker(handle=self._handle(one, one["name"], one["log_path"]), mark=one["mark"])
            for one in found
        ]

    async def recover(self, found: FoundWorker) -> WorkerHandle:
        """Take a found worker over, and its output from where the daemon before has left it."""
        extra = dict(found.handle.extra)
        await self._link.ask("recover", name=extra["name"], log=extra["log"], base=int(extra["base"]))
        return found.handle

    async def usage(self, handles: Sequence[WorkerHandle]) -> Mapping[int, Usage]:
        """CPU and memory of each tree; at the first asking the mean over the worker's life."""
        names = {dict(handle.extra)["name"]: handle.pid for handle in handles}
        try:
            measured = await self._link.ask("measure", names=list(names))
        except StokerError:
            return {}
        found, now = {}, anyio.current_time()
        for name, (seconds, memory, age) in measured.items():
            before, since = self._measured.get(name, (0.0, now - age))
            self._measured[name] = seconds, now
            cpu = max(0.0, seconds - before) / (now - since) if now > since else 0.0
            found[names[name]] = Usage(cpu=cpu, memory=memory, at=now)
        return found

    async def nodes(self) -> Sequence[Node]:
        """The nodes of the cluster; of an address that came back only as it is now."""
        try:
            told = await self._link.ask("nodes")
        except StokerError as error:
            raise WorkerError(str(error)) from error
        found: dict[str, Node] = {}
        for one in sorted(told, key=lambda one: bool(one["alive"])):
            found[f"{one['address']}{one['id'] if one['alive'] else ''}"] = node_of(one)
        alive = {node.address for node in found.values() if node.alive}
        return [node for node in found.values() if node.alive or node.address not in alive]

    async def ask(self, handle: WorkerHandle, argv: Sequence[str]) -> ProbeResult:
        """Run a probe's command on the worker's node."""
        try:
            code, last = await self._link.ask("ask", name=dict(handle.extra)["name"], argv=list(argv))
        except StokerError as error:
            return ProbeResult(ok=False, detail=str(error)[:200])
        return ProbeResult(ok=code == 0, detail=f"{argv[0]} gave exit code {code}: {last}")

    async def aclose(self) -> None:
        """Let the bridge end; workers go on."""
        await self._link.close()

    async def _order(self, request: StartRequest) -> dict[str, Any]:
        """What the node must know. Addresses of services that listen everywhere become this box's own."""
        order: dict[str, Any] = {name: getattr(request, name) for name in _SENT}
        if not self._link.box_address:
            await self._link.ask("nodes")
        here = f"//{self._link.box_address}:"
        order["argv"] = [word.replace("//0.0.0.0:", here) for word in request.argv]
        order["environ"] = {
            name: value.replace("//0.0.0.0:", here) if name.startswith("STOKER_URL_") else value
            for name, value in request.environ.items()
        }
        order["limits"] = asdict(request.limits)
        return order

    def _handle(self, found: Mapping[str, Any], name: str, log: str) -> WorkerHandle:
        pid, where = int(found["pid"]), str(found["boot_id"])
        if where != boot_id():
            pid += FOREIGN * (1 + zlib.crc32(where.encode()) % (NODES - 1))  # the same for every daemon
        return WorkerHandle(
            driver=NAME,
            pid=pid,
            start_time=int(found["start_time"]),
            boot_id=where,
            extra=(("name", name), ("log", log), ("base", str(found["log_base"]))),
            endpoint=str(found["endpoint"]),
        )


def node_of(told: Mapping[str, Any]) -> Node:
    """A node in our words; what Ray counts for itself is left out. Pure."""
    amounts = dict(told["resources"])
    kinds = [name.removeprefix(KIND) for name in amounts if name.startswith(KIND)]
    own = {"CPU", "GPU", "memory", "object_store_memory"}
    return Node(
        address=told["address"],
        alive=bool(told["alive"]),
        gpus=float(amounts.get("GPU", 0)),
        cpu=float(amounts.get("CPU", 0)),
        memory=int(amounts.get("memory", 0)),
        accelerator=", ".join(sorted(kinds)),
        custom={name: value for name, value in amounts.items() if name not in own and ":" not in name},
    )


def needs(request: StartRequest) -> dict[str, Any]:
    """What Ray is asked for, in its own words. Pure."""
    wanted = request.elsewhere
    if wanted is None:
        return {"num_cpus": 0, "num_gpus": 0, "resources": {}}
    found: dict[str, Any] = {
        "num_cpus": wanted.resources.cpu or 0,
        "num_gpus": wanted.resources.gpu or 0,
        "resources": dict(wanted.custom),
        "scheduling_strategy": wanted.strategy,
    }
    if wanted.resources.memory:
        found["memory"] = wanted.resources.memory
    accelerator = wanted.accelerator or wanted.resources.gpu_type
    if accelerator:
        found["accelerator_type"] = accelerator.upper()
    if wanted.runtime_env:
        found["runtime_env"] = json.loads(wanted.runtime_env)
    return found
