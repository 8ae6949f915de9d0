"""Finds the workers of an earlier daemon and takes them over, so that its death harms nobody.

A worker is recognised by the mark in its environment (STOKER_ID), which no crash can separate from it;
what the mark cannot hold (revision, devices, port) stands in the record written before its start.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from stoker.model.event import Event, Notice, StopSignalled, WorkerAdopted
from stoker.model.replica import WorkerHandle
from stoker.plugin.ports import FoundWorker, WorkerDriver
from stoker.plugin.processes import boot_id
from stoker.runtime.actuator import Actuator
from stoker.runtime.store import Store, WorkerRecord


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
) -> int:
    """Take over every live worker; returns how many. Called once, before the control loop runs.

    A live worker without a record cannot be used (nobody knows its port or its devices) and is ended; a
    record without a live worker is dropped, which frees its devices. Where the driver is missing nobody knows
    whether it lives: it is said, and the record stays for a daemon that has the driver.
    """
    records = {record.replica: record for record in store.workers()}
    adopted = 0
    for driver in drivers.values():
        recovered = []
        for found in await driver.find():
            record = records.pop(found.mark.rpartition(":")[2], None)
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
