"""From a start request to the properties of a transient unit. Pure, but for the cores that are near."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stoker.plugin.numa import cores_near
from stoker.plugin.ports import StartRequest

Property = tuple[str, tuple[str, Any]]
"""Name, and signature with value."""
INFINITY = 2**64 - 1
_PREFERRED = 1
"""The kernel's policy "from this node first"."""
SLICE = "stoker.slice"
DAEMON = "stoker.service"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Whom a worker runs as. `dynamic`: a user that exists only as long as the unit."""

    user: str
    group: str = ""
    dynamic: bool = False

    @property
    def privileged(self) -> bool:
        """Whether it is root."""
        return self.user in ("", "root", "0")


def unit_name(instance: str, replica: str, serial: int) -> str:
    """The name of a worker's unit: no two starts share one."""
    return f"{prefix(instance)}{_safe(replica)}.{serial:x}.service"


def prefix(instance: str) -> str:
    """How the names of all units of an instance begin."""
    return f"stoker-{_safe(instance).replace('-', '_')}-"


def object_path(unit: str) -> str:
    """The path of a unit's object on the bus."""
    escaped = "".join(c if c.isalnum() and c.isascii() else f"_{ord(c):02x}" for c in unit)
    return f"/org/freedesktop/systemd1/unit/{escaped}"


def properties(
    request: StartRequest, identity: Identity, *, entry: Sequence[str], order: str, devices: Sequence[str]
) -> list[Property]:
    """All of the unit. `entry` is the command that becomes the worker's, `order` holds its environment."""
    found: list[Property] = [
        ("Description", ("s", f"{request.service} {request.replica} (Stoker)")),
        ("Type", ("s", "exec")),
        ("ExecStart", ("a(sasb)", [(entry[0], list(entry), False)])),
        ("LoadCredential", ("a(ss)", [("order", order)])),
        ("WorkingDirectory", ("s", request.working_dir)),
        ("StandardOutputFileToAppend", ("s", request.log_path)),
        ("StandardErrorFileToAppend", ("s", request.log_path)),
        # By these it is found again.
        ("LogExtraFields", ("aay", [f"{key}={value}".encode() for key, value in _fields(request)])),
        ("Slice", ("s", SLICE)),
        # At a shutdown the daemon drains first; it is systemd's turn only when that is over.
        ("Before", ("as", [DAEMON])),
        # Its exit is kept until it was read, even if no daemon lives meanwhile; then the daemon stops it.
        ("RemainAfterExit", ("b", True)),
        # For what a worker leaves behind; the worker itself was asked before by its own signal.
        ("KillSignal", ("i", 9)),
        ("TimeoutStopUSec", ("t", INFINITY)),
        ("OOMPolicy", ("s", "kill")),
        ("IgnoreSIGPIPE", ("b", False)),
        ("UMask", ("u", 0o022 if request.umask is None else request.umask)),
        ("CPUAccounting", ("b", True)),
        ("MemoryAccounting", ("b", True)),
    ]
    found += _account(identity) + _sandbox(request, identity) + _limits(request)
    return found + _devices(devices) + _near(request.numa_node) + _mps(request)


def _fields(request: StartRequest) -> list[tuple[str, str]]:
    return [("STOKER_ID", request.mark), ("STOKER_LOG", request.log_path)]


def _account(identity: Identity) -> list[Property]:
    found: list[Property] = [("DynamicUser", ("b", True))] if identity.dynamic else []
    found += [("User", ("s", identity.user))] if identity.user else []
    return found + ([("Group", ("s", identity.group))] if identity.group else [])


def _sandbox(request: StartRequest, identity: Identity) -> list[Property]:
    """What no service that serves models needs. It stops where one might break: places for models and caches
    stay writable, code may be written at run time."""
    on = [
        "NoNewPrivileges", "ProtectKernelTunables", "ProtectKernelModules", "ProtectKernelLogs",
        "ProtectClock", "ProtectControlGroups", "ProtectHostname", "RestrictSUIDSGID", "RestrictRealtime",
        "LockPersonality",
    ]  # fmt: skip
    on += ["PrivateTmp"] if request.tmp_dir else []
    found: list[Property] = [(name, ("b", True)) for name in on]
    found += [("ProtectSystem", ("s", "full")), ("SystemCallArchitectures", ("as", ["native"]))]
    if not identity.privileged:
        found += [("CapabilityBoundingSet", ("t", 0)), ("AmbientCapabilities", ("t", 0))]
    return found


def _limits(request: StartRequest) -> list[Property]:
    limits, found = request.limits, list[Property]()
    if limits.nofile is not None:
        found += [("LimitNOFILE", ("t", limits.nofile)), ("LimitNOFILESoft", ("t", limits.nofile))]
    if limits.pids is not None:
        found += [("TasksMax", ("t", limits.pids))]
    if limits.memory is not None:
        found += [("MemoryMax", ("t", limits.memory)), ("MemorySwapMax", ("t", 0))]
    if limits.cpu is not None:
        found += [("CPUQuotaPerSecUSec", ("t", max(1000, round(limits.cpu * 1e6))))]
    return found


def _devices(allowed: Sequence[str]) -> list[Property]:
    """No device but the harmless ones (null, random ...) and these: nobody can even open another's GPU."""
    return [("DevicePolicy", ("s", "closed")), ("DeviceAllow", ("a(ss)", [(path, "rw") for path in allowed]))]


def _near(node: int | None) -> list[Property]:
    """On the cores of its devices' node, its memory first."""
    if node is None:
        return []
    cores = cores_near(node)
    found: list[Property] = [("CPUAffinity", ("ay", _bits(cores)))] if cores else []
    return [*found, ("NUMAPolicy", ("i", _PREFERRED)), ("NUMAMask", ("ay", _bits([node])))]


def _mps(request: StartRequest) -> list[Property]:
    """A private /tmp would hide the pipes by which a sharer has to speak to the operator's MPS."""
    if not request.tmp_dir or not any(given.limits == "mps" for given in request.reservations):
        return []
    pipes = request.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps")
    return [("BindPaths", ("a(ssbt)", [(pipes, pipes, True, 0)]))]


def _bits(numbers: Sequence[int]) -> bytes:
    mask = sum(1 << number for number in numbers)
    return mask.to_bytes(max(numbers) // 8 + 1, "little")


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)[:80]
