"""The certificate of the TCP doors, read again when its files change: certificates are renewed every few
weeks, and nobody should have to restart anything for it."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable

from stoker.errors import StokerError

Stamp = tuple[tuple[int, int, int], ...]


class Certificate:
    """A certificate chain with its key, both PEM. `changed` is told in words what came of a new one.

    Looked at when somebody connects, not by a timer: at rest nothing wakes up. Raises StokerError if the
    files cannot be used at the beginning; later a bad pair leaves the last good one in force.
    """

    def __init__(self, chain: str, key: str, changed: Callable[[str, str], None]) -> None:
        self._chain = chain
        self._key = key
        self._changed = changed
        self._stamp = self._files()
        self._current = self._load()
        self.context = self._load()
        """What a server is given: each handshake is handed on to the newest certificate."""
        self.context.sni_callback = self._hand_on

    def _hand_on(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        self._refresh()
        connection.context = self._current

    def _refresh(self) -> None:
        try:
            stamp = self._files()
        except StokerError:
            return  # being replaced just now
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._current = self._load()
        except StokerError as error:
            self._changed(f"{error}; the certificate before stays in force", "error")
        else:
            self._changed(f"the certificate {self._chain} was read again", "info")

    def _files(self) -> Stamp:
        try:
            found = [os.stat(path) for path in (self._chain, self._key)]
        except OSError as error:
            raise StokerError(f"TLS: cannot read {error.filename}: {error.strerror}") from error
        return tuple((one.st_mtime_ns, one.st_ino, one.st_size) for one in found)

    def _load(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            # An encrypted key would be asked for on the terminal, in the middle of a handshake: refuse it.
            context.load_cert_chain(self._chain, self._key, password=_no_password)
        except _Encrypted:
            raise StokerError(f"TLS: the key {self._key} has a passphrase; give one without") from None
        except ssl.SSLError as error:
            what = "do not belong together" if error.reason == "KEY_VALUES_MISMATCH" else "are no PEM pair"
            why = f"{self._chain} and {self._key} {what} ({error.reason or error})"
            raise StokerError(f"TLS: {why}") from error
        except OSError as error:
            where = error.filename or f"{self._chain} or {self._key}"
            raise StokerError(f"TLS: cannot read {where}: {error.strerror}") from error
        return context


class _Encrypted(Exception):
    pass


def _no_password() -> str:
    raise _Encrypted
