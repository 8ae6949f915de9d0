"""What a replica runs: exactly one way, with placeholders that can be filled. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection
from typing import Any

from stoker.config.fields import plain
from stoker.config.layers import LAUNCH_WAYS
from stoker.config.schema import ServiceSection
from stoker.config.tree import Path, Report, find, nearest, suggest
from stoker.model.service import BentoService, Command, Launch, PythonTarget

WAYS = ("command", "python", "image")
PLACEHOLDERS = ("port", "socket", "host", "replica", "service", "devices", "url", "env")
_WORD = r"([A-Za-z_]\w*)(?::([\w.-]*))?"
_PLACEHOLDER = re.compile(rf"(?<!\$)\{{(?:\{{{_WORD}\}}|{_WORD})\}}", re.ASCII)
"""`{word}`, `{word:name}` and their escape `{{word}}`. JSON, `${HOME}` and other braces are text."""
_ALWAYS = frozenset({"PATH", "HOME", "USER", "LANG", "TMPDIR", "SHELL", "PORT", "CUDA_VISIBLE_DEVICES"})
"""Variables every worker has without a declaration; besides those that begin with STOKER_."""

_PORTLESS = "this service listens on a unix socket: use {socket}, or take `listen` away"
_NOT_TOLD = ("resources", "envs")
_OF_ROUTER = frozenset({"timeout", "concurrency", "external_queue"})
NO_TIMEOUT = 1e9
"""Seconds."""

_OTHER_FILES = frozenset({"docker", "podman", "ray", "slurm", "systemd"})
"""Backends of Stoker's own whose workers do not share the temporary files of the box."""

Complain = Callable[[str], None]


def variable_name(secret: str) -> str:
    """The variable a secret is given as: hf-token as HF_TOKEN."""
    return re.sub(r"[^A-Za-z0-9]", "_", secret).upper()


def build_launch(section: ServiceSection, report: Report, path: Path, bento: str | None = None) -> Launch:
    """Return the service's launch; complains of none, of two, and of placeholders.

    `bento`: what a service without a launch of its own belongs to ("" if the file does not name it).
    """
    service = _keys(report, path)
    if "command" in service and "python" in service:
        report.add((*path, "python"), "a service has either `command` or `python`, not both", key=True)
    elif not service & LAUNCH_WAYS and bento is not None:
        return BentoService(bento=bento, service=path[-1], config=_overrides(section))
    elif not service & LAUNCH_WAYS and not any(nearest(key, WAYS) for key in _unknown(service)):
        report.add(path, "has nothing to run; add `command:`, `python:` or `image:`", key=True)
    if section.config_overrides:
        report.add((*path, "config_overrides"), "is for services of a bento; this is none", key=True)
    if section.command is not None:
        _check_command(section, report, path)
        return Command(section.command)
    if section.image is not None:
        return Command(())
    return PythonTarget(section.python or "")


def check_listen(section: ServiceSection, launch: Launch, backend: str, report: Report, path: Path) -> None:
    """Complain of a unix socket that the router could not reach."""
    if section.listen == "port":
        return
    if isinstance(launch, BentoService):
        why = "a bento listens on a port"
    elif backend in _OTHER_FILES:
        why = f"workers of backend {backend} have a /tmp of their own; sockets are for backend: process"
    else:
        return
    report.add((*path, "listen"), why)


def _overrides(section: ServiceSection) -> str:
    """What a worker of the bento must be told, as canonical JSON.

    Left out is what Stoker sees to itself (needs, variables, and how requests reach a replica): a change of
    these is no reason to start anew. The router keeps the time, so a worker keeps none.
    """
    config = _said(section.config_overrides)
    for key in _NOT_TOLD:
        config.pop(key, None)
    traffic = config.pop("traffic", None)
    rest = {k: v for k, v in traffic.items() if k not in _OF_ROUTER} if isinstance(traffic, dict) else {}
    config["traffic"] = {**rest, "timeout": NO_TIMEOUT}
    return json.dumps(config, sort_keys=True, separators=(",", ":"))


def _said(value: Any) -> Any:
    """Without nulls, which say nothing, and mappings that are empty without them; references as what they
    spell."""
    if isinstance(value, list):
        return [_said(each) for each in value]
    if not isinstance(value, dict):
        return plain(value)
    below = {key: _said(each) for key, each in value.items() if each is not None}
    return {key: each for key, each in below.items() if each != {}}


def _unknown(keys: set[str]) -> list[str]:
    """Keys that are told to be unknown, `comand` for example: then nothing more is said of what to run."""
    return sorted(keys - ServiceSection.model_fields.keys())[:8]


def _keys(report: Report, path: Path) -> set[str]:
    """The keys that are set (not null) in the mapping at a path."""
    node = find(report.tree, path)
    return {key for key, below in node.mapping.items() if below.value is not None} if node else set()


def _check_command(section: ServiceSection, report: Report, path: Path) -> None:
    where = (*path, "command")
    words = section.command or ()
    for index, word in enumerate(words):
        spot = (*where, str(index))

        def complain(message: str, spot: Path = spot) -> None:
            report.add(spot if _is_list(report, where) else where, message)

        for match in _PLACEHOLDER.finditer(word):
            if match[3] is not None:
                _check_placeholder(match[0], match[3], match[4], section, complain)


def _is_list(report: Report, path: Path) -> bool:
    node = find(report.tree, path)
    return node is not None and isinstance(node.value, list)


def _check_placeholder(
    whole: str, word: str, name: str | None, section: ServiceSection, complain: Complain
) -> None:
    if word not in PLACEHOLDERS:
        close = nearest(word, PLACEHOLDERS)
        hint = (
            f"did you mean {_shape(close)}?" if close else f"there are {', '.join(map(_shape, PLACEHOLDERS))}"
        )
        complain(f"unknown placeholder {whole}; {hint} ({{{whole}}} stands for plain {whole})")
    elif (word in ("url", "env")) != bool(name):
        complain(f"{whole} should be {_shape(word)}")
    elif word == "port" and section.listen == "unix":
        complain(f"there is no {whole}: {_PORTLESS}")
    elif word == "socket" and section.listen == "port":
        complain(f"{whole} needs `listen: unix` in this service; add it")
    elif word == "url" and name not in section.depends:
        complain(f"{whole} needs {name} in `depends`; add it" + _close(name, section.depends))
    elif word == "env" and name is not None:
        _check_variable(whole, name, section, complain)


def _check_variable(whole: str, name: str, section: ServiceSection, complain: Complain) -> None:
    secrets = {variable_name(secret) for secret in section.secrets}
    declared = {*section.envs, *section.inherit_env}
    if name in secrets:
        complain(f"{whole} would show a secret on the command line; read {name} in the program")
    elif name == "PORT" and section.listen == "unix":
        complain(f"there is no PORT: {_PORTLESS}")
    elif name == "SOCKET" and section.listen == "unix":
        return
    elif name not in declared | _ALWAYS and not name.startswith("STOKER_"):
        complain(f"{whole} needs {name} in `envs` or `inherit_env`; add it" + _close(name, declared))


def _shape(word: str) -> str:
    return f"{{{word}:NAME}}" if word in ("url", "env") else f"{{{word}}}"


def _close(name: str | None, names: Collection[str]) -> str:
    hint = suggest(name or "", sorted(names))
    return hint if "did you mean" in hint else ""
