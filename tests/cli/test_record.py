"""What `stoker record` makes of the lines that it is told."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest

from stoker.api.streams import request_lines
from stoker.cli.commands.record import _Recorded, _sum_up
from stoker.model.load import RequestBatch, RequestRecord
from stoker_router.wire import decode_records

ROW = ["rag/infer", 5.0, 0.5, 0.25, 200]


def lines_of(*messages: dict[str, Any]) -> list[str]:
    """What the API sends of the router's messages."""

    async def batches() -> Any:
        for message in messages:
            yield decode_records(message)

    async def read() -> list[str]:
        return [
            line async for chunk in request_lines(batches(), 100.0) for line in chunk.decode().splitlines()
        ]

    return anyio.run(read)


def test_what_the_router_dropped_is_told_and_summed_up(capsys: pytest.CaptureFixture[str]) -> None:
    """A trace that is not whole says so: replayed, it would promise too much."""
    recorded = _Recorded()
    lines = lines_of(
        {"op": "requests", "rows": [ROW, ROW], "dropped": 0},
        {"op": "requests", "rows": [ROW], "dropped": 40},
        {"op": "requests", "rows": [], "dropped": 2},
    )
    for line in filter(None, lines):
        recorded.add(json.loads(line))
    assert recorded.rows == [(105.0, 0.25, "rag/infer")] * 3
    _sum_up(recorded, None)
    assert capsys.readouterr().err == (
        "3 requests over 0 s; 42 MISSING: they came faster than they were read\n"
    )


def test_a_whole_record_says_nothing_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    recorded = _Recorded()
    for line in filter(None, lines_of({"op": "requests", "rows": [ROW], "dropped": 0})):
        recorded.add(json.loads(line))
    _sum_up(recorded, None)
    assert capsys.readouterr().err == "1 requests over 0 s\n"


def test_batches_are_sequences_as_before() -> None:
    record = RequestRecord(service="a/b", arrived=1.0, waited=0.0, held=0.1, status=200)
    batch = RequestBatch([record], 3)
    assert (batch, batch.dropped, RequestBatch().dropped) == ((record,), 3, 0)
