"""Tables and the live screen, as pictures."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from api.fakes import snapshot
from stoker.api.documents import status_document
from stoker.cli import status_text
from stoker.cli.live import screen
from stoker.cli.observers import wants_screen
from stoker.cli.rows import config_words, outage_lines
from stoker.cli.table import Cell, Column, Table, cells, render
from stoker.errors import ConfigProblem
from stoker.model.state import ObservedState


def picture(status: dict[str, Any], *, width: int = 100, height: int = 40) -> list[str]:
    console = Console(width=width, height=height, file=io.StringIO(), record=True)
    console.print(screen(status, width=width, height=height))
    return console.export_text().splitlines()


TABLE = Table(
    (Column("NAME", shrink=True), Column("N", right=True), Column("EMPTY")),
    (cells(["short", "1", ""]), (Cell("a very long name indeed", "red"), Cell("22"), Cell(""))),
)


def test_a_table_lines_up_and_leaves_out_empty_columns() -> None:
    assert render(TABLE, columns=None, colour=False) == [
        "NAME                      N",
        "short                     1",
        "a very long name indeed  22",
    ]


def test_a_narrow_terminal_shortens_what_may_be_shortened() -> None:
    lines = render(TABLE, columns=20, colour=False)
    assert lines[2] == "a very long nam…  22"
    assert max(map(len, lines)) == 20


def test_colours_are_only_added_where_they_are_wanted() -> None:
    assert "\x1b[31ma very long name indeed\x1b[0m" in render(TABLE, columns=None, colour=True)[2]


def test_an_empty_table_is_nothing() -> None:
    assert render(Table((Column("A"),), ()), columns=80, colour=False) == []


def test_the_live_screen_shows_pools_decisions_replicas_and_devices() -> None:
    text = "\n".join(picture(status_document(snapshot())))
    for expected in ("infer", "0..8", "in-flight 7.1 over 60 s", "infer-m2p4", "pending", "2 GPUs, 1 held"):
        assert expected in text


LONG = "crash loop: 7 failures in a row; next try in 34.9s; last: exit code 1: no file /models/m"


def broken(since: float = 60.0, **changes: Any) -> dict[str, Any]:
    """A status whose only service serves nothing."""
    status = status_document(snapshot())
    infer = next(one for one in status["services"] if one["name"] == "infer")
    replica = infer["replicas"][0] | {"phase": "pending", "reason": LONG, "since_s": since, **changes}
    status["services"] = [infer | {"ready": 0, "replicas": [replica]}]
    status["daemon"]["notices"] = ["the disk is full"]
    return status


def test_what_serves_nothing_and_what_is_noted_stands_on_the_live_screen() -> None:
    text = "\n".join(line.strip() for line in picture(broken(), width=80))
    assert f"infer serves nothing: {LONG}" in text.replace("\n", " ")
    assert "the disk is full" in text


@pytest.mark.parametrize(
    ("since", "changes", "named"),
    [
        (60.0, {}, True),
        (1.0, {}, False),
        (1.0, {"restarts": 2}, True),
        (60.0, {"reason": "it is wanted"}, False),
        (60.0, {"phase": "starting", "restarts": 0}, False),
        (60.0, {"phase": "starting", "restarts": 2}, True),
        (60.0, {"phase": "unready"}, True),
    ],
)
def test_a_start_is_no_outage(since: float, changes: dict[str, Any], *, named: bool) -> None:
    assert bool(outage_lines(broken(since, **changes))) is named


def test_a_reason_that_the_table_has_no_room_for_is_told_in_full(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status_text, "width", lambda: 80)
    status_text.show_status(broken(), everything=False)
    assert f"\ninfer-k3x9: {LONG}\n" in capsys.readouterr().out
    monkeypatch.setattr(status_text, "width", lambda: None)
    status_text.show_status(broken(), everything=False)
    assert capsys.readouterr().out.count(LONG) == 1


def test_a_rejected_configuration_gets_a_panel() -> None:
    faults = tuple(ConfigProblem(f"fault {n}", file="a.yaml", line=n + 1, column=1) for n in range(9))
    text = "\n".join(picture(status_document(snapshot(config_state="rejected", problems=faults))))
    assert "config rejected; the last good one runs" in text
    assert "a.yaml:1:1: fault 0" in text
    assert "and 4 more" in text


def test_a_small_terminal_is_not_overrun() -> None:
    first = snapshot().observed.replicas["infer-m2p4"]
    many = {f"infer-{n:04}": replace(first, id=f"infer-{n:04}", reason="word " * 60) for n in range(80)}
    lines = picture(status_document(snapshot(observed=ObservedState(replicas=many))), width=90, height=24)
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 90
    assert any("more replicas" in line for line in lines)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_screen_is_for_terminals_that_can() -> None:
    assert wants_screen(Terminal(), {"TERM": "xterm-256color"})
    assert not wants_screen(Terminal(), {"TERM": "dumb"})
    assert not wants_screen(Terminal(), {})
    assert not wants_screen(io.StringIO(), {"TERM": "xterm"})


@pytest.mark.parametrize(
    ("state", "generation", "words"),
    [
        ("in-force", 0, "starting, reading its config"),
        ("rejected", 0, "no config in force, the one there is was REJECTED"),
        ("in-force", 3, "config generation 3 in force"),
        ("rejected", 3, "config generation 3 in force, a newer one is REJECTED"),
    ],
)
def test_the_heading_says_which_configuration_is_in_force(state: str, generation: int, words: str) -> None:
    assert config_words({"state": state, "generation": generation, "errors": []}) == words
