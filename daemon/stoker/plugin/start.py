"""What a driver is given to start a worker: by itself, for programs that load little of Stoker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from stoker.model.device import Reservation
from stoker.model.service import Container, Elsewhere, Limits, ServiceKey


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRequest:
    """Everything a driver needs to start one worker; all decided. `environ` is complete: the worker gets
    it and nothing else. `mark` is the value of STOKER_ID, by which `find` recognises the worker."""

    replica: str
    service: ServiceKey
    mark: str
    argv: tuple[str, ...]
    environ: Mapping[str, str] = field(repr=False)
    working_dir: str
    log_path: str
    endpoint: str
    """host:port the worker is to listen on, or unix:PATH of a socket in `tmp_dir`."""
    user: str | None = None
    group: str | None = None
    """In place of the user's own first group."""
    umask: int | None = None
    """None: 0o022, whatever the daemon's own is."""
    tmp_dir: str = ""
    """A directory for this worker's temporary files alone, which `TMPDIR` names: the driver makes it and
    removes it with the worker. A socket of `endpoint` is in it. "": none, because the service says itself
    where they go."""
    limits: Limits = field(default_factory=Limits)
    """A driver that cannot hold one of them says so once (`PluginContext.log`) and starts the worker."""
    reservations: tuple[Reservation, ...] = ()
    container: Container = field(default_factory=Container)
    """With an image `argv` may be empty and `environ` and `working_dir` lie over what the image says."""
    elsewhere: Elsewhere | None = None
    """For drivers that find the place themselves. `endpoint` then says only the port; `{host}` in `argv`
    stands for the address of the node, and 0.0.0.0 in addresses of services for
    that of this box. The handle says where the worker listens."""
    numa_node: int | None = None
    """The NUMA node that all its devices are on: its cores and memory are the near ones. A preference."""
    preload: tuple[str, ...] = ()
    """Python modules that a process may have imported from which the worker is then forked. A preference: a
    driver that cannot do so for this command says why and executes it."""

    def redacted(self) -> str:
        """The command line for logs: never the environment."""
        return " ".join(self.argv)
