"""Stoker runs model services as scaled, pinned, isolated worker pools on a GPU box you own.

For users' code: `stoker.service`, the decorator whose values form the code layer of the
configuration. Importing this package costs nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["DECLARATION", "__version__", "service"]

__version__ = "0.1.0"

DECLARATION = "__stoker_service__"
"""Attribute under which a decorated application carries its declaration."""

T = TypeVar("T")


def service(**values: Any) -> Callable[[T], T]:
    """Declare defaults of a service next to its code: the layer under the deployment file.

    `values` are the keys of a service in the file (`instance_type`, `scaling`, `envs`, ...); they are
    validated when the deployment is loaded, with this file and line in the message. The decorated
    object is returned as it is.
    """
    import sys

    frame = sys._getframe(1)  # noqa: SLF001 - the only way to learn the caller's line
    declaration = {"values": values, "file": frame.f_code.co_filename, "line": frame.f_lineno}

    def decorate(target: T) -> T:
        setattr(target, DECLARATION, declaration)
        return target

    return decorate
