"""What clients meet: certificates, whom to believe, one address for several services. Frozen, no I/O."""

from __future__ import annotations

from dataclasses import dataclass

LOOPBACK = ("127.0.0.0/8", "::1/128")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """Files of a certificate, with its chain, and of its key; absolute paths. `version` changes with what is
    in them, so that a new certificate is a new value."""

    cert: str
    key: str
    version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorRule:
    """Requests for `host` ("": any) whose path is `path` or lies below it go to `service`. `strip`: without
    that beginning of the path."""

    service: str
    host: str = ""
    path: str = "/"
    strip: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """One address for several services, of one deployment or of several."""

    host: str
    port: int
    tls: Tls | None = None
    proxy_protocol: bool = False
    trusted_proxies: tuple[str, ...] = LOOPBACK
    waiting_page: float | None = None
    """A browser that has waited so long for a service without a worker is shown a page instead."""
    rules: tuple[DoorRule, ...] = ()

    @property
    def url(self) -> str:
        """How it is asked."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'http' if self.tls is None else 'https'}://{host}:{self.port}"
