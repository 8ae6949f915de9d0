"""A docker compose file: what of it means something without containers. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from stoker.cli.init.draft import Draft, Service, command_of, service_name


def draft_of(document: Mapping[str, Any], origin: str) -> Draft:
    """Services that have a command; the others are an image's own business and are left out."""
    services, left_out = [], []
    found = document.get("services")
    for name, one in found.items() if isinstance(found, Mapping) else ():
        if not isinstance(one, Mapping):
            continue
        command = _command(one)
        if command is None:
            what = one.get("image") or "its Dockerfile"
            left_out.append(f"{name}: its command is inside {what}; write it down to run it here")
        else:
            services.append((str(name), one, command))
    names = {name for name, _, _ in services}
    made = tuple(_service(name, one, command, names) for name, one, command in services)
    return Draft(origin=origin, services=made, left_out=tuple(left_out))


def _service(name: str, one: Mapping[str, Any], command: str | list[str], names: set[str]) -> Service:
    values: dict[str, Any] = {"command": command}
    notes = []
    if image := one.get("image"):
        notes.append(f"ran in the image {image}: what it needs must be installed on this box")
    build = one.get("build")
    context = build.get("context") if isinstance(build, Mapping) else build
    if isinstance(context, str) and context not in {".", "./"}:
        values["working_dir"] = context
    if envs := _environment(one.get("environment")):
        values["envs"] = envs
    if depends := [service_name(other) for other in _names(one.get("depends_on")) if other in names]:
        values["depends"] = depends
    if port := _published(one.get("ports")):
        values["endpoint"] = {"port": port[0]}
        notes.append(f"listened on {port[1]} in its container: let it listen on {{port}} instead")
    deploy = one.get("deploy")
    _resources(values, deploy if isinstance(deploy, Mapping) else {})
    if grace := one.get("stop_grace_period"):
        values["drain"] = {"timeout": str(grace)}
    return Service(name=service_name(name), values=values, notes=tuple(notes))


def _command(one: Mapping[str, Any]) -> str | list[str] | None:
    parts: list[str] = []
    for key in ("entrypoint", "command"):
        value = one.get(key)
        if isinstance(value, str):
            parts.append(value)
        elif isinstance(value, list):
            parts.append(shlex.join(str(item) for item in value))
    line = " ".join(parts).replace("$$", "$")
    return command_of(line) if line.strip() else None


def _environment(value: Any) -> dict[str, str]:
    if isinstance(value, Mapping):
        return {str(key): _text(item) for key, item in value.items() if item is not None}
    pairs = (str(item).partition("=") for item in value or () if "=" in str(item))
    return {key: item for key, _, item in pairs}


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _names(value: Any) -> list[str]:
    return [str(name) for name in value or ()]


def _published(ports: Any) -> tuple[int, str] | None:
    for port in ports or ():
        if isinstance(port, Mapping):
            host, inner = str(port.get("published", "")), str(port.get("target", ""))
        else:
            *_, host, inner = ["", *str(port).partition("/")[0].split(":")]
        if host.isdigit() and 0 < int(host) < 65536:
            return int(host), inner
    return None


def _resources(values: dict[str, Any], deploy: Mapping[str, Any]) -> None:
    count = deploy.get("replicas")
    if isinstance(count, int) and count > 1:
        values["scaling"] = {"min_replicas": count, "max_replicas": count}
    resources = deploy.get("resources")
    reserved = resources.get("reservations") if isinstance(resources, Mapping) else None
    for device in (reserved.get("devices") if isinstance(reserved, Mapping) else None) or ():
        if isinstance(device, Mapping) and "gpu" in _names(device.get("capabilities")):
            number = device.get("count", 1)
            values["resources"] = {"gpu": number if isinstance(number, int) else 1}
