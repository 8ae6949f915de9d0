"""HTTP/1.1 message heads: check them against a strict grammar, rewrite what a proxy must. Pure.

A whitelist, not a lenient parser: what does not match RFC 9112 to the letter is refused, so that no worker
can read a message otherwise than we did (request smuggling). One compiled pattern per head is as fast as
llhttp with its callbacks, and unlike it tells where the message ends.
"""

from __future__ import annotations

import itertools
import re
import secrets

MAX_HEAD = 64 * 1024
"""Bytes; a longer head is answered with 431."""

CHUNKED = -1
UNTIL_CLOSE = -2

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_TEXT = rb"[\t -~\x80-\xff]*+"
_FIELDS = rb"((?:" + _TOKEN + rb"++:" + _TEXT + rb"\r\n)*+)\r\n"
_TARGET = rb"(?:/[!-~]*+|\*|[A-Za-z][A-Za-z0-9+.-]*+://[!-~]++)"
_REQUEST = re.compile(
    rb"(" + _TOKEN + rb"++) (?:" + _TARGET + rb"|(?<=CONNECT )[!-~]++) HTTP/1\.([01])\r\n" + _FIELDS
)
_RESPONSE = re.compile(rb"HTTP/1\.([01]) ([1-9]\d\d)(?: " + _TEXT + rb")?\r\n" + _FIELDS)

