"""What `/proc` tells of processes."""

from __future__ import annotations

import os

from stoker_process import procfs


def test_a_thread_of_the_kernel_is_known_and_has_no_mark() -> None:
    """Hundreds of them on a large box, and each is asked for a mark that it cannot have."""
    table = procfs.ProcessTable()
    assert not table.stats[os.getpid()].kernel
    for stat in table.stats.values():
        if stat.kernel:
            assert procfs.read_mark(stat.pid) == table.mark(stat.pid) == ""
