"""From a spec and a placement to a `StartRequest`: the I/O around `decide.environment`.

Reads accounts and secrets, takes a port. Everything that can be wrong with a start before there is a
process is found here and raised as WorkerError.
"""

from __future__ import annotations

import itertools
import os
import pwd
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

from stoker.decide.environment import Account, fill, worker_environment
from stoker.decide.placement import cuda_environment, numa_node_of
from stoker.errors import WorkerError
from stoker.model.action import StartReplica
from stoker.model.service import BentoService, Command, PythonTarget, ServiceKey, ServiceSpec
from stoker.model.state import UNIX
from stoker.plugin.ports import Application, ApplicationCommand, ApplicationStart, StartRequest
from stoker.runtime.addresses import WorkerPorts
from stoker.runtime.secret_files import SecretFiles

TMP = "/tmp"
_LONGEST_SOCKET = 107
"""Bytes of its path that the kernel takes."""
SERVER = "stoker.asgi"
"""The module that serves an application, run as a program."""
MPS_LIMIT, MPS_PIPE = "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT", "CUDA_MPS_PIPE_DIRECTORY"
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


_AS_DECLARED = ("container", "elsewhere", "working_dir", "user", "group", "umask", "limits")
"""Fields of a spec that a driver is given as they are."""


def base_path() -> str:
    """The PATH every worker starts from: the interpreter Stoker is installed in, then the system's."""
    return f"{Path(sys.executable).parent}:{SYSTEM_PATH}"


class Launcher:
    """Prepares starts for one daemon. `url` gives the address of a service by key; `open_notify` opens the
    NOTIFY_SOCKET of a replica that runs as a uid; `application` knows the projects of a kind, if any does."""

    def __init__(
        self,
        *,
        instance: str,
        state_dir: str,
        environ: Mapping[str, str],
        url: Callable[[ServiceKey], str],
        ports: WorkerPorts,
        open_notify: Callable[[str, int], str] | None = None,
        secrets: SecretFiles | None = None,
        application: Callable[[str], Application | None] = lambda name: None,
    ) -> None:
        self._instance = instance
        self._logs = Path(state_dir) / "logs"
        self._starts = itertools.count(1)
        self._environ = environ
        self._url = url
        self._ports = ports
        self._open_notify = open_notify
        self._application = application
        self._secrets = secrets or SecretFiles(state_dir, environ)

    def log_path(self, service: ServiceKey, replica: str) -> str:
        """Where that replica's output goes."""
        return str(self._logs / service / f"{replica}.log")

    def prepare(self, spec: ServiceSpec, action: StartReplica) -> StartRequest:
        """Everything a driver needs. Takes a port: call `release` when the worker is gone.

        Raises WorkerError naming what is missing (secret, account, variable).
        """
        secrets = {name: self._secrets.read(name, spec.deployment, spec.name) for name in spec.secrets}
        account, uid = account_of(None if spec.container.image else spec.user)
        mark = f"{self._instance}:{spec.key}:{action.replica}"
        urls = self._urls(spec)
        cuda = self._cuda(spec, action)
        tmp_dir = f"{TMP}/stoker-{self._instance}/{action.replica}.{next(self._starts)}"
        unix = spec.listen == "unix"
        socket = _socket(spec, tmp_dir) if unix else ""
        port = 0 if unix else self._ports.take()
        inside = spec.container.port or port
        try:
            command = self._command(spec, ApplicationStart(replica=action.replica, port=inside, urls=urls))
            environ = worker_environment(
                spec,
                replica=action.replica,
                port=inside,
                socket=socket,
                mark=mark,
                urls=urls,
                secrets=secrets,
                daemon_environ=self._environ,
                account=account,
                base_path=base_path(),
                cuda=cuda,
                notify_socket=self._notify_socket(spec, action.replica, uid),
                tmp_dir=tmp_dir,
            )
            argv = fill(
                command.argv,
                port=inside,
                socket=socket,
                host=host_of(spec),
                replica=action.replica,
                service=spec.name,
                urls=urls,
                devices=cuda["CUDA_VISIBLE_DEVICES"],
                environ=environ,
                secrets=spec.secrets,
            )
        except WorkerError:
            self._ports.give_back(port)
            raise
        except ValueError as error:
            self._ports.give_back(port)
            raise WorkerError(f"cannot start {spec.name}: {error}", permanent=True) from error
        return StartRequest(
            **{name: getattr(spec, name) for name in _AS_DECLARED},
            replica=action.replica,
            service=spec.key,
            mark=mark,
            argv=argv,
            environ={**environ, **command.environ},
            log_path=self.log_path(spec.key, action.replica),
            endpoint=f"{UNIX}{socket}" if unix else f"127.0.0.1:{port}",
            tmp_dir=tmp_dir if unix or environ.get("TMPDIR") == tmp_dir else "",
            reservations=action.reservations,
            numa_node=numa_node_of(spec.resources, action.reservations),
            preload=_preload(spec),
        )

    def adopt(self, endpoint: str) -> None:
        """Remember the port of a worker that already runs."""
        if not endpoint.startswith(UNIX):
            self._ports.adopt(_port(endpoint))

    def release(self, endpoint: str) -> None:
        """Give the port of a worker that is gone back."""
        if endpoint and not endpoint.startswith(UNIX):
            self._ports.give_back(_port(endpoint))

    def _cuda(self, spec: ServiceSpec, action: StartReplica) -> dict[str, str]:
        cuda = cuda_environment(action.reservations, pin=spec.pin)
        if MPS_LIMIT in cuda and MPS_PIPE in self._environ:
            cuda[MPS_PIPE] = self._environ[MPS_PIPE]
        return cuda

    def _notify_socket(self, spec: ServiceSpec, replica: str, uid: int) -> str | None:
        startup = spec.probes.startup
        if startup is None or not startup.notify or self._open_notify is None:
            return None
        return self._open_notify(replica, uid)

    def _urls(self, spec: ServiceSpec) -> dict[str, str]:
        """The stable addresses of the services it depends on or calls, by name."""
        calls = spec.launch.calls if isinstance(spec.launch, BentoService) else ()
        urls = {name: self._url(f"{spec.deployment}/{name}") for name in (*spec.depends, *calls)}
        if spec.container.network == "bridge":
            return {name: _seen_from_a_bridge(url) for name, url in urls.items()}
        return urls

    def _command(self, spec: ServiceSpec, start: ApplicationStart) -> ApplicationCommand:
        if isinstance(spec.launch, Command):
            return ApplicationCommand(argv=spec.launch.argv)
        if isinstance(spec.launch, BentoService):
            application = self._application("bento")
            if application is None:
                message = f"{spec.key}: the plugin that serves bentos is not loaded; see `stoker plugins`"
                raise WorkerError(message, permanent=True)
            return application.command(spec, start)
        server = (sys.executable, "-m", SERVER)
        where = (
            ("--socket", "{socket}") if spec.listen == "unix" else ("--host", "{host}", "--port", "{port}")
        )
        argv = (*server, spec.launch.target, *where)
        return ApplicationCommand(argv=argv)


