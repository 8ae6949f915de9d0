"""What NVIDIA's error numbers (Xid) and recovery actions ask for. Pure.

The classes follow NVIDIA's catalogue of Xids and their immediate actions. A number that is not in it, and
number 154, say nothing by themselves: the recovery action that the driver keeps beside them decides.
"""

from __future__ import annotations

from collections.abc import Mapping

from stoker.model.device import FaultKind

RECOVERY_CHANGED = 154
"""The Xid that says: look at the recovery action."""

_APP = (
    8, 11, 13, 25, 31, 32, 39, 40, 41, 60, *range(68, 73), *range(75, 78), *range(80, 87), 88, 89, 94,
    *range(96, 106), *range(126, 136), 139,
)  # fmt: skip
_NOTE = (37, 38, 43, 44, 45, 48, 63, 66, 67, 92, 93, 106, 107, 108, 121, 137, 141, 152, 153, 157, 160, 161)
"""45 and 48 always come with another that says what to do."""
_DEVICE = (46, 62, 64, 95, 109, 110, 119, 120, 136, 140, 143, 155, 156, 158)
_FATAL = (79, 151)
_LINK = (74, *range(144, 151))

KINDS: Mapping[int, FaultKind] = {
    **dict.fromkeys(_APP, "app"),
    **dict.fromkeys(_NOTE, "note"),
    **dict.fromkeys(_DEVICE, "device"),
    **dict.fromkeys(_FATAL, "fatal"),
    **dict.fromkeys(_LINK, "link"),
}

_MEANING = {
    13: "graphics engine exception",
    31: "GPU memory page fault",
    32: "corrupted push buffer",
    43: "the program was stopped by a fault of its own",
    45: "a channel was removed in advance",
    48: "double-bit memory error",
    62: "internal micro-controller halt",
    63: "a row of memory is to be remapped",
    64: "a row of memory could not be remapped",
    69: "graphics engine class error",
    74: "NVLink error",
    79: "the GPU has fallen off the bus",
    92: "many single-bit memory errors",
    94: "contained memory error",
    95: "uncontained memory error",
    109: "context switch timeout",
    119: "the GPU's system processor does not answer",
    120: "error in the GPU's system processor",
    140: "memory error that was not recovered from",
    154: "the recovery action has changed",
}

_RECOVERY = {
    1: "a reset of the GPU",
    2: "a reboot of the box",
    3: "to be left by programs that use it together with other GPUs",
    4: "to be drained and reset",
    5: "a recovery of its NVLink domain",
    6: "a reset of its bus",
    7: "a reboot of the box",
}
_LINK_ACTIONS = frozenset({3, 5})


def kind_of(xid: int, recovery: int | None) -> FaultKind:
    """What an Xid asks for, `recovery` being the recovery action read after it (None: not told). Pure."""
    known = KINDS.get(xid)
    if known is not None:
        return known
    if recovery:
        return "link" if recovery in _LINK_ACTIONS else "device"
    return "note" if xid == RECOVERY_CHANGED else "app"


def words_of(xid: int) -> str:
    """ "Xid 31, GPU memory page fault". Pure."""
    meaning = _MEANING.get(xid)
    return f"Xid {xid}, {meaning}" if meaning else f"Xid {xid}"


def ailment(recovery: int | None, *, rows_failed: bool) -> str:
    """What is wrong with a GPU as long as the driver says so, "" for nothing. Pure."""
    parts = []
    if recovery and recovery not in _LINK_ACTIONS:
        parts.append(f"the driver asks for {_RECOVERY.get(recovery, f'recovery action {recovery}')}")
    if rows_failed:
        parts.append("bad memory could not be remapped: the GPU has to be replaced")
    return "; ".join(parts)


def link_ailment(recovery: int | None) -> str:
    """The same of its links. Pure."""
    return f"the driver asks for it {_RECOVERY[recovery]}" if recovery in _LINK_ACTIONS else ""


def advice(*, rows_pending: bool, pages_pending: bool) -> str:
    """What is to be done when it suits, of a GPU that works; "" for nothing. Pure."""
    if rows_pending:
        return "bad memory is to be remapped: reset the GPU when it suits"
    return "bad memory pages are to be retired: reset the GPU when it suits" if pages_pending else ""
