"""Entries of the systemd journal, in its own protocol. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

SOCKET = "/run/systemd/journal/socket"
INFO = "6"
"""As syslog counts: what a line is that does not say."""
_PREFIX = re.compile(rb"<([0-7])>")
_LEVEL_KEYS = ("level", "severity", "levelname", "lvl")
"""Where log libraries put the level of a JSON line."""
_WORDS = {
    "trace": "7", "debug": "7", "info": INFO, "information": INFO, "notice": "5", "warn": "4", "warning": "4",
    "err": "3", "error": "3", "critical": "2", "crit": "2", "fatal": "2", "panic": "2", "alert": "1",
    "emerg": "0", "emergency": "0",
}  # fmt: skip
_NUMBERS = {10: "7", 20: "7", 30: INFO, 40: "4", 50: "3", 60: "2"}
"""As bunyan and pino count."""


def datagram(fields: Mapping[str, str | bytes]) -> bytes:
    """One entry. A value of several lines is told by its length."""
    return b"".join(_field(name, value) for name, value in fields.items())


def about(service: str, replica: str) -> dict[str, str | bytes]:
    """The fields that all lines of a replica have. `service`: its deployment and name, `rag/infer`."""
    deployment, _, name = service.partition("/")
    return {
        "SYSLOG_IDENTIFIER": name,
        "SYSLOG_FACILITY": "3",  # that of daemons, as for all that is printed under systemd
        "STOKER_DEPLOYMENT": deployment,
        "STOKER_SERVICE": name,
        "STOKER_REPLICA": replica,
    }


def told(line: bytes) -> tuple[bytes, str]:
    """A line's text and priority. `<4>` at its beginning says it and is taken away, as systemd does for what
    its units print; a JSON object may say its level and stays as it is."""
    if match := _PREFIX.match(line):
        return line[match.end() :], match[1].decode()
    return line, _json_priority(line) if line.startswith(b"{") else INFO


def _json_priority(line: bytes) -> str:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return INFO
    level = next((found[key] for key in _LEVEL_KEYS if key in found), None)
    if isinstance(level, str):
        return _WORDS.get(level.lower(), INFO)
    return _NUMBERS.get(level, INFO) if isinstance(level, int) else INFO


def _field(name: str, value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    if b"\n" not in raw:
        return f"{name}=".encode() + raw + b"\n"
    return name.encode() + b"\n" + len(raw).to_bytes(8, "little") + raw + b"\n"
