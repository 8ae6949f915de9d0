"""Says what the services of a bento declare, as JSON. Runs users' code, so it runs in a process of its own.

Exactly one document goes to stdout: `{entry, services, files}`, or `{error, absent, where, files}` if the
bento cannot be loaded. `absent` means that this box lacks something, not that the bento is wrong. Of each
service: `values` and `defaults` in the words of a Stoker file, `required` variables, the services it `calls`,
`notes` for people, and the place of its class.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import sys
import tempfile
from typing import Any

from stoker_bentoml import custom
from stoker_bentoml.workspace import provide_home

OLDEST = (1, 4, 30)
TOO_NEW = (2,)
MAX_FILES = 1000
CONFIG_KEYS = frozenset({
    "resources", "workers", "threads", "traffic", "replicate_process", "extra_ports", "backlog",
    "max_runner_connections", "runner_connection", "runner_probe", "metrics", "logging", "monitoring",
    "tracing", "http", "grpc", "ssl", "endpoints",
})  # fmt: skip
"""The keys of a decorator's configuration that BentoML acts on; it passes over all others in silence."""


class Absent(Exception):
    """What the bento needs is not on this box."""


def main(target: str) -> None:
    """Print the document and end, without waiting for threads that the bento may have started."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    document = {**describe(target), "files": own_files(target)}
    out.write(json.dumps(document))
    out.flush()
    os._exit(0)


def describe(target: str) -> dict[str, Any]:
    """Load the bento and return the document. Never raises."""
    try:
        provide_home(tempfile.gettempdir())
        check_version()
        check_presence(target)
        from bentoml._internal.service.loader import load

        root: Any = load(target)
        services = root.all_services(exclude_urls=True)
        return {
            "entry": root.name,
            "services": {name: describe_service(service) for name, service in services.items()},
        }
    except BaseException as error:  # noqa: BLE001 - any code may run here and raise anything, SystemExit too
        return _failure(error)


def check_version() -> None:
    """Raises Absent without a BentoML that this package knows."""
    if importlib.util.find_spec("bentoml") is None:
        raise Absent(
            f"BentoML is missing: run {sys.executable} -m pip install 'bentoml>=1.4.30,<2', or name the "
            "bento's own Python with `interpreter:`"
        )
    from importlib.metadata import version

    found = version("bentoml")
    numbers = tuple(int(part) for part in found.split(".")[:3] if part.isdigit())
    if numbers < OLDEST or numbers >= TOO_NEW:
        raise Absent(
            f"BentoML {found} of {sys.executable} is not supported; it takes 1.4.30 or newer, below 2"
        )


def check_presence(target: str) -> None:
    """Raises Absent if there is nothing of that name: no directory, no module, no bento in the store."""
    path = os.path.abspath(os.path.expanduser(target))
    if os.path.isdir(path):
        if not _is_project(path):
            raise Absent(f"{path} holds no bento: no service.py, bentofile.yaml or bento.yaml")
        return
    module = target.partition(":")[0]
    if os.path.isfile(module):
        return
    if target.startswith((".", "/", "~")) or os.sep in module:
        raise Absent(f"there is no {path}")
    if not _is_module(module, target.partition(":")[2]) and not _in_store(target):
        raise Absent(f"there is no module {module} in {os.getcwd()}, and no bento {target} in the store")


def _is_project(folder: str) -> bool:
    """Whether BentoML would find something to load in a directory."""
    if any(
        os.path.exists(os.path.join(folder, name)) for name in ("service.py", "bentofile.yaml", "bento.yaml")
    ):
        return True
    try:
        with open(os.path.join(folder, "pyproject.toml"), encoding="utf-8", errors="replace") as file:
            return "tool.bentoml" in file.read()
    except OSError:
        return False


def _is_module(module: str, attribute: str) -> bool:
    """Whether MODULE:ATTRIBUTE may name a service: `abc:123` is a tag, though Python has a module abc."""
    if attribute and not all(part.isidentifier() for part in attribute.split(".")):
        return False
    sys.path.insert(0, os.getcwd())
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return False
    finally:
        sys.path.pop(0)
    own = found is not None and found.origin is not None and found.origin.startswith(os.getcwd() + os.sep)
    return found is not None and (own or module.partition(".")[0] not in sys.stdlib_module_names)


def _in_store(tag: str) -> bool:
    from bentoml._internal.configuration.containers import BentoMLContainer
    from bentoml.exceptions import BentoMLException

    try:
        BentoMLContainer.bento_store.get().get(tag)
    except (BentoMLException, ValueError):
        return False
    return True


def describe_service(service: Any) -> dict[str, Any]:
    """What one service declares."""
    config = {key: value for key, value in service.config.items() if value is not None}
    told = {key: plain(value, key) for key, value in config.items() if key in CONFIG_KEYS}
    unknown = sorted(config.keys() - CONFIG_KEYS)
    told.update(
        {
            key: plain(value, key)
            for key, value in (
                ("cmd", service.cmd),
                ("labels", dict(service.labels)),
                ("path_prefix", service.path_prefix),
            )
            if value
        }
    )
    envs = [env for env in service.envs if env.stage != "build"]
    values: dict[str, Any] = {"config_overrides": told} if told else {}
    given = {env.name: str(env.value) for env in envs if env.value}
    if given:
        values["envs"] = given
    file, line = place_of(service.inner)
    return {
        "values": values,
        "defaults": {"probes": probes(config.get("endpoints") or {})},
        "required": [env.name for env in envs if not env.value],
        "calls": _calls(service),
        "notes": [
            *(f"`{key}` in the decorator is no key of BentoML's and has no effect" for key in unknown),
            *custom.notes(service),
        ],
        "file": file,
        "line": line,
    }


def probes(endpoints: dict[str, Any]) -> dict[str, Any]:
    """How BentoML is asked whether it is ready and alive."""
    ready, alive = str(endpoints.get("readyz", "/readyz")), str(endpoints.get("livez", "/livez"))
    return {
        "startup": {"http": ready},
        "readiness": {"http": ready, "timeout": 5, "failures": 3},
        "liveness": {"http": alive, "period": 5, "timeout": 20, "failures": 6},
    }


def _calls(service: Any) -> list[str]:
    """Names of the services it calls that run here."""
    found = [
        dependency.on.name
        for dependency in service.dependencies.values()
        if dependency.on is not None and not dependency.url and not dependency.deployment
    ]
    return list(dict.fromkeys(found))


def place_of(cls: Any) -> tuple[str, int]:
    """File and line of a class, "" and 0 where it has none."""
    try:
        return inspect.getsourcefile(cls) or "", inspect.getsourcelines(cls)[1]
    except (OSError, TypeError):
        return "", 0


def plain(value: Any, path: str) -> Any:
    """The value as JSON could hold it. Raises TypeError naming the path of one that it could not."""
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, (list, tuple)):
        return [plain(one, f"{path}.{index}") for index, one in enumerate(value)]
    if isinstance(value, dict):
        return {str(key): plain(one, f"{path}.{key}") for key, one in value.items()}
    raise TypeError(f"{path} in a decorator is of type {type(value).__name__}; only plain values can be read")


def _failure(error: BaseException) -> dict[str, Any]:
    """The document of a bento that could not be loaded."""
    if isinstance(error, Absent):
        return {"error": str(error), "absent": True, "where": None}
    cause = _cause(error)
    absent = isinstance(cause, ModuleNotFoundError)
    if isinstance(cause, SyntaxError):
        return {
            "error": f"SyntaxError: {cause.msg}",
            "absent": False,
            "where": [cause.filename, cause.lineno or 0],
        }
    if isinstance(cause, SystemExit):
        words = f"it ended the process (exit {cause.code})"
    else:
        text = " ".join(str(cause).split())[:300]
        words = f"{type(cause).__name__}: {text}" if text else type(cause).__name__
    return {"error": words, "absent": absent, "where": _where(cause)}


def _cause(error: BaseException) -> BaseException:
    """What the bento's code raised, below what BentoML made of it."""
    seen: BaseException = error
    while isinstance(seen, Exception) and type(seen).__module__.startswith("bentoml"):
        below = seen.__cause__ or seen.__context__
        if below is None or (type(below).__module__.startswith("bentoml") and below.__context__ is None):
            break
        seen = below
    own = _first_import_error(error)
    return own if own is not None else seen


