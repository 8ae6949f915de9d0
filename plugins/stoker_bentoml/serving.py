"""Serves one service of a bento on one port, as `bentoml serve` would among many.

Everything that touches BentoML's inner parts to serve stands here. What BentoML reads only from the decorator
(`threads`, `http.proxy_port`, `endpoints`) is effective too, since the configuration in force is laid on the
service object itself before its application is made.
"""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import sys
from typing import Any, NamedTuple

from stoker_bentoml import custom, processes
from stoker_bentoml.guard import Guard
from stoker_bentoml.workspace import Workspace, provide_home

OWN_KEYS = frozenset({"envs", "cmd", "labels", "path_prefix"})
"""Keys of `config_overrides` that are no configuration to BentoML."""
UNBOUNDED = 1e9
"""Seconds: callers leave the time limit to the router of the service they call, which starts its clock when
a worker is there."""


class ServingError(Exception):
    """The service cannot be served as things stand; the message is for people."""


def main(target: str, name: str, port: int) -> None:
    """Serve until told to end. The process ends with 0 after a drain."""
    plan: dict[str, Any] = json.loads(os.environ.pop("STOKER_BENTO"))
    signal.signal(signal.SIGTERM, _end)
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    workspace = Workspace(plan["owner"], plan["files"])
    try:
        provide_home(plan["files"])
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = workspace.metrics
        os.environ.setdefault("BENTOML_RESULT_STORE", workspace.results)
        count = worker_count(plan["config"].get("workers"), plan["cpu"])

        order = Order(target, name, plan, listener, workspace)

        def run(index: int) -> None:
            _serve(order, index)

        if count == 1:
            run(1)
        else:
            processes.keep(count, run)
    except ServingError as error:
        sys.stderr.write(f"{name}: {error}\n")
        sys.exit(1)
    finally:
        workspace.close()


def worker_count(workers: Any, cpu: float | None) -> int:
    """Processes of one replica, as BentoML counts them. `cpu_count` are the cores of the replica, or all that
    this process may use if it asks for no number of them."""
    if isinstance(workers, list):
        return max(1, len(workers))
    if workers == "cpu_count":
        return max(1, math.ceil(cpu)) if cpu else len(os.sched_getaffinity(0))
    return int(workers or 1)


def _end(*_: object) -> None:
    sys.exit(0)


class Order(NamedTuple):
    """What a replica is to do."""

    target: str
    name: str
    plan: dict[str, Any]
    listener: socket.socket
    workspace: Workspace


def _serve(order: Order, index: int) -> None:
    import uvicorn
    from bentoml._internal.container import BentoMLContainer
    from bentoml._internal.context import server_context
    from bentoml._internal.log import configure_server_logging
    from bentoml._internal.service.loader import load

    target, name, plan, listener, workspace = order
    configure_server_logging()
    server_context.worker_index = index
    root: Any = load(target, standalone_load=True)
    services: dict[str, Any] = root.all_services()
    if name not in services:
        raise ServingError(f"the bento {target} has no such service any more; it has {', '.join(services)}")
    service = services[name]
    lay(service, plan["config"])
    addresses: dict[str, str] = plan["calls"]
    for called in addresses:
        call_patiently(services[called].config)
    _check_calls(service, addresses)
    if addresses and os.environ.pop("BENTO_CLOUD_API_KEY", ""):
        # BentoML's client would send it to the services called, in the place of the word they know.
        sys.stderr.write(f"{name}: BENTO_CLOUD_API_KEY is taken away, since it calls services here\n")
    BentoMLContainer.remote_runner_mapping.set(addresses)
    _introduce(server_context, root, service)
    if service.has_custom_command():
        custom.prepare(service)
    workspace.once(plan["life"], lambda: _deploy(service))
    application = Guard(
        service.to_asgi(is_main=service is root),
        plan["word"] if service is not root else "",
        service.path_prefix or "",
    )
    settings = uvicorn.Config(
        application,
        backlog=int(service.config.get("backlog") or 2048),
        log_config=None,
        timeout_keep_alive=75,
        server_header=False,
    )
    uvicorn.Server(settings).run(sockets=[listener])


def lay(service: Any, config: dict[str, Any]) -> None:
    """Lay the configuration in force on the service object, in BentoML's own manner: mappings merge, all else
    replaces."""
    from bentoml._internal.utils import deep_merge

    values = {key: value for key, value in config.items() if key not in OWN_KEYS}
    if isinstance(values.get("workers"), list):
        values["workers"] = len(values["workers"])
    age = values.get("runner_connection", {}).get("max_age")
    if age is not None:
        values["runner_connection"]["max_age"] = float(age)
    # Its look at the services it calls would wake those at zero; whether they run is Stoker's to see.
    service.config.setdefault("runner_probe", {}).setdefault("enabled", False)
    deep_merge(service.config, values)
    if "cmd" in config:
        service.cmd = config["cmd"]


def call_patiently(config: dict[str, Any]) -> None:
    """Set how this process calls a service, in that service's configuration, where BentoML's client looks.

    Every `max_requests` calls, and each `max_age` seconds, that client closes its connections, whatever is
    still under way on them: of several calls at a time some fail. Its reason, to spread over a service's
    workers, is the router's business here.
    """
    config.setdefault("traffic", {})["timeout"] = UNBOUNDED
    config["runner_connection"] = {"max_requests": 2**62, "max_age": UNBOUNDED}


def _check_calls(service: Any, addresses: dict[str, str]) -> None:
    """A service that is called but has no address would be built inside this process, unseen."""
    for dependency in service.dependencies.values():
        inner = dependency.on is not None and not dependency.url and not dependency.deployment
        if inner and dependency.on.name not in addresses:
            raise ServingError(f"it calls {dependency.on.name}, which is new; `stoker reload` makes it known")


def _introduce(context: Any, root: Any, service: Any) -> None:
    """Tell BentoML which service this is, for its logs, metrics and headers."""
    from bentoml._internal.utils.uri import join_paths

    context.service_type = "entry_service" if service is root else "service"
    context.service_name = service.name
    context.service_routes = [join_paths(service.path_prefix, api.route) for api in service.apis.values()]
    context.bento_name = service.bento.tag.name if service.bento else service.name
    context.bento_version = (service.bento.tag.version if service.bento else None) or "not available"


def _deploy(service: Any) -> None:
    """What BentoML does once for a service before it is served: fetch its models, run its own hooks, make the
    store of its tasks."""
    for model in service.bento.info.all_models if service.bento else service.models:
        (model.to_model() if service.bento else model).resolve()
    for name in dir(service.inner):
        member = getattr(service.inner, name)
        if callable(member) and getattr(member, "__bentoml_deployment_hook__", False):
            member()
    if service.needs_task_db():
        from _bentoml_impl.tasks import Sqlite3Store

        Sqlite3Store.init_db(os.environ["BENTOML_RESULT_STORE"])
