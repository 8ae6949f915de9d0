"""Workers beside their GPUs: the cores and the memory of the node, within what is allowed."""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from stoker.plugin.numa import cores_of, near
from stoker_process.spawner import Order, Spawner

pytestmark = [pytest.mark.anyio, pytest.mark.system]


PATH = {"PATH": "/usr/bin:/bin"}


@pytest.fixture
async def spawner(anyio_backend: str) -> AsyncIterator[Spawner]:
    with closing(Spawner()) as spawner:
        yield spawner


@pytest.fixture
def log_file(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def nodes(tmp_path: Path) -> Path:
    """Two nodes of four cores."""
    for node, cores in enumerate(("0-3", "4,5,6-7")):
        (tmp_path / f"node{node}").mkdir()
        (tmp_path / f"node{node}" / "cpulist").write_text(cores + "\n")
    return tmp_path


def test_the_kernels_sets_are_read() -> None:
    assert cores_of("0-3,8,10-11\n") == {0, 1, 2, 3, 8, 10, 11}
    assert cores_of("\n") == frozenset()


def test_the_cores_of_the_node_within_the_allowed_ones(nodes: Path) -> None:
    assert near(1, range(8), nodes=nodes) == (4, 5, 6, 7)
    assert near(1, {2, 3, 4, 5}, nodes=nodes) == (4, 5)


def test_nothing_is_set_where_it_would_change_nothing_or_leave_nothing(nodes: Path) -> None:
    assert near(1, {4, 5}, nodes=nodes) == ()
    assert near(1, {0, 1}, nodes=nodes) == ()
    assert near(7, range(8), nodes=nodes) == ()


async def test_a_worker_is_born_on_its_cores_and_prefers_its_memory(
    spawner: Spawner, log_file: int, tmp_path: Path
) -> None:
    core = max(os.sched_getaffinity(0))
    script = "grep Cpus_allowed_list /proc/self/status; cat /proc/self/numa_maps 2>/dev/null | head -1"
    order = Order(
        path="/bin/sh",
        argv=("sh", "-c", script),
        env={"PATH": "/usr/bin:/bin"},
        cwd="/",
        cores=(core,),
        node=0,
    )
    birth = await spawner.spawn(order, log_file)
    assert birth.step == ""
    os.waitpid(birth.pid, 0)
    said = (tmp_path / "log").read_text()
    assert f"Cpus_allowed_list:\t{core}\n" in said
    policy = said.splitlines()[1].split()[1] if len(said.splitlines()) > 1 else "no NUMA in this kernel"
    # Where a container forbids the call, the worker runs with the default policy.
    assert policy in ("prefer:0", "default", "no NUMA in this kernel")


async def test_a_core_that_is_not_there_does_not_hold_up_a_worker(
    spawner: Spawner, log_file: int, tmp_path: Path
) -> None:
    order = Order(path="/bin/echo", argv=("echo", "alive"), env={}, cwd="/", cores=(4095,), node=None)
    birth = await spawner.spawn(order, log_file)
    assert birth.step == ""
    os.waitpid(birth.pid, 0)
    assert (tmp_path / "log").read_text() == "alive\n"
