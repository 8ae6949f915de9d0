"""The command of a probe, for workers that run on this box: in the worker's directory, as its user, with the
variables that were declared for it. Secrets are not among them."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from typing import Any

import anyio

from stoker.errors import WorkerError
from stoker.model.replica import WorkerHandle
from stoker.model.service import Probe, ServiceSpec
from stoker.model.state import UNIX
from stoker.plugin.ports import Prober, ProbeResult
from stoker.runtime.launcher import account_of, base_path
from stoker.runtime.probing import run_command


class BesideProber:
    """Runs the commands of one replica's probes; asks everything else as `prober` does."""

    def __init__(self, prober: Prober, replica: str, lookup: Callable[[], ServiceSpec | None]) -> None:
        self._prober = prober
        self._replica = replica
        self._lookup = lookup

    async def ask(self, probe: Probe, endpoint: str, handle: WorkerHandle) -> ProbeResult:
        """Put one question within `probe.timeout` seconds."""
        spec = self._lookup()
        if not probe.exec or spec is None:
            return await self._prober.ask(probe, endpoint, handle)
        names = _names(spec, self._replica, endpoint)
        argv = tuple(_filled(word, names) for word in probe.exec)
        try:
            with anyio.fail_after(probe.timeout):
                environ = _environment(spec, names)
                return await run_command(argv, cwd=spec.working_dir, environ=environ, **_account(spec))
        except TimeoutError:
            return ProbeResult(ok=False, detail=f"{argv[0]} gave no answer within {probe.timeout:g} s")
        except (OSError, WorkerError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            return ProbeResult(ok=False, detail=f"cannot run {argv[0]}: {why}")


def _names(spec: ServiceSpec, replica: str, endpoint: str) -> dict[str, str]:
    """What a probe's command may name, as a worker's own may."""
    unix = endpoint.startswith(UNIX)
    return {
        "port": "" if unix else endpoint.rpartition(":")[2],
        "socket": endpoint.removeprefix(UNIX) if unix else "",
        "host": "127.0.0.1",
        "replica": replica,
        "service": spec.name,
    }


def _filled(word: str, names: dict[str, str]) -> str:
    for name, value in names.items():
        word = word.replace(f"{{{name}}}", value)  # other braces are the command's own
    return word


def _environment(spec: ServiceSpec, names: dict[str, str]) -> dict[str, str]:
    account, _ = account_of(spec.user)
    where = {name.upper(): names[name] for name in ("port", "socket") if names[name]}
    return {
        "PATH": base_path(),
        "HOME": account.home,
        "USER": account.user,
        "LANG": "C.UTF-8",
        **dict(spec.envs),
        **where,
        "STOKER_DEPLOYMENT": spec.deployment,
        "STOKER_SERVICE": spec.name,
        "STOKER_REPLICA": names["replica"],
    }


def _account(spec: ServiceSpec) -> dict[str, Any]:
    """Whom it runs as, in subprocess' words; nothing where it is the daemon's own user."""
    if not spec.user or os.geteuid() != 0:
        return {}
    entry = pwd.getpwnam(spec.user)
    groups = os.getgrouplist(spec.user, entry.pw_gid)
    return {"user": entry.pw_uid, "group": spec.group or entry.pw_gid, "extra_groups": groups}
