"""Finding and reading files: quickly, with limits, and with a plain message for whatever goes wrong."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from typing import NamedTuple

from stoker.config.tree import Node, Source, suggest
from stoker.config.yaml_text import MAX_BYTES, parse_yaml
from stoker.errors import ConfigProblem

_ENDINGS = (".yaml", ".yml")
_PROFILE = re.compile(r"[A-Za-z0-9_-]+")


class MainFile(NamedTuple):
    """A main file: as people named it, its absolute path, and the absolute folder it stands in."""

    label: str
    path: str
    folder: str


def find_files(named: Sequence[str]) -> tuple[list[MainFile], list[ConfigProblem], list[str]]:
    """The main files meant by paths of files and directories, each once; problems; notices."""
    labels: dict[str, str] = {}
    problems: list[ConfigProblem] = []
    notices: list[str] = []
    for given in named:
        if not os.path.isdir(given):
            labels.setdefault(os.path.abspath(given), given)
            continue
        names, fault = _yaml_names(given)
        if given.endswith(_ENDINGS) and not names:
            # Deployment tools make an empty mount point first: that must not read as "run nothing".
            fault = ConfigProblem("is an empty directory; a deployment file was expected here", given)
        if fault is not None:
            problems.append(fault)
        elif not names:
            notices.append(f"{given} holds no *.yaml file: nothing to run")
        stems = {os.path.splitext(name)[0] for name in names}
        for name in names:
            if not _is_profile(os.path.splitext(name)[0], stems):
                path = os.path.join(given, name)
                labels.setdefault(os.path.abspath(path), path)
    mains = [MainFile(label, path, os.path.dirname(path)) for path, label in labels.items()]
    return mains, problems, notices


def profile_file(main: MainFile, profile: str) -> tuple[str, str] | None:
    """(label, path) of a main file's profile, None if it has none."""
    if not _PROFILE.fullmatch(profile):
        return None
    for ending in _ENDINGS:
        path = f"{os.path.splitext(main.path)[0]}.{profile}{ending}"
        if os.path.exists(path):
            return f"{os.path.splitext(main.label)[0]}.{profile}{ending}", path
    return None


def drop_in_files(main: MainFile) -> tuple[list[tuple[str, str]], list[ConfigProblem]]:
    """(label, path) of each drop-in beside a main file, in order."""
    label = os.path.join(os.path.dirname(main.label), "conf.d")
    folder = os.path.join(main.folder, "conf.d")
    if not os.path.isdir(folder):
        return [], []
    names, fault = _yaml_names(folder)
    if fault is not None:
        return [], [ConfigProblem(fault.message, label)]
    return [(os.path.join(label, name), os.path.join(folder, name)) for name in names], []


def read_document(path: str, source: Source) -> tuple[Node | None, list[ConfigProblem]]:
    """The tree of a file, and all that is wrong with its text. None: empty, or not readable."""
    text, problems = read_text(path, source)
    return (None, problems) if text is None else parse_yaml(text, source)


def read_text(path: str, source: Source) -> tuple[str | None, list[ConfigProblem]]:
    """The text of a file. None: not readable, and why."""
    try:
        data = _read_limited(path)
    except FileNotFoundError:
        return None, [ConfigProblem("no such file" + _neighbours(path), source.label)]
    except OSError as error:
        return None, [ConfigProblem(f"cannot be read: {error.strerror or error}", source.label)]
    try:
        return data.decode("utf-8-sig"), []
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line, column = before.count(b"\n") + 1, error.start - (before.rfind(b"\n") + 1) + 1
        return None, [ConfigProblem("not valid UTF-8 text", source.label, line, column)]


def _read_limited(path: str) -> bytes:
    """The content of a regular file of at most MAX_BYTES. Raises OSError; never blocks on a pipe."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError("it is no regular file")
        data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            size = max(status.st_size, len(data)) / MAX_BYTES
            raise OSError(f"it is too large: {size:.1f} MiB, a configuration may have 1 MiB")
        return data


def _yaml_names(folder: str) -> tuple[list[str], ConfigProblem | None]:
    """The names of the YAML files in a folder, sorted; not those that an editor hides."""
    try:
        names = os.listdir(folder)
    except OSError as error:
        return [], ConfigProblem(f"cannot be read: {error.strerror}", folder)
    return sorted(name for name in names if name.endswith(_ENDINGS) and not name.startswith(".")), None


def _is_profile(stem: str, stems: set[str]) -> bool:
    """Whether a stem is NAME.PROFILE of another file NAME."""
    parts = stem.split(".")
    return any(".".join(parts[:count]) in stems for count in range(1, len(parts)))


def _neighbours(path: str) -> str:
    try:
        names = os.listdir(os.path.dirname(path) or ".")
    except OSError:
        return ""
    return suggest(os.path.basename(path), sorted(name for name in names if name.endswith(_ENDINGS))[:20])
