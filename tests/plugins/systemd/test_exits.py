"""How the end of a unit is read."""

import pytest

from stoker.model.replica import ExitStatus

driver = pytest.importorskip("stoker_systemd.driver", exc_type=ImportError)

UNSET = 2**64 - 1
ENDED = {
    "ExecMainExitTimestampMonotonic": 1,
    "ExecMainCode": 1,
    "ExecMainStatus": 0,
    "Result": "success",
    "MemoryMax": UNSET,
}


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, ExitStatus(code=0)),
        ({"ExecMainStatus": 3}, ExitStatus(code=3)),
        ({"ExecMainCode": 2, "ExecMainStatus": 15}, ExitStatus(signal=15)),
        ({"ExecMainCode": 3, "ExecMainStatus": 11}, ExitStatus(signal=11)),
        (
            {"ExecMainCode": 2, "ExecMainStatus": 9, "Result": "oom-kill", "MemoryMax": 64 * 2**20},
            ExitStatus(signal=9, detail="out of memory: used up its limit of 64Mi", oom=True),
        ),
        (
            {"ExecMainCode": 2, "ExecMainStatus": 9, "Result": "oom-kill"},
            ExitStatus(signal=9, detail="out of memory", oom=True),
        ),
        ({"ExecMainExitTimestampMonotonic": 0}, ExitStatus(detail="systemd does not know how it ended")),
    ],
)
def test_what_systemd_says_becomes_an_exit(changes: dict[str, object], status: ExitStatus) -> None:
    assert driver._status(ENDED | changes, "/no/such/log") == status


def test_a_unit_that_is_gone() -> None:
    assert driver._status({}, "") == ExitStatus(detail="systemd does not know how it ended")
