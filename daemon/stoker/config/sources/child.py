"""Runs users' code in child processes to hear what it declares.

In its own working directory, with a clean environment, no GPU, a time limit, and as the service's own user.
What was read is kept until a file of it changes.
"""

from __future__ import annotations

import json
import os
import pwd
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

WORKERS = 4
MAX_ANSWER = 1024 * 1024
MAX_KEPT = 256

Fingerprint = tuple[tuple[str, int, int], ...]


class Question(NamedTuple):
    """One thing to load: a command that prints a JSON mapping with `files`, the files it read, and with
    `error` if it failed. Equal questions give equal answers, as long as the files stay the same."""

    argv: tuple[str, ...]
    folder: str
    envs: tuple[tuple[str, str], ...]
    user: str | None
    timeout: float


class _Kept(NamedTuple):
    answer: Mapping[str, Any]
    fingerprint: Fingerprint


_kept: dict[Question, _Kept] = {}


def ask(questions: Sequence[Question]) -> dict[Question, Mapping[str, Any]]:
    """The answer to each question, some at a time. Blocking. Never raises for what users' code does."""
    different = list(dict.fromkeys(questions))
    with ThreadPoolExecutor(max_workers=WORKERS) as pool:
        return dict(zip(different, pool.map(_answer, different), strict=True))


def _answer(question: Question) -> Mapping[str, Any]:
    """What the child says to a question, or what was kept of it."""
    kept = _kept.get(question)
    if kept is not None and _fingerprint(kept.answer["files"]) == kept.fingerprint:
        return kept.answer
    answer, begun = _run(question)
    fingerprint = _fingerprint(answer["files"])
    # A file that changed while it was read may have been read before the change.
    if "error" not in answer and all(changed < begun for _, changed, _ in fingerprint):
        if len(_kept) >= MAX_KEPT:
            _kept.clear()
        _kept[question] = _Kept(answer, fingerprint)
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


def _run(question: Question) -> tuple[Mapping[str, Any], int]:
    """Ask in a child process. Never raises for what the child does.

    Also returns when it began, as the clock that files are stamped with says it (nanoseconds).
    """
    with tempfile.TemporaryFile() as output:
        begun = os.fstat(output.fileno()).st_ctime_ns
        try:
            child = subprocess.Popen(
                question.argv,
                cwd=question.folder,
                env=_environment(question),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                **_account(question.user),
            )
        except OSError as error:
            return _failed(f"{error.strerror}: {error.filename or question.folder}"), begun
        finished = _wait(child, question.timeout)
        output.seek(0)
        text = output.read(MAX_ANSWER)
    if not finished:
        return _failed(f"it took more than {question.timeout:g} s to load"), begun
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


def _environment(question: Question) -> dict[str, str]:
    """What a worker would have, roughly: never the daemon's own environment, never a secret."""
    path = f"{os.path.dirname(sys.executable)}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    home = _entry(question.user).pw_dir if _entry(question.user) else "/"
    own = {"CUDA_VISIBLE_DEVICES": "", "PYTHONDONTWRITEBYTECODE": "1"}
    return {"PATH": path, "HOME": home, "LANG": "C.UTF-8", **dict(question.envs), **own}


def _entry(user: str | None) -> Any:
    try:
        return pwd.getpwnam(user) if user else pwd.getpwuid(os.getuid())
    except KeyError:
        return None


def _account(user: str | None) -> dict[str, Any]:
    """Popen's arguments to run as the service's user, if the daemon may."""
    entry = _entry(user) if user and os.geteuid() == 0 else None
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []} if entry else {}
