"""What the journal is told of a line."""

from __future__ import annotations

import pytest

from stoker.to_journal.entries import about, datagram, told


@pytest.mark.parametrize(
    ("line", "text", "priority"),
    [
        (b"plain", b"plain", "6"),
        (b"<3>failed", b"failed", "3"),
        (b"<9>no priority", b"<9>no priority", "6"),
        (b'{"level": "error", "msg": "x"}', b'{"level": "error", "msg": "x"}', "3"),
        (b'{"levelname":"WARNING"}', b'{"levelname":"WARNING"}', "4"),
        (b'{"severity":"CRITICAL"}', b'{"severity":"CRITICAL"}', "2"),
        (b'{"level":50}', b'{"level":50}', "3"),
        (b'{"level":"loud"}', b'{"level":"loud"}', "6"),
        (b'{"level":["error"]}', b'{"level":["error"]}', "6"),
        (b'{"level":true}', b'{"level":true}', "6"),
        (b'{"n":1}', b'{"n":1}', "6"),
        (b"{half of a set", b"{half of a set", "6"),
        (b"{" * 40_000, b"{" * 40_000, "6"),
        (b"\xff{\x00", b"\xff{\x00", "6"),
    ],
)
def test_a_line_says_how_much_it_matters(line: bytes, text: bytes, priority: str) -> None:
    assert told(line) == (text, priority)


def test_no_line_forges_a_field() -> None:
    entry = datagram({"MESSAGE": b"a\nSTOKER_REPLICA=other", **about("rag/infer", "infer-1")})
    assert entry.startswith(b"MESSAGE\n" + (22).to_bytes(8, "little") + b"a\nSTOKER_REPLICA=other\n")
    assert entry.endswith(
        b"SYSLOG_IDENTIFIER=infer\nSYSLOG_FACILITY=3\n"
        b"STOKER_DEPLOYMENT=rag\nSTOKER_SERVICE=infer\nSTOKER_REPLICA=infer-1\n"
    )
