"""The certificate of one address, and its change while connections are open."""

from __future__ import annotations

import ssl

from stoker_router.table import TlsConfig


class Certificate:
    """`context` is what connections are opened with; None for plain HTTP. A changed certificate goes into the
    same context, so that connections from then on have it and those that are open notice nothing."""

    def __init__(self) -> None:
        self.context: ssl.SSLContext | None = None
        self._config: TlsConfig | None = None

    def take(self, config: TlsConfig | None) -> str:
        """Have this one from now on. Return what is wrong with it, "" if it is good; a bad one changes
        nothing."""
        if config == self._config:
            return ""
        if config is None:
            self.context, self._config = None, None
            return ""
        try:
            tried = _context(config)  # half a pair in a context that is in use would break it
            if self.context is None:
                self.context = tried
            else:
                self.context.load_cert_chain(config.cert, config.key, password=_no_passphrase)
        except (OSError, ValueError) as error:  # SSLError is an OSError
            kept = "; the certificate from before stays" if self.context is not None else ""
            return f"cannot use the certificate {config.cert} with {config.key}: {_why(error)}{kept}"
        self._config = config
        return ""


def _context(config: TlsConfig) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(config.cert, config.key, password=_no_passphrase)
    return context


def _no_passphrase() -> str:
    """In place of OpenSSL's question at a terminal."""
    return ""


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return "the key is of another certificate" if "MISMATCH" in str(error) else str(error.reason or error)
    return str(getattr(error, "strerror", None) or error)
