"""Cases of the conformance suite with a podman driver that runs as an account which is not root.

    python as_account.py UID GID DIRECTORY SOCKET NPROC CASE...

Everything is imported first: that account need not be able to read the interpreter or this checkout.
"""

import codecs
import inspect
import os
import signal
import sys
from contextlib import aclosing
from pathlib import Path

import anyio
import anyio._backends._asyncio

import stoker_podman.driver  # noqa: F401
from stoker.plugin.ports import WorkerDriver
from stoker.plugin.testing.driver import DriverSuite
from stoker.plugin.testing.driver_bench import Bench, ended, only

FACTORY = "stoker_podman.driver:PodmanDriver"
ENVIRON = {"PATH": "/usr/local/bin:/usr/bin:/bin"}


class Cases(DriverSuite):
    async def test_the_next_driver_takes_over(self, driver: WorkerDriver, bench: Bench) -> None:
        """As the suite has it, but with a shell: that account may not run this Python."""
        handle = await driver.start(bench.request("sh", "-c", "echo one; exec sleep 600"))
        await driver.aclose()
        async with aclosing(bench.driver()) as heir:
            found = await only(heir)
            assert found.handle == handle, (found.handle, handle)
            await heir.kill(await heir.recover(found))
            assert (await ended(heir, handle)).signal == signal.SIGKILL


async def run(case: str, directory: Path, options: dict[str, object]) -> None:
    directory.mkdir()
    bench = Bench(directory, factory=FACTORY, options=options, environ=ENVIRON)
    bench.contained = True
    test = getattr(Cases(), case)
    values = {"bench": bench, "code": 42, "signum": 15}
    try:
        async with aclosing(bench.driver()) as driver:
            wanted = inspect.signature(test).parameters
            await test(**{name: driver if name == "driver" else values[name] for name in wanted})
        print("passed", case, flush=True)
    finally:
        await bench.end_everything()


def main() -> None:
    uid, gid, directory, socket, nproc, *cases = sys.argv[1:]
    for encoding in ("ascii", "idna", "latin-1"):
        codecs.lookup(encoding)
    os.setgroups([])
    os.setgid(int(gid))
    os.setuid(int(uid))
    for case in cases:
        anyio.run(run, case, Path(directory, case), {"socket": socket, "nproc": int(nproc)})


if __name__ == "__main__":
    main()
