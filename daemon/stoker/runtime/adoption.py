"""Finds the workers of an earlier daemon and takes them over, so that its death harms nobody.

A worker is recognised by the mark in its environment (STOKER_ID), which no crash can separate from it;
what the mark cannot hold (revision, devices, port) stands in the record written before its start.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial

import anyio
from anyio.abc import TaskGroup

from stoker.errors import WorkerError
from stoker.model.event import Event, Notice, StopSignalled, WorkerAdopted
from stoker.model.replica import WorkerHandle
from stoker.plugin.ports import FoundWorker, WorkerDriver
from stoker.plugin.processes import boot_id
from stoker.runtime.actuator import Actuator
from stoker.runtime.store import Store, WorkerRecord

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Seconds until a driver that could not tell is asked again; doubles from one time to the next."""


def to_be_taken_over(store: Store) -> bool:
    """Whether a daemon before has left workers that may be alive."""
    boot = boot_id()
    return any(record.handle is not None and record.handle.boot_id == boot for record in store.workers())


async def adopt(
    *,
    store: Store,
    drivers: Mapping[str, WorkerDriver],
    actuator: Actuator,
    post: Callable[[Event], None],
    later: Callable[[str, WorkerDriver], None] = lambda name, driver: None,
) -> int:
    """Take over every live worker; returns how many. Called once, before the control loop runs.

    A live worker without a record cannot be used (nobody knows its port or its devices) and is ended; a
    record without a live worker is dropped, which frees its devices. Where the driver is missing nobody knows
    whether it lives: it is said, and the record stays for a daemon that has the driver. Where the driver
    cannot tell now, every worker with a record counts as alive, and `later` is called for it (`find_again`).
    """
    records = {record.replica: record for record in store.workers()}
    owners = {replica: record.driver for replica, record in records.items()}
    adopted = 0
    for name, driver in drivers.items():
        recovered = []
        try:
            every = await driver.find()
        except WorkerError as error:
            recovered = _presumed(records, name)
            held = f"; {len(recovered)} of its workers count as alive until it answers" if recovered else ""
            post(Notice(message=f"backend {name}: {error}{held}", severity="warning"))
            later(name, driver)
            every = ()
        for found in every:
            replica = found.mark.rpartition(":")[2]
            if owners.get(replica, name) != name:
                continue  # in a container, say: one driver starts it, another one sees its processes as well
            record = records.pop(replica, None)
            if record is None:
                await _end(driver, found, post)
            else:
                recovered.append((record, await driver.recover(found)))
        # Without a pause, so that what watches each of them begins when all of them are known.
        for record, handle in recovered:
            _take_over(record, handle, post)
            actuator.adopt(record, handle, driver)
        adopted += len(recovered)
    for replica, record in records.items():
        if record.driver in drivers:
            actuator.drop(replica)
    missing = Counter(record.driver for record in records.values() if record.driver not in drivers)
    for name, count in missing.items():
        words = (
            f"{count} worker{'s' * (count > 1)} of backend {name} cannot be taken over and run on untended: "
            "its plugin is not there or failed to load (see `stoker plugins`)"
        )
        post(Notice(message=words, severity="error"))
    return adopted


def _presumed(records: dict[str, WorkerRecord], name: str) -> list[tuple[WorkerRecord, WorkerHandle]]:
    """Those that were running when their daemon ended, taken out of the records."""
    found = [
        (record, record.handle)
        for record in records.values()
        if record.driver == name and record.handle is not None
    ]
    for record, _ in found:
        del records[record.replica]
    return found


def again_in(
    tasks: TaskGroup, store: Store, post: Callable[[Event], None]
) -> Callable[[str, WorkerDriver], None]:
    """What `adopt` calls for a driver that could not tell: that one is asked again in `tasks`."""

    def later(name: str, driver: WorkerDriver) -> None:
        tasks.start_soon(partial(find_again, name, driver, store=store, post=post))

    return later


async def find_again(name: str, driver: WorkerDriver, *, store: Store, post: Callable[[Event], None]) -> None:
    """Ask a driver that could not tell until it can, and have it take over what is still what it was. Workers
    that nobody knows are ended; those that are gone their driver tells to who waits for them."""
    pause = FIRST_PAUSE
    while True:
        await anyio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
        try:
            every = await driver.find()
            break
        except WorkerError:
            continue
    records = {record.replica: record for record in store.workers()}
    known = 0
    for found in every:
        record = records.get(found.mark.rpartition(":")[2])
        if record is not None and (record.driver != name or record.handle is None):
            continue  # another driver's, or being started just now
        if record is not None and record.handle is not None and _same(record.handle, found.handle):
            await driver.recover(found)
            known += 1
        else:
            await _end(driver, found, post)
    post(Notice(message=f"backend {name} answers again: {known} of its workers are there"))


def _same(one: WorkerHandle, other: WorkerHandle) -> bool:
    return (one.start_time, one.boot_id, one.extra) == (other.start_time, other.boot_id, other.extra)


def _take_over(record: WorkerRecord, handle: WorkerHandle, post: Callable[[Event], None]) -> None:
    post(
        WorkerAdopted(
            replica=record.replica,
            service=record.service,
            handle=handle,
            endpoint=record.endpoint,
            revision=record.revision,
            reservations=record.reservations,
            restarts=record.restarts,
            ready=record.ready and not record.stopping,
            created=record.created,
            devices_reason=record.devices_reason,
            depends=record.depends,
        )
    )
    if record.stopping:
        # By the daemon before, and it may be as good as gone: nobody may send it a request.
        post(
            StopSignalled(
                replica=record.replica, service=record.service, reason=record.stopping, leave=record.leave
            )
        )


async def _end(driver: WorkerDriver, found: FoundWorker, post: Callable[[Event], None]) -> None:
    handle = await driver.recover(found)
    await driver.kill(handle)
    message = f"ended pid {found.handle.pid} ({found.mark}): a worker of an earlier daemon without a record"
    post(Notice(message=message, severity="warning"))
