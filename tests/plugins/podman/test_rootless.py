"""The driver with a podman that is not root's: it and its podman run as an account that may do nothing."""

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from plugins.podman.conftest import PATIENCE, environ_of, lacking, pack_image, unmount

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

HERE = Path(__file__).parent
CASES = (
    "test_exit_codes_are_told",
    "test_deadly_signals_are_told",
    "test_a_signal_reaches_the_main_process_only",
    "test_the_last_line_is_short_and_printable",
    "test_the_log_is_appended_to",
    "test_a_worker_runs_in_its_directory_with_closed_input",
    "test_others_are_not_found",
    "test_the_gone_are_no_error",
    "test_the_next_driver_takes_over",
)


@pytest.fixture
def account() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam("daemon")
    except KeyError:
        pytest.skip("no account `daemon` on this machine")


@pytest.fixture
def place(account: pwd.struct_passwd) -> Iterator[Path]:
    """Where that account may go: the tests' own folders are for root alone."""
    if lacking():
        pytest.skip(lacking())
    place = Path(tempfile.mkdtemp(prefix="rl", dir="/tmp"))
    try:
        pack_image(place)
        environ_of(place, driver="vfs")
        for name in ("run", "cases"):
            (place / name).mkdir()
        for path in (place, *place.iterdir()):
            os.chown(path, account.pw_uid, account.pw_gid)
        yield place
    finally:
        _end_pause(place)
        unmount(place)
        shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def socket(place: Path, account: pwd.struct_passwd) -> Iterator[str]:
    environ = environ_of(place, driver="vfs") | {"XDG_RUNTIME_DIR": str(place / "run")}
    who = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": (), "cwd": place, "env": environ}
    words = ["podman", "run", "--rm", "--network=host", "--rootfs", str(place / "image"), "/bin/echo", "well"]
    tried = subprocess.run(words, **who, capture_output=True, text=True, check=False, timeout=3 * PATIENCE)
    if tried.stdout != "well\n":
        pytest.skip(f"podman runs nothing here without root: {tried.stderr.strip().rpartition(chr(10))[2]}")
    path = str(place / "s")
    with open(place / "service.log", "wb") as log:
        words = ["podman", "system", "service", "--time=0", f"unix://{path}"]
        service = subprocess.Popen(
            words, **who, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
        )
    try:
        until = time.monotonic() + 3 * PATIENCE
        while not os.path.exists(path):
            if service.poll() is not None or time.monotonic() > until:
                pytest.fail(f"podman does not serve: {(place / 'service.log').read_text()}")
            time.sleep(0.02)
        yield path
    finally:
        service.terminate()
        service.wait(PATIENCE)


def _end_pause(place: Path) -> None:
    """podman without root leaves a process that holds its namespaces."""
    with suppress(OSError, ValueError):
        pid = int((place / "run/libpod/tmp/pause.pid").read_text())
        if b"catatonit" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)


def test_containers_without_root(socket: str, place: Path, account: pwd.struct_passwd) -> None:
    words = [sys.executable, str(HERE / "as_account.py"), str(account.pw_uid), str(account.pw_gid)]
    words += [str(place / "cases"), socket, "16384", *CASES]
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(words, env=environ, capture_output=True, text=True, check=False, cwd="/")
    assert done.stdout.splitlines() == [f"passed {case}" for case in CASES], done.stderr
