"""The ini files of supervisord and circus. Pure."""

from __future__ import annotations

import configparser
import re
from collections.abc import Mapping
from typing import Any

from stoker.cli.init.draft import Draft, Service, command_of, service_name


def supervisord(text: str, origin: str) -> Draft:
    """`[program:x]` sections as services."""
    services, left_out = [], []
    parser = _parsed(text)
    for section in parser.sections():
        kind, _, name = section.partition(":")
        if kind not in {"program", "fcgi-program"} or not name:
            if kind in {"eventlistener", "include"}:
                left_out.append(f"[{section}]")
            continue
        values, odd = _program(parser[section], name)
        services.append(Service(name=service_name(name), values=values, notes=odd))
    return Draft(origin=origin, services=tuple(services), left_out=tuple(left_out))


def circus(text: str, origin: str) -> Draft:
    """`[watcher:x]` sections as services."""
    services, left_out = [], []
    parser = _parsed(text)
    for section in parser.sections():
        kind, _, name = section.partition(":")
        if kind == "watcher":
            values, odd = _watcher(parser[section])
            if parser.has_section(f"env:{name}"):
                values["envs"] = {key: str(value) for key, value in parser[f"env:{name}"].items()}
            services.append(Service(name=service_name(name), values=values, notes=odd))
        elif kind in {"socket", "plugin"}:
            left_out.append(f"[{section}]: services have addresses of their own")
    return Draft(origin=origin, services=tuple(services), left_out=tuple(left_out))


def _parsed(text: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=False, inline_comment_prefixes=(";",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    return parser


def _program(program: Mapping[str, str], name: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    command = program.get("command", "").replace("%(program_name)s", name).replace("%%", "%")
    notes = []
    if "%(" in command:
        notes.append("a %(...)s of supervisord's is left in the command: say what it stands for")
    values: dict[str, Any] = {"command": command_of(command)}
    _copy(program, values, directory="working_dir", user="user")
    if environment := program.get("environment"):
        pairs = re.findall(r"(\w+)=(?:\"([^\"]*)\"|'([^']*)'|([^,]*))", environment)
        given = {key: (a or b or c).strip().replace("%%", "%") for key, a, b, c in pairs}
        if devices := given.pop("CUDA_VISIBLE_DEVICES", "").replace(" ", ""):
            values["resources"] = {"gpu": len(devices.split(","))}
        if given:
            values["envs"] = given
    _scale(values, program.get("numprocs"))
    _drain(values, program.get("stopsignal"), program.get("stopwaitsecs"))
    if program.get("autostart", "true").strip().lower() in {"false", "no", "0", "off"}:
        notes.append("autostart was off: `stoker stop` holds a service at zero")
    return values, tuple(notes)


def _watcher(watcher: Mapping[str, str]) -> tuple[dict[str, Any], tuple[str, ...]]:
    command = f"{watcher.get('cmd', '')} {watcher.get('args', '')}".strip()
    command = re.sub(r"\(\(circus\.env\.(\w+)\)\)|\$\(circus\.env\.(\w+)\)", r"$\1\2", command)
    notes = []
    if re.search(r"\$\(circus\.|\(\(circus\.|\$WID\b", command):
        notes.append("a word of circus's ($(circus...), $WID) is left in the command: say what it stands for")
    values: dict[str, Any] = {"command": command_of(command)}
    _copy(watcher, values, working_dir="working_dir", uid="user")
    if (files := watcher.get("rlimit_nofile", "").strip()).isdigit():
        values["limits"] = {"nofile": int(files)}
    _scale(values, watcher.get("numprocesses"))
    _drain(values, watcher.get("stop_signal"), watcher.get("graceful_timeout"))
    return values, tuple(notes)


def _copy(found: Mapping[str, str], values: dict[str, Any], **names: str) -> None:
    for theirs, ours in names.items():
        if value := found.get(theirs, "").strip():
            values[ours] = value


def _scale(values: dict[str, Any], count: str | None) -> None:
    if count and count.strip().isdigit() and int(count) > 1:
        values["scaling"] = {"min_replicas": int(count), "max_replicas": int(count)}


def _drain(values: dict[str, Any], name: str | None, seconds: str | None) -> None:
    drain: dict[str, Any] = {}
    if name and (bare := name.strip().upper().removeprefix("SIG")) != "TERM":
        drain["signal"] = f"SIG{bare}" if not bare.isdigit() else int(bare)
    if seconds and re.fullmatch(r"\d+(\.\d+)?", seconds.strip()):
        drain["timeout"] = f"{seconds.strip()}s"
    if drain:
        values["drain"] = drain
