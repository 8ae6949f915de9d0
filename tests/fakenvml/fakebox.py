"""Drive the fake NVML from a test: build a box, then change it while readers run.

    box = FakeBox.preset("8xh100", path)       # writes the state file
    box.environ                                # LD_LIBRARY_PATH and FAKENVML_STATE for the process under test
    box.proc(0, pid=4242, mem=10 << 30)        # a (foreign) process takes memory
    box.xid(3, 79); box.lose(3)                # an Xid event, then "GPU is lost"
    box.driver(loaded=False)                   # nvmlInit -> DRIVER_NOT_LOADED

Every change is one atomic rename under an flock, so several processes may edit.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fakenvml.build import library
from fakenvml.presets import PRESETS, State

GIB = 1 << 30
SINGLE_BIT_ECC, DOUBLE_BIT_ECC, XID = 1, 2, 8
"""Event types."""

Which = int | str
"""A device by its place in the state file or by its UUID."""


class FakeBox:
    """One state file. `old`: read through the library of a 470-series driver."""

    def __init__(self, path: str | Path, state: State | None = None, *, old: bool = False) -> None:
        self.path = os.path.abspath(path)
        self.old = old
        if state is not None:
            self._write(state)

    @classmethod
    def preset(cls, name: str, path: str | Path, *, old: bool = False) -> FakeBox:
        """A new box of that name (see presets.py)."""
        return cls(path, PRESETS[name](), old=old)

    @property
    def environ(self) -> dict[str, str]:
        """What a process needs in its environment at its start to see this box and no other."""
        return {"LD_LIBRARY_PATH": str(library(old=self.old)), "FAKENVML_STATE": self.path}

    @property
    def uuids(self) -> list[str]:
        """The UUIDs of all GPUs of the state file, lost and removed ones too, in its order."""
        return [device["uuid"] for device in self.read()["devices"]]

    def read(self) -> State:
        """The state as it stands."""
        return json.loads(Path(self.path).read_text())

    @contextlib.contextmanager
    def edit(self) -> Iterator[State]:
        """Change the state in place; it is written at the end."""
        with open(f"{self.path}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            state = self.read()
            yield state
            self._write(state)

    def set(self, dev: Which | None = None, **members: Any) -> None:
        """Set members of a device, or of the whole state."""
        with self.edit() as state:
            (state if dev is None else _device(state, dev)).update(members)

    def proc(self, dev: Which, pid: int, mem: int | None, *, kind: str = "C", **members: Any) -> None:
        """Put a process on a device; `mem` in bytes, None is "not available". Members: gi ci sm name reap."""
        process = {"pid": pid, "mem": mem, "type": kind, **members}
        with self.edit() as state:
            processes = _device(state, dev).setdefault("processes", [])
            processes[:] = [p for p in processes if p["pid"] != pid or p.get("type") != kind] + [process]

    def unproc(self, pid: int) -> None:
        """Take a process off all devices."""
        with self.edit() as state:
            for device in state["devices"]:
                device["processes"] = [p for p in device.get("processes", []) if p["pid"] != pid]

    def event(self, dev: Which, kind: int, data: int = 0, **members: Any) -> None:
        """Send an event, once, to everyone who has registered for it. Members: gi ci."""
        with self.edit() as state:
            events = state.setdefault("events", [])
            seq = events[-1]["seq"] + 1 if events else 1
            uuid = _device(state, dev)["uuid"]
            events.append({"seq": seq, "device": uuid, "type": kind, "data": data, **members})

    def xid(self, dev: Which, code: int, **members: Any) -> None:
        """Send an Xid event."""
        self.event(dev, XID, code, **members)

    def lose(self, dev: Which, *, lost: bool = True) -> None:
        """The GPU falls off the bus (or comes back): it is counted, but no call on it works."""
        self.set(dev, lost=lost)

    def remove(self, dev: Which, *, removed: bool = True) -> None:
        """The GPU is taken out: later indices shift."""
        self.set(dev, removed=removed)

    def error(self, function: str, code: int | str | None, dev: Which | None = None) -> None:
        """Let a function (or glob) answer an error from now on; None ends that."""
        self._rule("errors", function, code, dev)

    def hang(self, function: str, milliseconds: int | None, dev: Which | None = None) -> None:
        """Let a function (or glob) sleep first; None ends that."""
        self._rule("hang_ms", function, milliseconds, dev)

    def driver(self, *, loaded: bool, code: str = "DRIVER_NOT_LOADED") -> None:
        """Unload the driver, or load it again; `code` is what all calls answer without it."""
        with self.edit() as state:
            state["driver_loaded"] = loaded
            errors = state.setdefault("errors", {})
            errors.pop("*", None)
            if not loaded:
                errors["*"] = code

    def _rule(self, table: str, function: str, value: Any, dev: Which | None) -> None:
        with self.edit() as state:
            rules = (state if dev is None else _device(state, dev)).setdefault(table, {})
            rules.pop(function, None)
            if value is not None:
                rules[function] = value

    def _write(self, state: State) -> None:
        fresh = f"{self.path}.{os.getpid()}.new"
        Path(fresh).write_text(json.dumps(state, indent=1))
        os.replace(fresh, self.path)


def _device(state: State, dev: Which) -> dict[str, Any]:
    if isinstance(dev, int):
        return state["devices"][dev]
    return next(device for device in state["devices"] if device["uuid"] == dev)


if __name__ == "__main__":
    made = FakeBox.preset(sys.argv[1], sys.argv[2])
    sys.stdout.write("".join(f"export {name}={value}\n" for name, value in made.environ.items()))
