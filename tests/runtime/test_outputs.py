"""When workers' output is forwarded to the journal, and that somebody does it."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import anyio
import psutil
import pytest

from stoker.model.event import ConfigApplied, WorkerExited
from stoker.model.replica import ExitStatus
from stoker.model.service import BoxSpec, Command, DesiredState, LogRules, ServiceSpec
from stoker.runtime.outputs import JournalFeed

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]
NAMES = ("web", "loud")


def desired(journal: str = "always", **muted: bool) -> DesiredState:
    specs = [
        ServiceSpec(
            deployment="rag",
            name=name,
            launch=Command(argv=("x",)),
            working_dir="/",
            logs=LogRules(journal=name not in muted),
        )
        for name in NAMES
    ]
    return DesiredState(
        services={spec.key: spec for spec in specs}, box=BoxSpec(journal=journal), generation=1
    )


class Place:
    """A feed, its wishes, and the journal."""

    def __init__(self, directory: Path, wish: DesiredState, *, ours: bool) -> None:
        self.wish = wish
        self.told: list[str] = []
        self.logs = directory / "logs"
        self.journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.journal.bind(str(directory / "socket"))
        self.journal.setblocking(False)
        self.heard: list[str] = []
        self.feed = JournalFeed(
            str(directory),
            lambda: self.wish,
            ours=ours,
            trouble=self.told.append,
            socket=str(directory / "socket"),
        )

    def write(self, service: str, text: str) -> None:
        """As a worker does."""
        path = self.logs / "rag" / service / f"{service}-1.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as log:
            log.write(text)

    def want(self, wish: DesiredState) -> None:
        """Another file comes into force."""
        self.wish = wish
        self.feed.after_event(ConfigApplied(generation=2))

    def program(self) -> int:
        """The pid of the program, 0 where none runs."""
        for child in psutil.Process().children():
            with suppress(psutil.Error):
                if str(self.logs) in child.cmdline() and child.status() != psutil.STATUS_ZOMBIE:
                    return child.pid
        return 0

    def messages(self) -> list[str]:
        """What the journal has got."""
        with suppress(BlockingIOError):
            while raw := self.journal.recv(65536):
                self.heard.append(raw.partition(b"\n")[0].decode().removeprefix("MESSAGE="))
        return self.heard


@asynccontextmanager
async def running(directory: Path, wish: DesiredState, *, ours: bool = False) -> AsyncIterator[Place]:
    place = Place(directory, wish, ours=ours)
    try:
        async with anyio.create_task_group() as tasks:
            await tasks.start(place.feed.run)
            yield place
            tasks.cancel_scope.cancel()
        assert place.program() == 0, "it ends with its daemon"
    finally:
        place.journal.close()


async def until(condition: Callable[[], object]) -> None:
    with anyio.fail_after(30):
        while not condition():
            await anyio.sleep(0.02)


@pytest.mark.parametrize(
    ("wish", "ours", "forwards"),
    [("auto", True, True), ("auto", False, False), ("always", False, True), ("never", True, False)],
)
async def test_who_is_forwarded(tmp_path: Path, wish: str, ours: bool, forwards: bool) -> None:
    async with running(tmp_path, desired(wish), ours=ours) as place:
        assert (tmp_path / "journal" / "positions").exists() == forwards
        place.write("web", "from its first line on\n")
        if forwards:
            await until(lambda: place.messages() == ["from its first line on"])
        assert bool(place.program()) == forwards


async def test_another_file_is_followed_at_once(tmp_path: Path) -> None:
    async with running(tmp_path, desired(loud=True)) as place:
        place.write("loud", "not this\n")
        place.write("web", "one\n")
        await until(lambda: place.messages() == ["one"])
        place.want(desired("never"))
        await until(lambda: not (tmp_path / "journal" / "positions").exists())
        assert place.program() == 0
        place.write("web", "nor this\n")
        place.want(desired())
        await until(place.program)
        place.write("loud", "two\n")
        await until(lambda: place.messages() == ["one", "two"])
        assert place.told == []


async def test_a_config_that_says_the_same_of_it_touches_nothing(tmp_path: Path) -> None:
    async with running(tmp_path, desired()) as place:
        await until(place.program)
        before = place.program()
        place.want(replace(desired(), generation=2))
        place.write("web", "one\n")
        await until(lambda: place.messages() == ["one"])
        assert place.program() == before


async def test_a_program_that_is_killed_is_told_and_started_again(tmp_path: Path) -> None:
    async with running(tmp_path, desired()) as place:
        await until(place.program)
        before = place.program()
        os.kill(before, signal.SIGKILL)
        await until(lambda: place.program() not in (0, before))
        place.write("web", "one\n")
        await until(lambda: place.messages() == ["one"])
        assert len(place.told) == 1
        assert "SIGKILL" in place.told[0]


async def test_last_words_need_no_line_end(tmp_path: Path) -> None:
    async with running(tmp_path, desired()) as place:
        await until(place.program)
        place.write("web", "whole\nSegmentation fault")
        await until(lambda: place.messages() == ["whole"])
        place.feed.after_event(WorkerExited(replica="web-1", service="rag/web", status=ExitStatus(signal=11)))
        await until(lambda: place.messages() == ["whole", "Segmentation fault"])


async def test_where_nothing_can_be_written_it_is_said_and_all_else_goes_on(tmp_path: Path) -> None:
    (tmp_path / "journal").write_text("in the way")
    async with running(tmp_path, desired()) as place:
        await until(lambda: place.told)
        assert "not forwarded to the journal" in place.told[0]
        assert place.program() == 0
