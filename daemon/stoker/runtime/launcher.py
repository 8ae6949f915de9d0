"""From a spec and a placement to a `StartRequest`: the I/O around `decide.environment`.

Reads accounts and secrets, takes a port. Everything that can be wrong with a start before there is a
process is found here and raised as WorkerError.
"""

from __future__ import annotations

import os
import pwd
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from stoker.decide.environment import Account, fill, worker_environment
from stoker.decide.placement import cuda_environment
from stoker.errors import WorkerError
from stoker.model.action import StartReplica
from stoker.model.service import BentoService, Command, ServiceKey, ServiceSpec
from stoker.plugin.ports import StartRequest
from stoker.runtime.addresses import WorkerPorts
from stoker.runtime.secret_files import SecretFiles

TMP = "/tmp"
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def base_path() -> str:
    """The PATH every worker starts from: the interpreter Stoker is installed in, then the system's."""
    return f"{Path(sys.executable).parent}:{SYSTEM_PATH}"


class Launcher:
    """Prepares starts for one daemon. `url` gives the address of a service by key; `open_notify` opens the
    NOTIFY_SOCKET of a replica that runs as a uid."""

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
    ) -> None:
        self._instance = instance
        self._logs = Path(state_dir) / "logs"
        self._environ = environ
        self._url = url
        self._ports = ports
        self._open_notify = open_notify
        self._secrets = secrets or SecretFiles(state_dir, environ)

    def log_path(self, service: ServiceKey, replica: str) -> str:
        """Where that replica's output goes."""
        return str(self._logs / service / f"{replica}.log")

    def prepare(self, spec: ServiceSpec, action: StartReplica) -> StartRequest:
        """Everything a driver needs. Takes a port: call `release` when the worker is gone.

        Raises WorkerError naming what is missing (secret, account, variable).
        """
        secrets = {name: self._secrets.read(name, spec.deployment, spec.name) for name in spec.secrets}
        account, uid = account_of(spec.user)
        port = self._ports.take()
        mark = f"{self._instance}:{spec.key}:{action.replica}"
        urls = {name: self._url(f"{spec.deployment}/{name}") for name in spec.depends}
        startup = spec.probes.startup
        notify = None
        if startup is not None and startup.notify and self._open_notify is not None:
            notify = self._open_notify(action.replica, uid)
        cuda = cuda_environment(action.reservations)
        tmp_dir = f"{TMP}/stoker-{self._instance}/{action.replica}"
        try:
            environ = worker_environment(
                spec,
                replica=action.replica,
                port=port,
                mark=mark,
                urls=urls,
                secrets=secrets,
                daemon_environ=self._environ,
                account=account,
                base_path=base_path(),
                cuda=cuda,
                notify_socket=notify,
                tmp_dir=tmp_dir,
            )
            argv = fill(
                self._argv(spec),
                port=port,
                replica=action.replica,
                service=spec.name,
                urls=urls,
                devices=cuda["CUDA_VISIBLE_DEVICES"],
                environ=environ,
                secrets=spec.secrets,
            )
        except ValueError as error:
            self._ports.give_back(port)
            raise WorkerError(f"cannot start {spec.name}: {error}", permanent=True) from error
        return StartRequest(
            replica=action.replica,
            service=spec.key,
            mark=mark,
            argv=argv,
            environ=environ,
            working_dir=spec.working_dir,
            log_path=self.log_path(spec.key, action.replica),
            endpoint=f"127.0.0.1:{port}",
            user=spec.user,
            group=spec.group,
            umask=spec.umask,
            tmp_dir=tmp_dir if environ["TMPDIR"] == tmp_dir else "",
            limits=spec.limits,
            reservations=action.reservations,
        )

    def adopt(self, endpoint: str) -> None:
        """Remember the port of a worker that already runs."""
        self._ports.adopt(_port(endpoint))

    def release(self, endpoint: str) -> None:
        """Give the port of a worker that is gone back."""
        if endpoint:
            self._ports.give_back(_port(endpoint))

    def forget_logs(self, service: ServiceKey, keep: int = 20) -> None:
        """Keep the newest `keep` logs of a service and remove older ones."""
        folder = self._logs / service
        if folder.is_dir():
            found = sorted(folder.glob("*.log"), key=lambda path: path.stat().st_mtime, reverse=True)
            for path in found[keep:]:
                path.unlink(missing_ok=True)

    def _argv(self, spec: ServiceSpec) -> tuple[str, ...]:
        if isinstance(spec.launch, Command):
            return spec.launch.argv
        if isinstance(spec.launch, BentoService):
            raise WorkerError(f"{spec.key}: this version cannot launch bentos yet", permanent=True)
        server = (sys.executable, "-m", "stoker.asgi")
        return (*server, spec.launch.target, "--host", "127.0.0.1", "--port", "{port}")


def _port(endpoint: str) -> int:
    return int(endpoint.rpartition(":")[2])


def account_of(user: str | None) -> tuple[Account, int]:
    """The account and uid that workers of `user` run as (None: the daemon's own). Raises WorkerError."""
    try:
        entry = pwd.getpwnam(user) if user else pwd.getpwuid(os.getuid())
    except KeyError:
        if user is None:
            return Account(user=str(os.getuid()), home="/"), os.getuid()
        message = f"there is no user {user!r} on this box; create it or change `user:`"
        raise WorkerError(message, permanent=True) from None
    return Account(user=entry.pw_name, home=entry.pw_dir), entry.pw_uid
