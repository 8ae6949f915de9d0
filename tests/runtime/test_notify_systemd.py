"""What systemd hears from the daemon."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from stoker.runtime.notify import SystemdNotifier

pytestmark = pytest.mark.anyio


class FakeSystemd:
    """The receiving end of NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.receiver.bind("\0" + address[1:] if address.startswith("@") else address)
        self.receiver.settimeout(5)

    def next(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self.receiver.recv(4096).decode().splitlines())

    def quiet(self) -> bool:
        self.receiver.setblocking(False)
        try:
            self.receiver.recv(4096)
        except BlockingIOError:
            return True
        finally:
            self.receiver.settimeout(5)
        return False


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FakeSystemd]:
    address = str(tmp_path / "notify") if request.param == "path" else f"@stoker-test-{os.getpid()}"
    fake = FakeSystemd(address)
    yield fake
    fake.receiver.close()


def notifier(fake: FakeSystemd, **extra: str) -> SystemdNotifier:
    return SystemdNotifier({"NOTIFY_SOCKET": fake.address, **extra})


def test_ready_carries_the_status_on_one_line(systemd: FakeSystemd) -> None:
    assert notifier(systemd).ready("3 services\nready")
    assert systemd.next() == {"READY": "1", "STATUS": "3 services ready"}


def test_ready_without_status_says_nothing_of_it(systemd: FakeSystemd) -> None:
    assert notifier(systemd).ready()
    assert systemd.next() == {"READY": "1"}


def test_reloading_carries_the_monotonic_time_in_microseconds(systemd: FakeSystemd) -> None:
    before = time.monotonic_ns() // 1000
    assert notifier(systemd).reloading()
    said = systemd.next()
    assert said["RELOADING"] == "1"
    assert before <= int(said["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000


def test_with_a_watchdog_these_are_signs_of_life_too(systemd: FakeSystemd) -> None:
    tell = notifier(systemd, WATCHDOG_USEC="20000")
    tell.ready()
    tell.reloading()
    assert systemd.next() == {"READY": "1", "WATCHDOG": "1"}
    assert systemd.next()["WATCHDOG"] == "1"


def test_stopping_and_status(systemd: FakeSystemd) -> None:
    tell = notifier(systemd)
    tell.stopping("draining")
    tell.status("2 left")
    assert systemd.next() == {"STOPPING": "1", "STATUS": "draining"}
    assert systemd.next() == {"STATUS": "2 left"}


async def test_without_systemd_everything_is_a_no_op() -> None:
    tell = SystemdNotifier({"WATCHDOG_USEC": "1000"})
    assert not tell.enabled
    assert not any([tell.ready(), tell.reloading(), tell.stopping(), tell.status("x")])
    with anyio.fail_after(5):
        await tell.run_watchdog()


def test_a_socket_that_is_gone_costs_a_warning_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert not SystemdNotifier({"NOTIFY_SOCKET": str(tmp_path / "none")}).ready()
    assert "READY=1" in caplog.text
    assert str(tmp_path / "none") in caplog.text


def test_a_full_queue_costs_a_bounded_wait(systemd: FakeSystemd, caplog: pytest.LogCaptureFixture) -> None:
    tell = notifier(systemd)
    began, sent = time.monotonic(), 0
    while tell.status(f"line {sent}"):
        sent += 1
        assert sent < 100_000, "the queue never filled up"
    assert sent > 0
    assert "did not take" in caplog.text
    assert time.monotonic() - began < 30
    while not systemd.quiet():
        pass
    assert tell.ready(), "and the next message gets through once there is room again"


@pytest.mark.parametrize(
    ("environ", "interval"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_interval_is_half_of_what_systemd_tolerates(
    environ: dict[str, str], interval: float | None
) -> None:
    assert SystemdNotifier(environ).watchdog_interval == interval


async def test_the_watchdog_speaks_until_cancelled(systemd: FakeSystemd) -> None:
    tell = notifier(systemd, WATCHDOG_USEC="20000")
    began = time.monotonic()
    async with anyio.create_task_group() as group:
        group.start_soon(tell.run_watchdog)
        for _ in range(3):
            assert await anyio.to_thread.run_sync(systemd.next) == {"WATCHDOG": "1"}
        group.cancel_scope.cancel()
    assert time.monotonic() - began >= 0.02, "three signs of life are two intervals of 10 ms"


async def test_a_long_drain_asks_for_time_with_every_sign_of_life(systemd: FakeSystemd) -> None:
    tell = notifier(systemd, WATCHDOG_USEC="20000")
    tell.stopping()
    assert systemd.next() == {"STOPPING": "1", "EXTEND_TIMEOUT_USEC": "30000"}
    async with anyio.create_task_group() as group:
        group.start_soon(tell.run_watchdog)
        for _ in range(2):
            said = await anyio.to_thread.run_sync(systemd.next)
            assert said == {"WATCHDOG": "1", "EXTEND_TIMEOUT_USEC": "30000"}
        group.cancel_scope.cancel()


async def test_no_watchdog_is_asked_for(systemd: FakeSystemd) -> None:
    with anyio.fail_after(5):
        await notifier(systemd).run_watchdog()
    assert systemd.quiet()