def _preload(spec: ServiceSpec) -> tuple[str, ...]:
    """What to import before a replica is forked: the modules asked for, and what serves an application."""
    served = spec.preload and isinstance(spec.launch, PythonTarget)
    return (*spec.preload, SERVER) if served else spec.preload


def host_of(spec: ServiceSpec) -> str:
    """The address that a worker is to listen on. One that is placed elsewhere learns it there."""
    if spec.elsewhere is not None:
        return "{host}"
    return "0.0.0.0" if spec.container.network == "bridge" else "127.0.0.1"


def _seen_from_a_bridge(url: str) -> str:
    """The address of a service on this box as a container in a network of its own has to call it."""
    for host in ("127.0.0.1", "localhost", "0.0.0.0"):
        url = url.replace(f"//{host}:", "//host.containers.internal:", 1)
    return url


def _socket(spec: ServiceSpec, folder: str) -> str:
    """Where a worker is to listen: among its own files, which no other user may enter. Raises WorkerError."""
    path = f"{folder}/http"
    if len(os.fsencode(path)) > _LONGEST_SOCKET:
        message = (
            f"cannot start {spec.key}: {path} is too long for a unix socket; give the service a shorter name"
        )
        raise WorkerError(message, permanent=True)
    return path


def _port(endpoint: str) -> int:
    return int(endpoint.rpartition(":")[2])


def account_of(user: str | None) -> tuple[Account, int]:
    """The account and uid that workers of `user` run as (None: the daemon's own). Raises WorkerError."""
    if not user:
        return _own_account()
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        message = f"there is no user {user!r} on this box; create it or change `user:`"
        raise WorkerError(message, permanent=True) from None
    return Account(user=entry.pw_name, home=entry.pw_dir), entry.pw_uid


@cache
def _own_account() -> tuple[Account, int]:
    """The daemon's own: looked up once, a start does not wait for a directory service."""
    try:
        entry = pwd.getpwuid(os.getuid())
    except KeyError:
        return Account(user=str(os.getuid()), home="/"), os.getuid()
    return Account(user=entry.pw_name, home=entry.pw_dir), entry.pw_uid
