"""What the connections of one address have in common."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from stoker_router.crowd import Crowd
from stoker_router.door import Keeper
from stoker_router.hangup import HangupWatch
from stoker_router.head import Origin
from stoker_router.service import Service


class Gate:
    """The address of `service`, or of a `door` that leads to several."""

    __slots__ = ("_asked", "_named", "_networks", "crowd", "door", "hangups", "secure", "service")

    def __init__(
        self,
        hangups: HangupWatch,
        crowd: Crowd,
        *,
        service: Service | None = None,
        door: Keeper | None = None,
    ) -> None:
        self.hangups = hangups
        self.crowd = crowd
        self.service = service
        self.door = door
        self.secure = False
        """TLS is spoken here."""
        self._named: tuple[str, ...] = ()
        self._networks: tuple[IPv4Network | IPv6Network, ...] = ()
        self._asked: dict[str, bool] = {}

    def trust(self, networks: tuple[str, ...]) -> None:
        """Whom to believe from now on. Raises ValueError for what is no network."""
        if networks != self._named:
            self._networks = tuple(ip_network(text) for text in networks)
            self._named = networks
            self._asked = {}

    def trusts(self, host: str) -> bool:
        """Whether what that host says of where requests come from counts."""
        known = self._asked.get(host)
        if known is None:
            known = self._trusts(host)
            if len(self._asked) < 1024:
                self._asked[host] = known
        return known

    def _trusts(self, host: str) -> bool:
        try:
            address = ip_address(host.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self._networks)

    def origin(self, host: str, *, proxied: bool = False) -> Origin:
        """What a worker is told of a client at that address. `proxied`: a trusted proxy says that it is."""
        scheme = b"https" if self.secure else b"http"
        return Origin(host, scheme=scheme, believed=not proxied and self.trusts(host))
