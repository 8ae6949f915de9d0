"""Events in the journal's own protocol, read back as journald reads them."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from stoker.cli.journald import datagram, is_our_output, journal_entries
from stoker.model.event import Event, Notice, WorkerExited
from stoker.model.replica import ExitStatus

EXIT = WorkerExited(
    id="7", cause="6", replica="web-1", service="shop/web", status=ExitStatus(code=3, detail="boom")
)


def fields(raw: bytes) -> dict[str, str]:
    """What journald makes of a datagram."""
    found: dict[str, str] = {}
    while raw:
        head, _, rest = raw.partition(b"\n")
        name, equals, value = head.partition(b"=")
        if not equals:
            size = int.from_bytes(rest[:8], "little")
            value, rest = rest[8 : 8 + size], rest[9 + size :]
        found[name.decode()] = value.decode()
        raw = rest
    return found


def test_an_event_has_its_parts_as_fields() -> None:
    assert fields(datagram(EXIT, "web-1 exited: exit code 3: boom")) == {
        "MESSAGE": "web-1 exited: exit code 3: boom",
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "stoker",
        "STOKER_EVENT": "WorkerExited",
        "STOKER_EVENT_ID": "7",
        "STOKER_CAUSE": "6",
        "STOKER_DEPLOYMENT": "shop",
        "STOKER_SERVICE": "web",
        "STOKER_REPLICA": "web-1",
    }


@pytest.mark.parametrize(("severity", "priority"), [("info", "6"), ("warning", "4"), ("error", "3")])
def test_severities_become_priorities(severity: str, priority: str) -> None:
    found = fields(datagram(Notice(message="x", severity=severity), "x"))
    assert found["PRIORITY"] == priority
    assert "STOKER_REPLICA" not in found


def test_a_message_of_several_lines_stays_one_entry() -> None:
    text = "config rejected:\nSTOKER_REPLICA=forged\n"
    found = fields(datagram(Notice(message=text), text))
    assert found["MESSAGE"] == text
    assert "STOKER_REPLICA" not in found


def test_only_the_stream_that_systemd_names_is_the_journal(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w") as out:
        found = os.fstat(out.fileno())
        environ = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
        assert is_our_output(environ, out.fileno())
        assert not is_our_output({}, out.fileno())
        with (tmp_path / "other").open("w") as other:
            assert not is_our_output(environ, other.fileno())
            gone = other.fileno()
        assert not is_our_output(environ, gone)


class Facade:
    """Tells two events, then ends."""

    beginning = ""

    async def events(self, after: str = "") -> AsyncIterator[Event]:
        yield EXIT
        yield Notice(message="well then")


@pytest.mark.anyio
async def test_without_a_journal_lines_are_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(tmp_path / "socket"))
        await journal_entries(Facade(), str(tmp_path / "socket"))
        heard = [fields(journal.recv(4096))["MESSAGE"] for _ in range(2)]
    assert heard == ["web-1 exited: exit code 3: boom", "well then"]
    assert capsys.readouterr().out == ""
    await journal_entries(Facade(), str(tmp_path / "nothing"))
    assert capsys.readouterr().out == "web-1 exited: exit code 3: boom\nwell then\n"
