"""A docker compose file: what of it means something without containers. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from stoker.cli.init.draft import Draft, Service, command_of, service_name
from stoker.cli.yaml_out import Reference

NO_HTTP = frozenset(
    {
        "redis",
        "valkey",
        "postgres",
        "mysql",
        "mariadb",
        "mongo",
        "memcached",
        "rabbitmq",
        "kafka",
        "nats",
        "zookeeper",
    }
)
"""Images, by the last part of their names, that a router of HTTP cannot carry."""
_REFERENCE = re.compile(r"\$(?:(?P<plain>\$)|(?P<bare>\w+)|\{(?P<name>\w+)(?P<how>:?[-?])?(?P<rest>[^}]*)\})")
_ASKS = re.compile(r"https?://(?:localhost|127\.0\.0\.1)(?::\d+)?(/[^\s'\"|]*)?")


def draft_of(document: Mapping[str, Any], origin: str) -> Draft:
    """Services that have a command, or an image of somebody's that publishes a port; others are left out."""
    services, left_out = [], []
    found = document.get("services")
    for name, one in found.items() if isinstance(found, Mapping) else ():
        if not isinstance(one, Mapping):
            continue
        command, contained = _command(one), _contained(one)
        if contained and _kind(one) in NO_HTTP:
            left_out.append(f"{name}: {one['image']} speaks no HTTP; keep it where it is")
        elif command is None and not (contained and _published(one.get("ports"))):
            what = one.get("image") or "its Dockerfile"
            left_out.append(f"{name}: its command is inside {what}; write it down to run it here")
        else:
            services.append((str(name), one, command))
    names = {name for name, _, _ in services}
    made = tuple(_service(name, one, command, names) for name, one, command in services)
    return Draft(origin=origin, services=made, left_out=tuple(left_out))


def _contained(one: Mapping[str, Any]) -> bool:
    """Whether the image itself is what runs: nobody's own code, and no command but words for its own."""
    words = one.get("command")
    first = words[0] if isinstance(words, list) and words else words
    own = not words or (isinstance(first, str) and first.lstrip().startswith("-"))
    return bool(one.get("image")) and not one.get("build") and not one.get("entrypoint") and own


def _kind(one: Mapping[str, Any]) -> str:
    return str(one.get("image")).partition("@")[0].rpartition("/")[2].partition(":")[0]


def _service(name: str, one: Mapping[str, Any], command: str | list[str] | None, names: set[str]) -> Service:
    published, contained = _published(one.get("ports")), _contained(one)
    values: dict[str, Any] = {"image": str(one["image"])} if contained else {}
    if command is not None:
        values["command"] = command
    notes = []
    if contained:
        notes += _container(values, one, published)
    elif image := one.get("image"):
        notes.append(f"ran in the image {image}: what it needs must be installed on this box")
    build = one.get("build")
    context = build.get("context") if isinstance(build, Mapping) else build
    if isinstance(context, str) and context not in {".", "./"}:
        values["working_dir"] = context
    if envs := _environment(one.get("environment")):
        values["envs"] = envs
    if depends := [service_name(other) for other in _names(one.get("depends_on")) if other in names]:
        values["depends"] = depends
    if published:
        values["endpoint"] = {"port": published[0]}
        if not contained:
            notes.append(f"listened on {published[1]} in its container: let it listen on {{port}} instead")
    deploy = one.get("deploy")
    _resources(values, deploy if isinstance(deploy, Mapping) else {})
    _health(values, one.get("healthcheck"))
    if grace := one.get("stop_grace_period"):
        values["drain"] = {"timeout": str(grace)}
    return Service(name=service_name(name), values=values, notes=tuple(notes))


def _container(
    values: dict[str, Any], one: Mapping[str, Any], published: tuple[int, str] | None
) -> list[str]:
    """What runs an image as compose did; returns what was left out of it."""
    container: dict[str, Any] = {"network": "bridge"}
    if published:
        container["port"] = int(published[1])
    volumes = [str(volume) for volume in one.get("volumes") or () if not isinstance(volume, Mapping)]
    mounts = [volume for volume in volumes if volume.startswith(("/", "~/"))]
    if mounts:
        container["mounts"] = [Reference(re.sub(r"^~", "${HOME}", mount)) for mount in mounts]
    values["container"] = container
    rest = [volume for volume in volumes if volume not in mounts]
    return [f"left out: the volume {volume}; `container.mounts` takes absolute paths" for volume in rest]


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
        return {str(key): _filled(_text(item)) for key, item in value.items() if item is not None}
    pairs = (str(item).partition("=") for item in value or () if "=" in str(item))
    return {key: _filled(item) for key, _, item in pairs}


def _filled(text: str) -> Reference:
    """The text with compose's references as Stoker's: a variable that is not set is empty there."""

    def said(found: re.Match[str]) -> str:
        if found["plain"]:
            return "$$"
        name, how = found["bare"] or found["name"], found["how"] or ""
        if how.endswith("?"):
            return f"${{{name}}}"
        return f"${{{name}:-{found['rest'] if how.endswith('-') else ''}}}"

    return Reference(_REFERENCE.sub(said, text))


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
    limits = resources.get("limits") if isinstance(resources, Mapping) else None
    if isinstance(limits, Mapping):
        held = {"cpu": _number(limits.get("cpus")), "memory": _size(limits.get("memory"))}
        if given := {key: value for key, value in held.items() if value is not None}:
            values["limits"] = given
    reserved = resources.get("reservations") if isinstance(resources, Mapping) else None
    for device in (reserved.get("devices") if isinstance(reserved, Mapping) else None) or ():
        if isinstance(device, Mapping) and "gpu" in _names(device.get("capabilities")):
            number = device.get("count", 1)
            values["resources"] = {"gpu": number if isinstance(number, int) else 1}


def _number(value: Any) -> float | None:
    return float(value) if re.fullmatch(r"\d+(\.\d+)?", str(value)) else None


def _size(value: Any) -> str | None:
    """Compose's 4G and 512mb are binary, as with docker."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmg])b?", str(value).strip(), re.IGNORECASE)
    return f"{found[1]}{found[2].upper()}i" if found is not None else None


def _health(values: dict[str, Any], check: Any) -> None:
    """The question of a health check, where it asks for a page, and how long a start may take."""
    if not isinstance(check, Mapping):
        return
    startup: dict[str, Any] = {}
    test = check.get("test")
    asked = _ASKS.search(" ".join(map(str, test)) if isinstance(test, list) else str(test))
    if asked is not None:
        startup["http"] = asked[1] or "/"
    if patience := check.get("start_period"):
        startup["timeout"] = str(patience)
    if startup:
        values["probes"] = {"startup": startup}
