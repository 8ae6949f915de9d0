"""`stoker top`: what is made of the stream, and the screen itself over a fake daemon on a real socket."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from textual.widgets import DataTable, RichLog

from api.fakes import GPU, FakeDaemon, Served, served, snapshot
from cli.conftest import Result
from stoker.api.live import live_parts
from stoker.cli.client import Client
from stoker.cli.top.app import Top
from stoker.cli.top.detail import Detail
from stoker.cli.top.state import LiveState, spark
from stoker.model.event import Notice


def whole(**changes: Any) -> dict[str, Any]:
    parts = live_parts(snapshot(**changes))
    return {**parts, "services": list(parts["services"].values()), "events": [], "now": 1_700_000_100.0}


def event(number: int, message: str = "", kind: str = "Notice") -> dict[str, Any]:
    return {"id": f"e{number}", "type": kind, "message": message, "severity": "info"}


def test_the_state_is_the_status_document_again() -> None:
    told = LiveState()
    assert not told.known
    told.apply("state", whole())
    status = told.status(1_700_000_110.0)
    assert [service["name"] for service in status["services"]] == ["tokenize", "infer"]
    ready = status["services"][1]["replicas"][0]
    assert ready["since_s"] == pytest.approx(110 - 87.5, abs=0.5)
    assert status["daemon"]["uptime_s"] == pytest.approx(110 - 96.8, abs=0.5)


def test_changes_replace_services_and_forget_those_that_are_gone() -> None:
    told = LiveState()
    told.apply("state", whole())
    changed = whole(addresses={})["services"][1]
    told.apply("change", {"services": [changed], "order": ["rag/infer"], "now": 1.0})
    (service,) = told.status(0.0)["services"]
    assert service["url"] == ""


def test_each_event_is_told_once_also_after_a_reconnect() -> None:
    told = LiveState()
    assert [e["id"] for e in told.apply("state", {**whole(), "events": [event(1), event(2)]})] == ["e1", "e2"]
    assert [e["id"] for e in told.apply("state", {**whole(), "events": [event(2), event(3)]})] == ["e3"]
    devices = [event(4, "8 devices", "InventoryChanged"), event(5, "8 devices", "InventoryChanged")]
    assert [e["id"] for e in told.apply("change", {"events": devices})] == ["e4"]


def test_a_point_that_comes_again_longer_replaces_the_shorter() -> None:
    told = LiveState()
    told.add_history({"a/b": {"load": {"t": [1.0, 2.0], "in_flight": [1, 2], "queued": [0, 0]}}})
    told.add_history({"a/b": {"load": {"t": [2.0], "in_flight": [3], "queued": [1]}}})
    assert list(told.loads["a/b"]) == [(1.0, 1), (2.0, 4)]


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([], "    "),
        ([(9.5, 4.0)], "   █"),
        ([(6.5, 4.0), (7.5, 2.0), (9.9, 1.0)], "█▅ ▃"),
        ([(1.0, 9.0), (9.5, 0.0)], "    "),
    ],
)
def test_sparklines(points: list[tuple[float, float]], expected: str) -> None:
    from collections import deque

    assert spark(deque(points), 10.0, step=1.0, width=4) == expected


# --- the screen -------------------------------------------------------------------------------------------


async def until(pilot: Any, condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline, what
        await pilot.pause(0.05)


def on_screen(live: Served, act: Callable[[Top, Any], Awaitable[None]]) -> None:
    """Run the application without a terminal until its first picture, then `act`."""

    async def run() -> None:
        app = Top(Client([live.socket]))
        async with app.run_test(size=(150, 44)) as pilot:
            pools = app.query_one("#pools", DataTable)
            await until(pilot, lambda: pools.row_count == 2, "the pools")
            await act(app, pilot)

    anyio.run(run, backend="asyncio")


def cell(app: Top, table: str, row: str, column: str) -> str:
    return str(app.query_one(f"#{table}", DataTable).get_cell(row, column))


def test_pools_replicas_gpus_and_events_are_shown_and_follow(live: Served, daemon: FakeDaemon) -> None:
    async def act(app: Top, pilot: Any) -> None:
        assert cell(app, "pools", "rag/infer", "READY") == "1"
        assert cell(app, "devices", GPU, "HEALTH") == "healthy"
        await pilot.press("down")
        await until(pilot, lambda: app.query_one("#replicas", DataTable).row_count == 2, "its replicas")
        assert cell(app, "replicas", "infer-m2p4", "PHASE") == "pending"
        live.portal.call(lambda: daemon.become(loads={}))
        await until(pilot, lambda: cell(app, "pools", "rag/infer", "RPS") == "-", "the change")
        live.happen(Notice(message="something happened"))
        log = app.query_one("#events", RichLog)
        await until(pilot, lambda: any("something happened" in line.text for line in log.lines), "the event")

    on_screen(live, act)


def test_what_is_noted_stands_above_the_tables(live: Served, daemon: FakeDaemon) -> None:
    async def act(app: Top, pilot: Any) -> None:
        box = app.query_one("#notices")
        assert not box.display
        live.portal.call(lambda: daemon.become(notices=("the disk is full",)))
        await until(pilot, lambda: box.display and "the disk is full" in str(box.render()), "the notice")

    on_screen(live, act)


def test_a_narrow_screen_shows_the_health_of_each_gpu_and_whole_events(live: Served) -> None:
    async def run() -> None:
        app = Top(Client([live.socket]))
        async with app.run_test(size=(80, 24)) as pilot:
            devices = app.query_one("#devices", DataTable)
            await until(pilot, lambda: devices.row_count == 2, "the devices")
            left = [column.get_render_width(devices) for column in devices.ordered_columns]
            titles = [str(column.label) for column in devices.ordered_columns]
            assert sum(left[: titles.index("HEALTH") + 1]) <= 80
            live.happen(Notice(message="word " * 40 + "end"))
            log = app.query_one("#events", RichLog)
            await until(pilot, lambda: any("end" in line.text for line in log.lines), "the event")
            assert max(line.cell_length for line in log.lines) <= log.scrollable_content_region.width

    anyio.run(run, backend="asyncio")


def test_a_dumb_terminal_gets_the_table_again_and_again(live: Served) -> None:
    shown, terminal = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "stoker.cli", "top"],
        env={**os.environ, "TERM": "dumb"}, stdin=terminal, stdout=terminal, stderr=terminal,
    ) as running:  # fmt: skip
        os.close(terminal)
        text = b""
        while text.count(b"SERVICE") < 2:
            text += os.read(shown, 4096)
        running.send_signal(signal.SIGINT)
        assert running.wait(30) in {0, 130}  # between two tables, or while one is being made
    os.close(shown)
    assert b"infer" in text
    assert b"\x1b" not in text


def test_enter_tells_why_and_leads_back(live: Served) -> None:
    async def act(app: Top, pilot: Any) -> None:
        await pilot.press("down", "enter")
        await until(pilot, lambda: isinstance(app.screen, Detail), "the answer")
        words = app.screen.query_one("#words")
        await until(pilot, lambda: "rounded up" in str(words.render()), "why")
        await pilot.press("enter")
        await until(pilot, lambda: not isinstance(app.screen, Detail), "back")
        await pilot.press("tab", "enter")
        await until(pilot, lambda: isinstance(app.screen, Detail), "the replica's answer")
        words = app.screen.query_one("#words")
        await until(pilot, lambda: "pid 4242" in str(words.render()), "its story")

    on_screen(live, act)


def test_keys_scale_stop_and_cordon_and_what_disturbs_wants_two_presses(
    live: Served, daemon: FakeDaemon
) -> None:
    async def act(app: Top, pilot: Any) -> None:
        await pilot.press("down", "plus")
        await until(pilot, lambda: ("scale", "rag/infer", 0, 9) in daemon.calls, "one more")
        await pilot.press("s")
        await pilot.pause(0.3)
        assert ("hold", "rag/infer", True) not in daemon.calls
        await pilot.press("s")
        await until(pilot, lambda: ("hold", "rag/infer", True) in daemon.calls, "stopped")
        await pilot.press("tab", "tab", "c")
        await until(pilot, lambda: ("mark_device", GPU, "cordoned") in daemon.calls, "cordoned")

    on_screen(live, act)


def test_it_waits_for_the_next_daemon(daemon: FakeDaemon, tmp_path: Path) -> None:
    async def run() -> None:
        path = tmp_path / "s.sock"
        app = Top(Client([str(path)]))

        def said(words: str) -> bool:
            return words in str(app.query_one("#headline").render())

        async with app.run_test(size=(120, 30)) as pilot:
            await until(pilot, lambda: said("no daemon answers"), "no daemon")
            with served(daemon, path):
                await until(pilot, lambda: said("generation 4 in force"), "the daemon")
            await until(pilot, lambda: said("["), "it has gone")
            with served(daemon, path):
                await until(pilot, lambda: not said("["), "it is back")

    anyio.run(run, backend="asyncio")


def test_a_pipe_gets_the_table_once(live: Served, stoker: Callable[..., Result]) -> None:
    result = stoker("top")
    assert result.code == 0
    assert "infer" in result.out
    assert "\x1b" not in result.out
