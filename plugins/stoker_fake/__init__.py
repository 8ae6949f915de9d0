"""Devices, driver, router and prober that obey a script: for simulations and plugin authors.

    box = FakeBox()                                         # the machine that is not there
    box.behave("app/web", Script(ready_after=20), ...)      # how its workers behave
    FakeDriver(box), FakeDevices(box), FakeRouter(box), FakeProber(box)

All of it speaks anyio only and does no I/O, so it runs on a virtual clock. From a configuration:
`backend: fake` with a command such as `fake exit_after=30 exit_code=1`.
"""

from stoker_fake.box import FakeBox, FakeWorker
from stoker_fake.devices import FakeDevices, fake_devices
from stoker_fake.driver import FakeDriver
from stoker_fake.plugin import FakePlugin
from stoker_fake.prober import FakeProber
from stoker_fake.router import FakeRouter, RequestRefusedError
from stoker_fake.script import Script

__all__ = [
    "FakeBox",
    "FakeDevices",
    "FakeDriver",
    "FakePlugin",
    "FakeProber",
    "FakeRouter",
    "FakeWorker",
    "RequestRefusedError",
    "Script",
    "fake_devices",
]
