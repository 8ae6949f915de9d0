"""What is typed all day, answered before click is loaded: loading it takes longer than all the rest.

Only the plain forms are taken: `stoker status [SERVICE] [-o json]`, the completion of commands and of names.
Whatever else stands on the line is click's. A test holds that both give the same answers.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stoker.cli import catalogue
from stoker.cli.place import Session
from stoker.errors import StokerError

COMPLETE = "_STOKER_COMPLETE"
"""The variable by which a shell's completion script asks."""
PATIENCE = 0.5
"""Seconds that whoever presses TAB waits for the daemon."""


def answered(args: Sequence[str], environ: Mapping[str, str]) -> bool:
    """Answer on stdout what can be answered here; False: nothing was done. Raises StokerError."""
    if instruction := environ.get(COMPLETE):
        lines = completed(instruction, environ)
        if lines is not None:
            sys.stdout.write("\n".join(lines) + "\n")
        return lines is not None
    wanted = wants_status(args)
    if wanted is None:
        return False
    service, output = wanted
    tell_status(Session().client().get("/v1/status", service=service), output, everything=service is not None)
    return True


def tell_status(status: dict[str, Any], output: str, *, everything: bool) -> None:
    """The status as it is wanted, on stdout."""
    if output == "json":
        print_json(status)
    elif status["daemon"].get("role") == "router":
        from stoker.cli import router_role

        router_role.show(status)
    else:
        from stoker.cli.status_text import show_status

        show_status(status, everything=everything)


def wants_status(args: Sequence[str]) -> tuple[str | None, str] | None:
    """The service and the output that `stoker status` is asked for, None for what is not so plain. Pure."""
    if not args or args[0] != "status":
        return None
    rest, output = list(args[1:]), "text"
    for place, word in enumerate(rest):
        if word in {"-o", "--output"} and rest[place + 1 : place + 2] in (["json"], ["text"]):
            output = rest[place + 1]
            del rest[place : place + 2]
            break
    if len(rest) > 1 or any(word.startswith("-") or not word for word in rest):
        return None
    return (rest[0] if rest else None), output


def completed(instruction: str, environ: Mapping[str, str]) -> list[str] | None:
    """The answer to a shell's completion script, None for what is not so plain."""
    shell, _, verb = instruction.partition("_")
    line, current = environ.get("COMP_WORDS", ""), environ.get("COMP_CWORD", "")
    plain = all(c.isalnum() or c in "-_./ " for c in line)
    if verb != "complete" or shell not in {"bash", "zsh", "fish"} or not plain:
        return None
    words = line.split()[1:]
    if shell == "fish":  # it gives the word itself, where others give its number
        word = current
        if word and words[-1:] == [word]:
            words.pop()
    else:
        before = int(current) - 1
        word = words[before] if len(words) > before else ""
        del words[before:]
    if word.startswith("-") or any(c not in "-_./" and not c.isalnum() for c in word):
        return None
    found = _found(words, word)
    return None if found is None else [line for item in found for line in _told(shell, *item)]


def _found(words: list[str], word: str) -> list[tuple[str, str]] | None:
    """What may stand there, each with a few words on it; None: not known here."""
    if not words:
        return [(name, about) for name, about in catalogue.COMMANDS.items() if name.startswith(word)]
    kinds = catalogue.NAMED.get(words[0])
    if kinds is None or len(words) > 1:
        return None
    return [(name, "") for name in daemon_names(Session(), kinds, word)]


def daemon_names(session: Session, kinds: frozenset[str], beginning: str) -> list[str]:
    """The daemon's services and replicas that begin so; none where no daemon answers."""
    from stoker.cli.client import Client

    try:
        return catalogue.names(Client(session.sockets, PATIENCE).get("/v1/status"), kinds, beginning)
    except StokerError:
        return []


def _told(shell: str, name: str, about: str) -> Iterator[str]:
    """As the shell's script wants it."""
    if shell == "zsh":
        yield from ("plain", name, about or "_")
    else:
        yield f"plain,{name}" + (f"\t{about}" if about and shell == "fish" else "")


def print_json(document: Any) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
