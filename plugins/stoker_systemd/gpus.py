"""Which device files a worker may open: those of its own GPUs, and no other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

GPUS = Path("/proc/driver/nvidia/gpus")
SHARED = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "char-infiniband*")
"""What every user of a GPU needs: the driver's own files, and those by which GPUs of several boxes talk."""
ALL = ("char-nvidia*", *SHARED)


def allowed(uuids: Iterable[str], log: Callable[[str], None], gpus: Path = GPUS) -> list[str]:
    """The files (as DeviceAllow= names them) for the devices of these UUIDs."""
    wanted = set(uuids)
    if not wanted:
        return []
    minors = dict(_minors(gpus))
    if unknown := wanted - minors.keys():
        # A slice of a GPU, or a driver that says nothing here: its file cannot be told from the others'.
        log(f"workers on {', '.join(sorted(unknown))} may open the files of all GPUs: theirs is not known")
        return list(ALL)
    return [*(f"/dev/nvidia{minors[uuid]}" for uuid in sorted(wanted)), *SHARED]


def are_own(paths: Iterable[str]) -> bool:
    """Whether these files, as DeviceAllow= names them, are of a worker's own GPUs alone."""
    return ALL[0] not in paths


def _minors(gpus: Path) -> Iterator[tuple[str, str]]:
    for path in gpus.glob("*/information"):
        lines = (line.partition(":") for line in path.read_text(errors="replace").splitlines())
        found = {key.strip(): value.strip() for key, _, value in lines}
        if "GPU UUID" in found and found.get("Device Minor", "").isdecimal():
            yield found["GPU UUID"], found["Device Minor"]
