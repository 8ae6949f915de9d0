"""How a scenario asks: through pynvml, in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pynvml as n

from fakenvml.fakebox import FakeBox

MIB = 1 << 20
SCENARIOS: dict[str, tuple[str, bool, Callable[[FakeBox], None]]] = {}
"""Preset, whether the library is the 470-series one, and the function; by name."""


def scenario(preset: str, *, old: bool = False) -> Callable[[Callable[[FakeBox], None]], None]:
    def add(run: Callable[[FakeBox], None]) -> None:
        SCENARIOS[run.__name__] = (preset, old, run)

    return add


@contextmanager
def fails(code: int) -> Iterator[None]:
    """The call inside answers this NVML error."""
    try:
        yield
    except n.NVMLError as error:
        answer = error.value
    else:
        answer = n.NVML_SUCCESS
    assert answer == code, f"answer {answer}, not {code}"


def gpu(index: int = 0) -> Any:
    return n.nvmlDeviceGetHandleByIndex(index)


def gpus(count: int) -> list[Any]:
    n.nvmlInit()
    return [gpu(index) for index in range(count)]
