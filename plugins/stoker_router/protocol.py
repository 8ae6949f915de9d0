"""What both sides of the control socket know. Imports nothing: the program loads it at start."""

VERSION = 2
"""Of the control protocol; changes when an older program could not serve a newer daemon."""

SOCKETS_PER_MESSAGE = 64
"""Listening sockets in one message of `{"op": "sockets"}`; as many as in `stoker.plugin.copies`."""

MAX_LINE = 16 * 1024 * 1024
"""Bytes of one line, beyond which the other side is mad."""
