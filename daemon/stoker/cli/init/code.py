"""Python projects: bentos, and ASGI applications found by reading their source, never by running it. Pure."""

from __future__ import annotations

import ast
from collections.abc import Mapping

from stoker.cli.init.draft import Draft, Service, service_name

APPLICATIONS = {"FastAPI", "Starlette", "Quart", "Litestar", "Sanic", "Robyn", "Falcon"}


def bento(text: str, module: str) -> str | None:
    """`module:Class` of the last service of BentoML's in that source: the one that depends on the others."""
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return None
    found = [node.name for node in tree.body if isinstance(node, ast.ClassDef) and _is_bento(node)]
    return f"{module}:{found[-1]}" if found else None


def _is_bento(node: ast.ClassDef) -> bool:
    for decorator in node.decorator_list:
        call = decorator.func if isinstance(decorator, ast.Call) else decorator
        if isinstance(call, ast.Attribute) and call.attr == "service" and _name(call.value) == "bentoml":
            return True
    return False


def application(text: str, module: str) -> str | None:
    """`module:name` of an ASGI application that the source assigns, or declares with `@stoker.service`."""
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return None
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            made = _name(node.value.func).rpartition(".")[2]
            if made in APPLICATIONS and isinstance(node.targets[0], ast.Name):
                return f"{module}:{node.targets[0].id}"
        if isinstance(node, ast.AsyncFunctionDef) and [arg.arg for arg in node.args.args] == [
            "scope", "receive", "send",
        ]:  # fmt: skip
            return f"{module}:{node.name}"
    return None


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_name(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def bento_draft(target: str, origin: str) -> Draft:
    """A whole BentoML project: its services and their values are in its code."""
    return Draft(origin=origin, top={"bento": target})


def applications_draft(targets: Mapping[str, str], origin: str) -> Draft:
    """One service for each application."""
    services = tuple(
        Service(
            name=service_name(name),
            values={
                "python": target,
                "scaling": {"min_replicas": 1, "max_replicas": 4},
                "traffic": {"concurrency": 16},
            },
            notes=("any ASGI application; Stoker serves it",),
        )
        for name, target in targets.items()
    )
    return Draft(origin=origin, services=services)


def example_draft() -> Draft:
    """Nothing was found: something that runs, to be replaced."""
    hello = Service(
        name="hello",
        values={
            "command": "python3 -m http.server {port} --bind 127.0.0.1 --directory {env:TMPDIR}",
            "scaling": {"min_replicas": 1, "max_replicas": 2},
            "endpoint": {"port": 8000},
        },
        notes=("put your own command here; {port} is where it must listen",),
    )
    return Draft(origin="nothing that was there: an example", services=(hello,))
