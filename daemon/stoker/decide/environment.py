"""What a worker sees: its complete environment and its filled command line. Pure.

A worker gets what was declared for it and nothing else. The daemon's own environment is a quarry from
which only the names in `inherit_env` are taken.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from stoker.model.service import ServiceSpec

PLACEHOLDERS = ("port", "socket", "host", "replica", "service", "url:NAME", "devices", "env:NAME")
"""What `{...}` may stand for in `command`."""

_WORD = r"([A-Za-z_]\w*)(?::([\w.-]*))?"
_PLACEHOLDER = re.compile(rf"(?<!\$)\{{(?:\{{({_WORD})\}}|{_WORD})\}}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The user a worker runs as."""

    user: str
    home: str
    shell: str | None = None


def variable_name(name: str) -> str:
    """Return `name` as a variable is written: "hf-token" -> "HF_TOKEN"."""
    return re.sub(r"[^A-Za-z0-9]", "_", name).upper()


def worker_environment(  # noqa: PLR0913 - one page lists everything a worker may see
    spec: ServiceSpec,
    *,
    replica: str,
    port: int,
    socket: str = "",
    mark: str,
    urls: Mapping[str, str],
    secrets: Mapping[str, str],
    daemon_environ: Mapping[str, str],
    account: Account,
    base_path: str,
    cuda: Mapping[str, str],
    notify_socket: str | None,
    tmp_dir: str = "/tmp",
) -> dict[str, str]:
    """Return the whole environment of one worker.

    `urls` and `secrets` are by name (of a dependency, of a secret), `cuda` holds CUDA_VISIBLE_DEVICES and
    CUDA_DEVICE_ORDER. Later layers win: the account's defaults (of an image: its own) < `inherit_env` <
    `envs` < secrets < what is Stoker's own. A file can therefore change PATH or TMPDIR, but not the port,
    the mark or the devices: a worker that believes in another GPU than the one reserved for it would break
    its neighbour. `socket`: the path of the unix socket it is to listen on in place of a port.
    """
    found = {} if spec.container.image else _defaults(account, base_path, tmp_dir)
    found |= {name: daemon_environ[name] for name in spec.inherit_env if name in daemon_environ}
    found |= dict(spec.envs)
    found |= {variable_name(name): value for name, value in secrets.items()}
    # Names that are Stoker's are taken out first, so that a declared STOKER_URL_X cannot pose as an address.
    found = {name: value for name, value in found.items() if not reserved(name)}
    found |= {f"STOKER_URL_{variable_name(name)}": url for name, url in urls.items()}
    found |= {
        **({"SOCKET": socket} if socket else {"PORT": str(port)}),
        "STOKER_DEPLOYMENT": spec.deployment,
        "STOKER_SERVICE": spec.name,
        "STOKER_REPLICA": replica,
        "STOKER_ID": mark,
    }
    if notify_socket is not None and spec.probes.startup is not None and spec.probes.startup.notify:
        found["NOTIFY_SOCKET"] = notify_socket
    return found | dict(cuda)


def _defaults(account: Account, base_path: str, tmp_dir: str) -> dict[str, str]:
    found = {
        "PATH": base_path,
        "HOME": account.home,
        "USER": account.user,
        "LANG": "C.UTF-8",
        "TMPDIR": tmp_dir,
    }
    return found | {"SHELL": account.shell} if account.shell else found


def reserved(name: str) -> bool:
    """Whether a variable is Stoker's own: a declared value for it has no effect."""
    return name.startswith("STOKER_") or name in _RESERVED


_RESERVED = frozenset({"PORT", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "NOTIFY_SOCKET"})


def fill(
    argv: Sequence[str],
    *,
    port: int,
    socket: str = "",
    host: str = "127.0.0.1",
    replica: str,
    service: str,
    urls: Mapping[str, str],
    devices: str,
    environ: Mapping[str, str],
    secrets: Collection[str] = (),
) -> tuple[str, ...]:
    """Return `argv` with its placeholders filled.

    Only `{word}` and `{word:name}` are placeholders and only `{{word}}` is an escape (it gives `{word}`), so
    JSON, a shell's `${HOME}` and other braces stay as they are. `environ` is the worker's own. `secrets` are
    names of secrets, not values: their variables are refused, since everyone on the box can read a command
    line. Raises ValueError saying which placeholder is wrong and what there is.
    """
    plain: Mapping[str, str] = {
        **({"socket": socket} if socket else {"port": str(port)}),
        "host": host,
        "replica": replica,
        "service": service,
        "devices": devices,
    }
    hidden = {variable_name(name) for name in secrets}

    def value(match: re.Match[str]) -> str:
        whole, escaped, word, name = match[0], match[1], match[4], match[5]
        if escaped is not None:
            return f"{{{escaped}}}"
        if name is None and word in plain:
            return plain[word]
        if word == "url" and name is not None:
            return _named(whole, urls, "depends on", name)
        if word == "env" and name is not None:
            if name in hidden:
                raise ValueError(f"{whole} would put a secret on the command line; read {name} in the worker")
            return _named(whole, environ, "has the variables", name)
        known = ", ".join(f"{{{each}}}" for each in PLACEHOLDERS)
        raise ValueError(
            f"{whole} is no placeholder; there are {known}; {{{whole}}} stands for plain {whole}"
        )

    return tuple(_PLACEHOLDER.sub(value, word) for word in argv)


def _named(whole: str, values: Mapping[str, str], relation: str, name: str) -> str:
    if name in values:
        return values[name]
    known = ", ".join(sorted(values)) or "none"
    raise ValueError(f"{whole} cannot be filled: the service {relation} {known}")
