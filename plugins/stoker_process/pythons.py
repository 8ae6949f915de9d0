"""Which commands are plainly a Python program, which a process that is that Python already can run."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

_INTERPRETER = re.compile(r"python(3(\.\d+)?)?")
_FLAGS = re.compile(r"-[bBdEIOPsSuv]+")
_WITH_VALUE = ("-X", "-W")
_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonCommand:
    """`INTERPRETER OPTIONS -m MODULE ARGUMENTS` or `INTERPRETER OPTIONS SCRIPT ARGUMENTS`: the other of
    `module` and `script` is ""."""

    options: tuple[str, ...] = ()
    module: str = ""
    script: str = ""
    arguments: tuple[str, ...] = ()


def python_command(argv: Sequence[str]) -> PythonCommand | None:
    """The parts of such a command line; None for any other."""
    if not argv or not _INTERPRETER.fullmatch(os.path.basename(argv[0])):
        return None
    at = 1
    while at < len(argv):
        if argv[at] in _WITH_VALUE:
            at += 2
        elif _FLAGS.fullmatch(argv[at]) or argv[at].startswith(_WITH_VALUE):
            at += 1
        else:
            break
    options, rest = tuple(argv[1:at]), tuple(argv[at:])
    if len(rest) > 1 and rest[0] == "-m" and _MODULE.fullmatch(rest[1]):
        return PythonCommand(options=options, module=rest[1], arguments=rest[2:])
    if rest and rest[0].endswith(".py") and not rest[0].startswith("-"):
        return PythonCommand(options=options, script=rest[0], arguments=rest[1:])
    return None
