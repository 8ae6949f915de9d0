"""The commands with what each does in a few words, and which names each takes: light, for help and completion
need no more of a command than this."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SECTIONS: Mapping[str, Mapping[str, str]] = {
    "Begin": {
        "init": "write a first stoker.yaml from what is in a folder",
        "check": "validate files; each error with its line",
        "plan": "what files would change, before anything changes",
        "up": "run the services of ./stoker.yaml until Ctrl-C",
        "doctor": "check what Stoker needs of this box, with remedies",
    },
    "Look": {
        "status": "services, replicas, load, state of the configuration",
        "top": "the same, the GPUs and events live, until q",
        "ui": "how to open the web page",
        "explain": "why a value, a target or a replica is what it is",
        "story": "what happened to a replica and what caused it",
        "logs": "the workers' output",
        "events": "what the daemon did and saw",
        "gpus": "the GPUs: health, what is free, who holds them",
        "instance-types": "what can be asked for, and what fits this box",
        "config": "the configuration in force, all layers as one file",
        "plugins": "the loaded plugins and the parts they bring",
    },
    "Change": {
        "scale": "override a service's bounds: N, or MIN..MAX",
        "set": "override any value by its path, live",
        "unset": "take such an override back",
        "restart": "replace a service's workers one after the other",
        "stop": "hold a service at zero replicas",
        "start": "release it again",
        "reload": "read the files again now",
        "down": "drain and stop all, end the daemon",
    },
    "Try a load": {
        "record": "write down when requests arrive and how long they take",
        "simulate": "replay such a load: who would wait too long, at which cost",
    },
    "Install": {
        "systemd": "the daemon as a service of this box",
        "daemon": "run as systemd runs it",
        "reexec": "replace the running daemon by the installed version",
        "schema": "the JSON Schema of the file, for editors",
        "completion": "the completion script for a shell",
    },
}
"""In the order of help."""

COMMANDS: Mapping[str, str] = {
    name: words for section in SECTIONS.values() for name, words in section.items()
}
"""Each is `command` in the module of its name under `stoker.cli.commands`."""

SERVICES, REPLICAS = "services", "replicas"
NAMED: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(("status", "scale", "restart", "stop", "start", "record"), frozenset({SERVICES})),
    **dict.fromkeys(("explain", "logs"), frozenset({SERVICES, REPLICAS})),
    "story": frozenset({REPLICAS}),
}
"""Of what kinds the names are that a command's first argument may be."""


def names(status: Mapping[str, Any], kinds: frozenset[str], beginning: str) -> list[str]:
    """The names in a status document that begin so. Pure."""
    found: list[str] = []
    known = [service["name"] for service in status["services"]]
    for service in status["services"]:
        key = f"{service['deployment']}/{service['name']}"
        if SERVICES in kinds:
            found.append(service["name"] if known.count(service["name"]) == 1 else key)
        if REPLICAS in kinds:
            found += [replica["id"] for replica in service["replicas"]]
    return [name for name in found if name.startswith(beginning)]