# What a proxy has to look at; all else passes unread. Most heads hold at most a Host, which comes first, the
# wish to keep the connection, and the length of a body: one match of a `_USUAL` pattern understands these.
_SPECIAL_NAME = (
    rb"[cCtTkKpPuUeEhHxXfF](?i:ontent-length|onnection|ransfer-encoding|eep-alive|roxy-connection|e|pgrade"
    rb"|xpect|ost|orwarded|-forwarded-[a-z]++|-real-ip):"
)
_ORDINARY = rb"(?:(?!" + _SPECIAL_NAME + rb")" + _TOKEN + rb"++:" + _TEXT + rb"\r\n)*+"
_STAY = rb"((?:[Cc]onnection:[\t ]*+[Kk]eep-[Aa]live[\t ]*+\r\n|[Kk]eep-[Aa]live:" + _TEXT + rb"\r\n)++)"
_LENGTH = (
    rb"(?:[Cc]ontent-[Ll]ength:[\t ]*+([0-9]{1,18})|[Tt]ransfer-[Ee]ncoding:[\t ]*+(chunked))[\t ]*+\r\n"
)
_USUAL_FIELDS = (
    _ORDINARY + rb"(?:" + _STAY + _ORDINARY + rb")?+(?:" + _LENGTH + _ORDINARY + rb")?+" + rb"\r\n"
)
_USUAL_REQUEST = re.compile(
    rb"("
    + _TOKEN
    + rb"++) "
    + _TARGET
    + rb" HTTP/1\.1\r\n[Hh]ost:[\t ]*+([!-~]*+)[\t ]*+\r\n"
    + _USUAL_FIELDS
)
_USUAL_RESPONSE = re.compile(rb"HTTP/1\.1 ([2-5]\d\d)(?: " + _TEXT + rb")?\r\n" + _USUAL_FIELDS)
_OTHER_VERSION = re.compile(rb"[A-Z]+ \S+ HTTP/[2-9]")
_LENGTHS = (b"content-length", b"transfer-encoding")
_BODYLESS = (204, 304)
_CUT = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"te", b"upgrade"})
"""Fields that only concern one connection and never go on."""
_PROTECTED = frozenset(
    {b"host", b"content-length", b"transfer-encoding", b"authorization", b"cookie"}
    | {b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-request-id"}
)
"""Fields that a `Connection` field cannot have removed: without them the request would mean another thing."""

_Fields = list[tuple[bytes, bytes]]
"""Lower-cased name and whole line of each field."""


class BadMessage(Exception):
    """The message cannot be passed on. `status` is what its sender is to be told (requests only)."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class Kind:
    """What kind of request it is. Shared by all plain requests of a method, so never changed once made."""

    __slots__ = ("expect", "http11", "idempotent", "keep", "method", "upgrade")

    def __init__(
        self,
        method: bytes,
        *,
        http11: bool = True,
        keep: bool = True,
        expect: bool = False,
        upgrade: bool = False,
    ) -> None:
        self.method = method
        self.http11 = http11
        self.keep = keep
        """The client wants to use its connection again."""
        self.expect = expect
        """The client waits for `100 Continue` before it sends the body."""
        self.upgrade = upgrade
        self.idempotent = method in (b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE")


_PLAIN = {
    method: Kind(method) for method in (b"GET", b"POST", b"HEAD", b"PUT", b"PATCH", b"DELETE", b"OPTIONS")
}


class Origin:
    """Who asks: the address of a client's connection, and the fields that tell the worker. `believed`: what
    it says itself of where requests come from counts, because it is a proxy that may say so."""

    __slots__ = ("asked", "believed", "host", "lines", "peer", "read", "scheme")

    def __init__(self, peer: str, *, scheme: bytes = b"http", believed: bool = True) -> None:
        self.peer = peer.encode("ascii", "replace")
        self.scheme = scheme
        self.believed = believed
        self.host: bytes | None = None
        self.lines = b""
        """For `host`: the fields."""
        self.asked = b""
        """The head that was read last, and what it came to: many clients send the same again and again."""
        self.read: tuple[Kind, int, bytes] = (_PLAIN[b"GET"], 0, b"")

    def ask(self, host: bytes) -> None:
        """Make the fields for that host; a client asks the same one again and again."""
        self.host = host
        self.lines = b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Host: %b\r\n" % (
            self.peer,
            self.scheme,
            host,
        )


_FIRST_PART = secrets.token_hex(6).encode()
_next_number = itertools.count(1).__next__


def _if_named(head: bytes) -> bytes:
    """A head, without its empty line; with that line if the request has a name already."""
    return head + b"\r\n" if b"\nx-request-id:" in head.lower() else head


def complete(head: bytes) -> bytes:
    """The head for the worker out of what `read_request` made: a request without a name gets one."""
    if head.endswith(b"\r\n\r\n"):
        return head
    return b"%bX-Request-Id: %b%08x\r\n\r\n" % (head, _FIRST_PART, _next_number())


def parse_request(head: bytes, origin: Origin) -> tuple[Kind, int, bytes]:
    """Check a whole request head (it ends with an empty line).

    Return its kind, the length of its body (bytes or CHUNKED) and the head for the worker.
    Raises BadMessage.
    """
    kind, length, sent = read_request(head, origin)
    return kind, length, complete(sent)


def read_request(head: bytes, origin: Origin) -> tuple[Kind, int, bytes]:
    """See `parse_request`; the head for the worker is still to be made `complete`."""
    usual = _USUAL_REQUEST.fullmatch(head)
    if usual is None:
        return _parse_unusual_request(head, origin)
    method, host, stay, digits, chunked = usual.groups()
    kind = _PLAIN.get(method)
    if kind is None:
        return _parse_unusual_request(head, origin)
    if host != origin.host:
        origin.ask(host)
    if stay:
        head = head[: usual.start(3)] + head[usual.end(3) :]
    length = int(digits) if digits else CHUNKED if chunked else 0
    return kind, length, _if_named(head[:-2] + origin.lines)


def remembered(head: bytes, origin: Origin) -> tuple[Kind, int, bytes]:
    """See `read_request`; what it came to is kept for the same head from the same client."""
    origin.read = found = read_request(head, origin)
    origin.asked = head
    return found


def parse_response(head: bytes, method: bytes) -> tuple[int, int, bool, bytes]:
    """Check a whole response head to a request of that method.

    Return its status, the length of its body (bytes, CHUNKED or UNTIL_CLOSE), whether the worker keeps the
    connection open, and the head for the client. Raises BadMessage.
    """
    usual = _USUAL_RESPONSE.fullmatch(head)
    if usual is None:
        status, length, keep, head = _parse_unusual_response(head)
    else:
        code, stay, digits, chunked = usual.groups()
        status, keep = int(code), True
        length = int(digits) if digits else CHUNKED if chunked else UNTIL_CLOSE
        if stay:
            head = head[: usual.start(2)] + head[usual.end(2) :]
    if method == b"HEAD" or status in _BODYLESS or status < 200:
        return status, 0, keep, head
    return status, length, keep and length != UNTIL_CLOSE, head


def _explain(head: bytes) -> BadMessage:
    if _OTHER_VERSION.match(head):
        return BadMessage(505, "only HTTP/1.1 is spoken here")
    line = head[: head.find(b"\r\n") + 2]
    what = "a header field" if _REQUEST.fullmatch(line + b"\r\n") else "the request line"
    return BadMessage(400, f"malformed request: {what} breaks RFC 9112")


# --- heads with more to do --------------------------------------------------------------------------------


def _split(head: bytes) -> tuple[bytes, _Fields]:
    first, *lines = head[:-4].split(b"\r\n")
    return first, [(line[: line.index(b":")].lower(), line) for line in lines]


def _elements(fields: _Fields, name: bytes) -> list[bytes]:
    """All elements of a comma-separated list field, lower-cased."""
    text = b",".join(line[len(name) + 1 :] for field, line in fields if field == name)
    return [part for part in (part.strip().lower() for part in text.split(b",")) if part]


def _passed_on(fields: _Fields, also_cut: list[bytes]) -> list[bytes]:
    """The lines that go on to the other side."""
    cut = _CUT.union(also_cut) - _PROTECTED
    return [line for name, line in fields if name not in cut]


def _body_length(fields: _Fields, status: int, *, http11: bool) -> int | None:
    """The length that the fields give, None if they give none. Two of them, even equal ones, are refused."""
    given = [(name, line[len(name) + 1 :].strip()) for name, line in fields if name in _LENGTHS]
    if not given:
        return None
    name, value = given[0]
    if len(given) > 1:
        raise BadMessage(status, "the length of the body is given twice")
    if name == b"content-length":
        if not value.isdigit() or len(value) > 18:
            raise BadMessage(status, "Content-Length is not a number")
        return int(value)
    if value.lower() != b"chunked" or not http11:
        raise BadMessage(status, "the only Transfer-Encoding is chunked, in HTTP/1.1")
    return CHUNKED


def _parse_unusual_request(head: bytes, origin: Origin) -> tuple[Kind, int, bytes]:
    matched = _REQUEST.fullmatch(head)
    if matched is None:
        raise _explain(head)
    method, minor, _ = matched.groups()
    if method == b"CONNECT":
        raise BadMessage(501, "CONNECT is not supported")
    http11 = minor == b"1"
    first, fields = _split(head)
    length = _body_length(fields, 400, http11=http11) or 0
    connection = _elements(fields, b"connection")
    expected = _elements(fields, b"expect") if http11 else []
    if expected not in ([], [b"100-continue"]):
        raise BadMessage(417, "the only known expectation is 100-continue")
    protocols = _elements(fields, b"upgrade")
    # An upgrade to h2c would hide later requests from us; RFC 9110 allows to ignore it.
    upgrade = http11 and b"upgrade" in connection and len(protocols) == 1 and protocols != [b"h2c"]
    lines = [first, *_passed_on(_with_forwarded(fields, origin, http11=http11), [*connection, b"expect"])]
    if upgrade:
        lines += [b"Connection: Upgrade", next(line for name, line in fields if name == b"upgrade")]
    keep = http11 and b"close" not in connection
    kind = Kind(method, http11=http11, keep=keep, expect=bool(expected) and length != 0, upgrade=upgrade)
    return kind, length, _if_named(b"\r\n".join(lines) + b"\r\n")


def _with_forwarded(fields: _Fields, origin: Origin, *, http11: bool) -> _Fields:
    """The fields with our word on where the request comes from. A proxy that is believed knows protocol and
    host better, and to its list of addresses we add its own; what others say of it is left out."""
    hosts = [line[5:].strip() for name, line in fields if name == b"host"]
    if len(hosts) > 1 or (http11 and not hosts):
        raise BadMessage(400, "a request has one Host field")
    if not origin.believed:
        fields = [field for field in fields if not _tells_origin(field[0])]
    names = {name for name, _ in fields}
    chain = [line[16:].strip() for name, line in fields if name == b"x-forwarded-for"]
    peers = b", ".join([*filter(None, chain), origin.peer])
    others = [field for field in fields if field[0] != b"x-forwarded-for"]
    others.append((b"x-forwarded-for", b"X-Forwarded-For: " + peers))
    if b"x-forwarded-proto" not in names:
        others.append((b"x-forwarded-proto", b"X-Forwarded-Proto: " + origin.scheme))
    if b"x-forwarded-host" not in names and hosts:
        others.append((b"x-forwarded-host", b"X-Forwarded-Host: " + hosts[0]))
    return others


def _tells_origin(name: bytes) -> bool:
    return name.startswith(b"x-forwarded-") or name in (b"forwarded", b"x-real-ip")


def _parse_unusual_response(head: bytes) -> tuple[int, int, bool, bytes]:
    matched = _RESPONSE.fullmatch(head)
    if matched is None:
        raise BadMessage(502, "the worker's answer is not HTTP/1.1")
    minor, code, _ = matched.groups()
    http11 = minor == b"1"
    first, fields = _split(head)
    length = _body_length(fields, 502, http11=http11)
    connection = _elements(fields, b"connection")
    lines = [b"HTTP/1.1" + first[8:], *_passed_on(fields, connection)]
    if code == b"101":
        lines += [b"Connection: Upgrade", *(line for name, line in fields if name == b"upgrade")]
    keep = b"close" not in connection if http11 else b"keep-alive" in connection
    head = b"\r\n".join(lines) + b"\r\n\r\n"
    return int(code), UNTIL_CLOSE if length is None else length, keep, head
