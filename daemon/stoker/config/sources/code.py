"""The code layer: what `@stoker.service` declares in the modules of `python:` services.

Users' modules run in child processes, in their own working directory, with a clean environment, no
GPU, a time limit, and as the service's own user. What was read is kept until a file of it changes.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, NamedTuple

from stoker.config.assemble import Deployment
from stoker.config.build import absolute_folder
from stoker.config.interpolate import fill
from stoker.config.layers import Layer, make_layer, merge_layers
from stoker.config.schema import PYTHON_TARGET
from stoker.config.tree import Node, Source, find, from_data, problem_at
from stoker.errors import ConfigProblem

TIMEOUT = 20.0
"""Seconds a module may take to load."""
WORKERS = 4
MAX_ANSWER = 1024 * 1024
MAX_KEPT = 256

Fingerprint = tuple[tuple[str, int, int], ...]


class Target(NamedTuple):
    """One thing to load. Equal targets give equal answers, as long as the files stay the same."""

    target: str
    folder: str
    envs: tuple[tuple[str, str], ...]
    user: str | None


class _Kept(NamedTuple):
    answer: Mapping[str, Any]
    fingerprint: Fingerprint


_kept: dict[Target, _Kept] = {}
_files: dict[str, tuple[str, ...]] = {}
"""Module files by main file, as of the last reading."""


def add_code(
    deployments: Sequence[Deployment], environ: Mapping[str, str]
) -> tuple[list[Deployment], list[ConfigProblem], list[str]]:
    """Lay the code layer under each deployment. Also returns problems and the module files to watch."""
    wanted = [(one, _targets(one, environ)) for one in deployments]
    targets = list(dict.fromkeys(target for _, found in wanted for target, _ in found.values()))
    with ThreadPoolExecutor(max_workers=WORKERS) as pool:
        answers = dict(zip(targets, pool.map(_answer, targets), strict=True))
    result: list[Deployment] = []
    problems: list[ConfigProblem] = []
    files: list[str] = []
    for one, found in wanted:
        layer, faults = _layer(one, found, answers)
        problems += faults
        mine = [file for target, _ in found.values() for file in _module_files(target, answers[target])]
        _files[os.path.join(one.source.folder, os.path.basename(one.source.label))] = tuple(mine)
        files += mine
        result.append(replace(one, layers=(layer, *one.layers)) if layer is not None else one)
    return result, problems, files


def code_files(mains: Iterable[str]) -> list[str]:
    """Module files of these main files (absolute paths), as of the last reading."""
    return [file for main in mains for file in _files.get(main, ())]


def _targets(one: Deployment, environ: Mapping[str, str]) -> dict[str, tuple[Target, Node]]:
    """What to load for each service, with the node of its `python:`."""
    if not any("python" in service.mapping for layer in one.layers for service in layer.services.values()):
        return {}
    tree, _ = fill(merge_layers(one.layers), environ)
    services = find(tree, ("services",))
    found: dict[str, tuple[Target, Node]] = {}
    for name, service in (services.mapping if services is not None else {}).items():
        node = service.mapping.get("python")
        if node is None or not isinstance(node.value, str) or not re.fullmatch(PYTHON_TARGET, node.value):
            continue
        envs = find(service, ("envs",))
        texts = {key: each.value for key, each in (envs.mapping if envs else {}).items()}
        user = find(service, ("user",))
        target = Target(
            target=str(node.value),
            folder=absolute_folder(
                service.mapping.get("working_dir"), one.source.folder, environ.get("HOME", "/")
            ),
            envs=tuple(sorted((key, str(text)) for key, text in texts.items() if isinstance(text, str))),
            user=str(user.value) if user is not None and isinstance(user.value, str) else None,
        )
        found[name] = target, node
    return found


def _layer(
    one: Deployment, found: Mapping[str, tuple[Target, Node]], answers: Mapping[Target, Mapping[str, Any]]
) -> tuple[Layer | None, list[ConfigProblem]]:
    services: dict[str, Node] = {}
    problems: list[ConfigProblem] = []
    shown = (lambda path: path) if os.path.isabs(one.source.label) else _relative
    for name, (target, node) in found.items():
        answer = answers[target]
        if "error" in answer:
            where = f" ({shown(answer['where'][0])}:{answer['where'][1]})" if answer.get("where") else ""
            message = f"cannot load {target.target}: {answer['error']}{where}"
            problems.append(problem_at(node, ("services", name, "python"), message, key=True))
        elif answer["values"]:
            source = Source("code", shown(answer["file"]), os.path.dirname(answer["file"]))
            services[name] = from_data(answer["values"], source, answer["line"], 1)
    if not services:
        return None, problems
    source = Source("code", "")
    layer, faults = make_layer(Node({"services": Node(services, source)}, source))
    return layer, problems + faults


def _relative(path: str) -> str:
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative


def _answer(target: Target) -> Mapping[str, Any]:
    """What the child says of a target, or what was kept of it."""
    kept = _kept.get(target)
    if kept is not None and _fingerprint(kept.answer["files"]) == kept.fingerprint:
        return kept.answer
    answer, begun = _run(target)
    fingerprint = _fingerprint(answer["files"])
    # A file that changed while it was read may have been read before the change.
    if "error" not in answer and all(changed < begun for _, changed, _ in fingerprint):
        if len(_kept) >= MAX_KEPT:
            _kept.clear()
        _kept[target] = _Kept(answer, fingerprint)
    return answer


def _fingerprint(files: Iterable[str]) -> Fingerprint:
    found = []
    for file in files:
        try:
            status = os.stat(file)
        except OSError:
            found.append((file, 0, 0))
        else:
            found.append((file, status.st_mtime_ns, status.st_size))
    return tuple(found)


def _module_files(target: Target, answer: Mapping[str, Any]) -> list[str]:
    """The files that were loaded; if loading failed also those where the module would be."""
    module = os.path.join(target.folder, *target.target.partition(":")[0].split("."))
    candidates = [f"{module}.py", os.path.join(module, "__init__.py")] if "error" in answer else []
    return [*answer["files"], *candidates]


def _run(target: Target) -> tuple[Mapping[str, Any], int]:
    """Load a target in a child process. Never raises for what the child does.

    Also returns when it began, as the clock that files are stamped with says it (nanoseconds).
    """
    with tempfile.TemporaryFile() as output:
        begun = os.fstat(output.fileno()).st_ctime_ns
        try:
            child = subprocess.Popen(
                [sys.executable, "-P", "-m", "stoker.introspect", target.target],
                cwd=target.folder,
                env=_environment(target),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                **_account(target.user),
            )
        except OSError as error:
            return _failed(f"{error.strerror}: {error.filename or target.folder}"), begun
        finished = _wait(child, TIMEOUT)
        output.seek(0)
        text = output.read(MAX_ANSWER)
    if not finished:
        return _failed(f"it took more than {TIMEOUT:g} s to load"), begun
    try:
        answer = json.loads(text)
    except ValueError:
        return _failed(f"its process ended with {_ending(child.returncode)}"), begun
    return answer if isinstance(answer, dict) else _failed("it wrote over the answer"), begun


def _failed(reason: str) -> Mapping[str, Any]:
    return {"error": reason, "files": []}


def _wait(child: subprocess.Popen[bytes], timeout: float) -> bool:
    """Wait for the child, then end whatever it left in its process group. Whether it ended by itself."""
    watch = os.pidfd_open(child.pid)
    try:
        poll = select.poll()
        poll.register(watch, select.POLLIN)
        finished = bool(poll.poll(timeout * 1000))
        os.killpg(child.pid, signal.SIGKILL)  # not yet reaped: the id is still its own
        child.wait()
    finally:
        os.close(watch)
    return finished


def _ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _environment(target: Target) -> dict[str, str]:
    """What a worker would have, roughly: never the daemon's own environment, never a secret."""
    path = f"{os.path.dirname(sys.executable)}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    home = _entry(target.user).pw_dir if _entry(target.user) else "/"
    own = {"CUDA_VISIBLE_DEVICES": "", "PYTHONDONTWRITEBYTECODE": "1"}
    return {"PATH": path, "HOME": home, "LANG": "C.UTF-8", **dict(target.envs), **own}


def _entry(user: str | None) -> Any:
    try:
        return pwd.getpwnam(user) if user else pwd.getpwuid(os.getuid())
    except KeyError:
        return None


def _account(user: str | None) -> dict[str, Any]:
    """Popen's arguments to run as the service's user, if the daemon may."""
    entry = _entry(user) if user and os.geteuid() == 0 else None
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []} if entry else {}