def _first_import_error(error: BaseException) -> BaseException | None:
    """The ImportError of the bento's own import, which BentoML buries under its look into the store."""
    chain, found = error, None
    for _ in range(20):
        if isinstance(chain, ImportError):
            found = chain
        below = chain.__cause__ or chain.__context__
        if below is None:
            break
        chain = below
    return found


def _where(error: BaseException) -> list[Any] | None:
    """File and line in the bento's own code where it was raised."""
    here, found = os.getcwd() + os.sep, None
    trace = error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if file.startswith(here) and "site-packages" not in file:
            found = [file, trace.tb_lineno]
        trace = trace.tb_next
    return found


def own_files(target: str) -> list[str]:
    """Loaded modules of the bento's own, and the files that may name its service."""
    folder = os.path.abspath(os.path.expanduser(target))
    if not os.path.isdir(folder):
        folder = os.getcwd()
    roots = tuple({folder + os.sep, os.path.realpath(folder) + os.sep})
    files = {str(getattr(module, "__file__", None) or "") for module in list(sys.modules.values())}
    own = [file for file in files if file.startswith(roots) and "site-packages" not in file]
    named = [os.path.join(folder, name) for name in ("bento.yaml", "bentofile.yaml", "pyproject.toml")]
    module = os.path.join(folder, *target.partition(":")[0].removesuffix(".py").split("."))
    return sorted({*own, *named, f"{module}.py", os.path.join(folder, "service.py")})[:MAX_FILES]
