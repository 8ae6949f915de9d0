"""Services spread over several processes of the router: live, and nothing is lost when one dies or leaves."""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from system.harness import Box, Load

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

WORKER = Path(__file__).with_name("worker.py")
NAMES = ("a", "b", "c", "d")


def deployment(processes: int) -> str:
    service = {
        "command": [sys.executable, str(WORKER), "--port", "{port}"],
        "scaling": {"min_replicas": 1, "max_replicas": 1},
    }
    box = {"router_processes": processes}
    return json.dumps({"name": "app", "box": box, "services": dict.fromkeys(NAMES, service)})


def routers(box: Box) -> dict[int, str]:
    """The programs that run for this box, by pid: the folder of each, "run" for the first."""
    found = {}
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if "stoker_router" in line and str(box.directory) in " ".join(line):
            found[process.pid] = Path(line[line.index("--control") + 1]).parent.name
    return found


def record(box: Box) -> dict[str, list[str]]:
    return json.loads((box.directory / "state/routers.json").read_text())


def test_services_move_between_processes_and_no_request_is_lost(tmp_path: Path) -> None:
    with Box(tmp_path) as box, ExitStack() as stack:
        box.write(deployment(1))
        box.up()
        for name in NAMES:
            box.ready(name, 1)
        loads = {name: stack.enter_context(Load(box.service(name)["url"], threads=1)) for name in NAMES}

        def answers() -> None:
            for load in loads.values():
                load.more(20)

        answers()
        box.write(deployment(3))
        box.until(lambda: len(routers(box)) == 3, "three programs")
        box.until(lambda: sorted(map(len, record(box).values())) == [1, 1, 2], "each has its part")
        answers()

        # The death of one is bridged as ever, and the others notice nothing.
        before = routers(box)
        victim = next(pid for pid, folder in before.items() if folder == "stoker.2")
        os.kill(victim, signal.SIGKILL)
        box.until(lambda: len(routers(box)) == 3 and victim not in routers(box), "another in its place")
        assert before.keys() - routers(box).keys() == {victim}
        (hit,) = (name.rpartition("/")[2] for name in record(box)["stoker.2"])
        assert {name: load.failures for name, load in loads.items() if load.failures and name != hit} == {}
        assert len(loads[hit].failures) <= 1, "what it had in its hands, from one client"
        loads[hit].failures.clear()
        answers()

        # A daemon that takes over finds each where it is.
        places, programs = record(box), routers(box)
        box.kill()
        box.up()
        answers()
        assert record(box) == places
        assert routers(box) == programs
        box.until(lambda: all(box.service(name)["load"]["rps"] for name in NAMES), "the load of each")

        box.write(deployment(1))
        box.until(lambda: len(routers(box)) == 1, "the further ones have ended", seconds=40)
        assert set(record(box)) == {"stoker"}
        answers()
    assert all(load.failures == [] for load in loads.values())
    assert routers(box) == {}
