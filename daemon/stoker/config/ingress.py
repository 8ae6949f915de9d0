"""Addresses at which clients ask: a service's own, and the front door of one or several deployments. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import replace

from stoker.config.schema_traffic import EndpointSection, IngressSection, TlsSection
from stoker.config.tree import Node, Path, Report, find
from stoker.model.door import Door, DoorRule, Tls
from stoker.model.service import Endpoint, ServiceSpec

EVERYWHERE = frozenset({"0.0.0.0", "::"})


def build_endpoint(section: EndpointSection, path: Path, report: Report, folder: str, home: str) -> Endpoint:
    """A service's address. `folder`: where relative paths begin that no file says."""
    return Endpoint(
        host=section.host,
        port=section.port,
        tls=_tls(section.tls, (*path, "tls"), report, folder, home),
        proxy_protocol=section.proxy_protocol,
        trusted_proxies=tuple(section.trusted_proxies),
    )


def build_door(
    section: IngressSection | None,
    specs: Mapping[str, ServiceSpec],
    names: Sequence[str],
    report: Report,
    *,
    folder: str,
    home: str,
) -> Door | None:
    """The front door of a deployment with its rules, None if it has none. `names`: all services, those with
    faults of their own too."""
    if section is None:
        return None
    rules = _rules(section, specs, names, report)
    return Door(
        host=section.host,
        port=section.port,
        tls=_tls(section.tls, ("ingress", "tls"), report, folder, home),
        proxy_protocol=section.proxy_protocol,
        trusted_proxies=tuple(section.trusted_proxies),
        waiting_page=section.waiting_page,
        rules=tuple(rules),
    )


def join_doors(given: Sequence[tuple[Door, Report]]) -> tuple[Door, ...]:
    """Doors at the same address made one; what they contradict each other about is noted."""
    joined: dict[tuple[str, int], Door] = {}
    for door, report in given:
        first = joined.get((door.host, door.port))
        if first is None:
            joined[door.host, door.port] = door
            continue
        if replace(first, rules=()) != replace(door, rules=()):
            message = f"another deployment opens {door.url} in another way; make the two alike but for routes"
            report.add(("ingress",), message, key=True)
        taken = {(rule.host, rule.path): rule.service for rule in first.rules}
        for rule in door.rules:
            other = taken.get((rule.host, rule.path))
            if other is not None:
                report.add(("ingress",), f"{_words(rule)} leads to {other} already; add a host or a path")
        joined[door.host, door.port] = replace(first, rules=(*first.rules, *door.rules))
    return tuple(joined.values())


def check_door_ports(doors: Sequence[tuple[Door, Report]], specs: Sequence[ServiceSpec]) -> None:
    """A front door at the address of a service."""
    for door, report in doors:
        for spec in specs:
            host, port = spec.endpoint.host, spec.endpoint.port
            if port == door.port and (host == door.host or EVERYWHERE & {host, door.host}):
                report.add(
                    ("ingress", "port"),
                    f"port {port} is already the address of {spec.key}; give one of them another",
                )


def _rules(
    section: IngressSection, specs: Mapping[str, ServiceSpec], names: Sequence[str], report: Report
) -> list[DoorRule]:
    """What the routes say, and the entry service for all else."""
    rules: dict[tuple[str, str], DoorRule] = {}
    for index, route in enumerate(section.routes):
        where = ("ingress", "routes", str(index))
        key = (route.host or "", _prefix(route.path))
        if route.service is None:
            report.add(where, "names no service; add service: NAME", key=True)
        elif route.service not in names:
            report.add((*where, "service"), _unknown(route.service, names, report))
        elif key in rules:
            report.add(
                where,
                f"is for the same requests as the route to {rules[key].service}; remove one of them",
                key=True,
            )
        elif route.service in specs:
            service = specs[route.service].key
            rules[key] = DoorRule(service=service, host=key[0].lower(), path=key[1], strip=route.strip)
    if ("", "/") not in rules and (entry := _entry(section, specs, names, report)) is not None:
        rules["", "/"] = DoorRule(service=entry.key)
    return list(rules.values())


def _entry(
    section: IngressSection, specs: Mapping[str, ServiceSpec], names: Sequence[str], report: Report
) -> ServiceSpec | None:
    if section.entry is not None:
        if section.entry not in names:
            report.add(("ingress", "entry"), _unknown(section.entry, names, report))
        return specs.get(section.entry)
    called = {name for spec in specs.values() for name in spec.depends}
    roots = [name for name in names if name not in called]
    if len(roots) == 1:
        return specs.get(roots[0])
    if not section.routes and names:
        among = ", ".join(roots[:5]) or "none"
        report.add(
            ("ingress",), f"needs an `entry` or `routes`: no single service is at the top ({among})", key=True
        )
    return None


def _prefix(path: str) -> str:
    """A path without a slash at its end: /chat is also /chat/."""
    return path.rstrip("/") or "/"


def _unknown(name: str, names: Sequence[str], report: Report) -> str:
    return f"there is no service {name}" + report.hint(name, list(names))


def _words(rule: DoorRule) -> str:
    return f"{rule.host or 'any host'} {rule.path}"


def _tls(section: TlsSection | None, path: Path, report: Report, folder: str, home: str) -> Tls | None:
    if section is None:
        return None
    missing = [key for key in ("cert", "key") if getattr(section, key) is None]
    if missing:
        report.add(
            path, f"needs `{missing[0]}`, the path of a PEM file, for example tls/{missing[0]}.pem", key=True
        )
        return None
    paths = [absolute_file(find(report.tree, (*path, key)), folder, home) for key in ("cert", "key")]
    return Tls(cert=paths[0], key=paths[1])


def absolute_file(node: Node | None, folder: str, home: str) -> str:
    """The absolute path that a value means: relative to the file that says it, else to `folder`."""
    text = str(node.value) if node is not None else ""
    if text.startswith("~/"):
        text = home + text[1:]
    base = node.source.folder if node is not None and node.source.folder else folder
    return posixpath.normpath(posixpath.join(base, text))
