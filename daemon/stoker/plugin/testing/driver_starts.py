"""Cases of the driver suite: the state a worker is born in, and what is said when it cannot be."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import pytest

from stoker.errors import WorkerError
from stoker.model.replica import ExitStatus
from stoker.model.service import Limits
from stoker.plugin.ports import WorkerDriver
from stoker.plugin.testing.driver_bench import Bench, ended, refused, script, text_of, until

OF_THE_C_LIBRARY = 1 << 31 | 1 << 32
"""Signals 32 and 33: nobody can set them; they are ignored in all that glibc's posix_spawn has started."""


class Starts:
    """How workers start."""

    async def test_it_is_a_worker_driver(self, driver: WorkerDriver) -> None:
        """It has every method of the port."""
        assert isinstance(driver, WorkerDriver)

    async def test_a_worker_sees_its_environment_and_nothing_else(
        self, driver: WorkerDriver, bench: Bench
    ) -> None:
        """Byte for byte, with blanks, line ends and non-ASCII in values."""
        odd = {"EMPTY": "", "SPACES": " a  b ", "LINES": "a\nb", "ÜMLAUT": "größe", "lower.dotted": "x=y"}
        request = bench.request("env", "-0", environ=odd)
        status, output = await bench.run(driver, request)
        seen = dict(entry.split("=", 1) for entry in output.split("\0") if entry)
        assert status == ExitStatus(code=0)
        assert seen == dict(request.environ)

    async def test_a_worker_runs_in_its_directory_with_closed_input(
        self, driver: WorkerDriver, bench: Bench
    ) -> None:
        """The working directory is the one asked for; reading input finds its end at once."""
        place = bench.directory / "work here"
        place.mkdir()
        request = bench.request("sh", "-c", "pwd; cat; echo done", working_dir=str(place))
        assert await bench.run(driver, request) == (ExitStatus(code=0), f"{place}\ndone\n")

    async def test_a_worker_has_only_the_three_standard_descriptors(
        self, driver: WorkerDriver, bench: Bench
    ) -> None:
        """Not even one that the daemon itself was given as inheritable."""
        reader, writer = os.pipe()
        os.set_inheritable(writer, True)  # noqa: FBT003 - its arguments have no names
        try:
            handle = await driver.start(bench.request("sleep", "600"))
        finally:
            os.close(reader)
            os.close(writer)
        # While its libraries are loaded it has one of them open at times.
        await until(lambda: sorted(os.listdir(f"/proc/{handle.pid}/fd")) == ["0", "1", "2"], "three are open")

    async def test_a_worker_starts_with_default_signals(self, driver: WorkerDriver, bench: Bench) -> None:
        """Nothing is ignored or blocked, though the daemon ignores SIGPIPE and, here, SIGHUP and SIGINT."""
        before = {signum: signal.signal(signum, signal.SIG_IGN) for signum in (signal.SIGHUP, signal.SIGINT)}
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        try:
            _, output = await bench.run(
                driver, bench.request("grep", "-E", "Sig(Ign|Blk)", "/proc/self/status")
            )
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            for signum, disposition in before.items():
                signal.signal(signum, disposition)
        ours = [int(line.split()[1], 16) & ~OF_THE_C_LIBRARY for line in output.splitlines()]
        assert ours == [0, 0]

    async def test_a_worker_leads_a_session_of_its_own(self, driver: WorkerDriver, bench: Bench) -> None:
        """So that no signal to the daemon's terminal reaches it."""
        handle = await driver.start(bench.request("sleep", "600"))
        assert os.getsid(handle.pid) == os.getpgid(handle.pid) == handle.pid

    async def test_the_log_is_appended_to(self, driver: WorkerDriver, bench: Bench) -> None:
        """Output and errors of both lives of a replica, in directories that are made when needed."""
        request = bench.request("sh", "-c", "echo out; echo err >&2")
        path = bench.directory / "deep" / "er" / "web.log"
        for _ in range(2):
            await ended(driver, await driver.start(replace(request, log_path=str(path))))
        assert path.read_text() == "out\nerr\nout\nerr\n"
        assert path.parent.stat().st_mode & 0o007 == 0

    @pytest.mark.parametrize("name", ["tool", "./bin/tool", "bin/tool"])
    async def test_the_command_is_looked_up_for_the_worker(
        self, driver: WorkerDriver, bench: Bench, name: str
    ) -> None:
        """With the PATH of the worker, relative paths from its directory."""
        script(bench.directory / "bin" / "tool", "echo $0 $1")
        request = bench.request(name, "x", environ={"PATH": f"/nowhere:{bench.directory}/bin:/usr/bin:/bin"})
        status, output = await bench.run(driver, request)
        assert status == ExitStatus(code=0)
        assert output.split()[-1] == "x"

    async def test_limits_hold(self, driver: WorkerDriver, bench: Bench) -> None:
        """The number of open files is what was declared."""
        request = bench.request("sh", "-c", "ulimit -n; ulimit -Hn", limits=Limits(nofile=123, pids=77))
        assert await bench.run(driver, request) == (ExitStatus(code=0), "123\n123\n")

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root may run workers as others")
    async def test_a_worker_runs_as_its_user(self, driver: WorkerDriver, bench: Bench) -> None:
        """With that user's ids and groups, and none of root's."""
        _, output = await bench.run(driver, bench.request("id", user="nobody", working_dir="/"))
        assert "uid=65534(nobody)" in output
        assert "root" not in output

    async def test_an_unknown_command_is_told(self, driver: WorkerDriver, bench: Bench) -> None:
        """The command, the PATH it was looked for in, and that trying again is no use."""
        request = bench.request("no-such-tool", environ={"PATH": "/nowhere:/usr/bin"})
        await refused(driver, request, "no-such-tool", "/nowhere:/usr/bin")
        assert text_of(request.log_path) == ""

    @pytest.mark.parametrize("path", ["./missing", "/missing/altogether"])
    async def test_an_unknown_path_is_told(self, driver: WorkerDriver, bench: Bench, path: str) -> None:
        """The path as it was written."""
        await refused(driver, bench.request(path), path)

    async def test_a_file_that_cannot_be_executed_is_told(self, driver: WorkerDriver, bench: Bench) -> None:
        """Not executable, no program at all, and a script whose interpreter is missing."""
        tool = script(bench.directory / "tool", "exit 0")
        tool.chmod(0o600)
        await refused(driver, bench.request("./tool"), "not executable", "chmod")
        tool.write_bytes(b"\x01\x02\x03")
        tool.chmod(0o700)
        await refused(driver, bench.request("./tool"), "./tool", "#!")
        tool.write_text("#!/missing/interpreter -x\n")
        await refused(driver, bench.request("./tool"), "/missing/interpreter")

    async def test_a_bad_working_directory_is_told(self, driver: WorkerDriver, bench: Bench) -> None:
        """Missing, or a file."""
        (bench.directory / "file").touch()
        await refused(
            driver, bench.request("true", working_dir="/no/such/dir"), "/no/such/dir", "working_dir"
        )
        await refused(
            driver, bench.request("true", working_dir=str(bench.directory / "file")), "not a directory"
        )

    async def test_an_unknown_user_is_told(self, driver: WorkerDriver, bench: Bench) -> None:
        """By name."""
        await refused(driver, bench.request("true", user="no-such-user"), "no-such-user")

    async def test_strings_that_no_process_can_be_given_are_told(
        self, driver: WorkerDriver, bench: Bench
    ) -> None:
        """NUL characters, an empty command, an impossible variable; never a variable's value."""
        await refused(driver, bench.request("true", "a\0b"), "NUL")
        await refused(driver, bench.request(), "empty")
        error = await refused(driver, bench.request("true", environ={"A=B": "hush"}), "A=B")
        assert "hush" not in error

    async def test_a_log_that_cannot_be_opened_is_told(self, driver: WorkerDriver, bench: Bench) -> None:
        """It may be a full disk, so it is worth another try."""
        (bench.directory / "file").touch()
        request = bench.request("true", log_path=str(bench.directory / "file" / "web.log"))
        with pytest.raises(WorkerError, match=r"web\.log") as caught:
            await driver.start(request)
        assert not caught.value.permanent
