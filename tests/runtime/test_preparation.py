"""Images are fetched before anything waits for them, and the wait has its reason."""

from dataclasses import replace

import anyio
import pytest

from stoker.decide.lifecycle import fold
from stoker.decide.reconcile import reconcile
from stoker.errors import WorkerError
from stoker.model.action import HoldReplica, StartReplica
from stoker.model.event import ReplicaAdded, ServicePreparing, SpawnFailed
from stoker.model.service import Command, Container, DesiredState, ServiceSpec, revision
from stoker.model.state import ObservedState
from stoker.runtime import preparation
from stoker.runtime.preparation import Preparation
from stoker_fake.driver import FakeDriver

pytestmark = pytest.mark.anyio
SPEC = ServiceSpec(
    deployment="d",
    name="web",
    launch=Command(()),
    working_dir="",
    container=Container(image="web:1"),
    backend="x",
)
DESIRED = DesiredState(services={SPEC.key: SPEC})


class Fetching(FakeDriver):
    """Fails as often as it is told, and says what it fetches."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.fetched: list[str] = []

    async def prepare(self, spec, say) -> None:
        say(f"pulling image {spec.container.image}")
        if self.failures:
            self.failures -= 1
            raise WorkerError("no registry")
        self.fetched.append(spec.container.image)


async def told(driver: Fetching, *steps) -> list[str]:
    """The reasons that were told during these steps, each let run to its end."""
    said: list[ServicePreparing] = []
    async with anyio.create_task_group() as tasks:
        made = Preparation(
            tasks=tasks, driver=lambda name: driver, lookup=DESIRED.services.get, post=said.append
        )
        for step in steps:
            step(made)
            with anyio.fail_after(5):
                while not said or said[-1].reason:
                    await anyio.sleep(0.001)
    return [event.reason for event in said]


async def test_what_is_fetched_is_told_until_it_is_there(monkeypatch) -> None:
    monkeypatch.setattr(preparation, "SHORTEST", 0.001)
    driver = Fetching(failures=1)
    said = await told(driver, lambda made: made.consider(DESIRED))
    assert said == [
        "looks for the image web:1",
        "pulling image web:1",
        "no registry; tried again in 0.001 s",
        "pulling image web:1",
        "",
    ]


async def test_it_is_fetched_once_for_each_image_and_again_when_a_start_has_failed() -> None:
    driver = Fetching()
    other = replace(SPEC, container=Container(image="web:2"))
    failed = SpawnFailed(replica="web-a", service=SPEC.key, error="no image")
    await told(
        driver,
        lambda made: made.consider(DESIRED),
        lambda made: made.consider(DESIRED),
        lambda made: made.consider(replace(DESIRED, services={SPEC.key: other})),
        lambda made: made.after_event(failed),
    )
    assert driver.fetched == ["web:1", "web:2", "web:1"]


def test_no_worker_starts_meanwhile_and_the_reason_is_the_replicas() -> None:
    state = ObservedState()
    added = ReplicaAdded(replica="web-a", service=SPEC.key, revision=revision(SPEC), at=1.0, id="1")
    waiting = ServicePreparing(service=SPEC.key, reason="pulling image web:1", at=1.0, id="2")
    for event in (added, waiting):
        state = fold(state, event, DESIRED)
    [held] = [action for action in reconcile(DESIRED, state, 1.0).actions if action.replica == "web-a"]
    assert isinstance(held, HoldReplica)
    assert held.reason == "pulling image web:1"
    state = fold(state, replace(waiting, reason=""), DESIRED)
    assert any(isinstance(action, StartReplica) for action in reconcile(DESIRED, state, 1.0).actions)
