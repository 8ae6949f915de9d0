"""Mangled HTTP messages and API calls against a real daemon and its router: neither ends, nothing grows, and
no answer is a 5xx that is not said to be one.

    python tests/bench/bench_malformed.py --messages 100000 --seed 1

A fourth each: mangled bytes to the API's socket, to its TCP door, to a service's address in the router, and
well-formed calls with nonsense in them. The same seed sends the same. Exit code 1 if something failed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from stoker.api.openapi import ENDPOINTS
from system.harness import Box

APP = """async def app(scope, receive, send):
    while (await receive()).get("more_body"): pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
"""
LEFT_OUT = {
    "down",
    "reexec",
    "listen",
    "live",
    "logs",
    "events",
    "record",
    "plan",
    "plan_files",
    "reload",
    "stop",
}
"""Calls that would end the daemon or hold it up, or that have no end."""
WORDS = (
    "\r\n|\n|\r|\0| |\t|:|%00|\xff|content-length: 5\r\n|host: a.b\r\n|transfer-encoding: chunked\r\n|"
    "HTTP/1.1|../|expect: 100-continue\r\n|upgrade: websocket\r\n|connection: close\r\n|0\r\n\r\n|"
    "ffffffffffffffff\r\n|?|#"
)
PIECES = [word.encode("latin-1") for word in WORDS.split("|")] + [b"x" * 3000]
PLAIN = [None, True, -1, 0, 1e308, 2**70, "", "x", "nope/nope", "\0", "\U0001f525" * 50, "y" * 5000]
NONSENSE = [
    *PLAIN,
    [],
    [[]],
    {},
    {"a": {"b": [1]}},
    ["services.web.nope"],
    "services.web.nope",
    "../../etc/passwd",
]
HEAD = b" HTTP/1.1\r\nhost: stoker\r\n"
SEEDS = [
    b"GET /v1/status" + HEAD + b"accept: */*\r\n\r\n",
    b"GET /v1/explain?of=web" + HEAD + b"\r\n",
    b"POST /v1/scale" + HEAD + b'content-length: 34\r\n\r\n{"service": "nope", "replicas": 1}',
    b"POST /" + HEAD + b"transfer-encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n",
    b"GET /page/app.js" + HEAD + b"if-none-match: x\r\n\r\n" + b"GET /healthz" + HEAD + b"\r\n",
]


def mangled(dice: random.Random) -> bytes:
    """A message that was right once."""
    data = bytearray(dice.choice(SEEDS))
    for _ in range(dice.randint(1, 6)):
        at = dice.randrange(len(data) + 1)
        match dice.randrange(6):
            case 0:
                data[at:at] = dice.choice(PIECES)
            case 1:
                del data[at : at + dice.randint(1, 12)]
            case 2 if at < len(data):
                data[at] = dice.randrange(256)
            case 3:
                data[at:at] = data[at : at + dice.randint(1, 60)]
            case 4:
                data[at:] = dice.randbytes(dice.randint(0, 40))
            case _:
                data[at : at + 1] = dice.choice(PIECES)
        if not data:
            data += b"\0"
    return bytes(data)


def call(dice: random.Random) -> bytes:
    """A well-formed call of the API with nonsense in it."""
    entry = dice.choice([e for e in ENDPOINTS if e.name not in LEFT_OUT])
    path = entry.path.format(file="..%2fx", replica=dice.choice(["nope", "%00", "a" * 900]))
    if entry.method == "GET":
        asked = "&".join(f"{name}={dice.choice(['', '-1', 'nan', '%ff', 'x' * 400])}" for name in entry.query)
        return f"GET {path}?{asked} HTTP/1.1\r\nhost: stoker\r\n\r\n".encode()
    names = [*entry.body, "nope"]
    body = json.dumps(
        {name: dice.choice(NONSENSE) for name in dice.sample(names, dice.randint(0, len(names)))}
    )
    data = dice.choice([body, body[: len(body) // 2], f"[{body}]", "", "\ufeff" + body]).encode()
    return f"POST {path} HTTP/1.1\r\nhost: stoker\r\ncontent-length: {len(data)}\r\n\r\n".encode() + data


class Target:
    """Somewhere to send to. `said`: whether a 5xx there says what it is."""

    def __init__(
        self, name: str, connect: Callable[[], socket.socket], make: Callable[[random.Random], bytes]
    ) -> None:
        self.name, self.connect, self.make = name, connect, make
        self.codes: Counter[str] = Counter()
        self.faults: list[str] = []

    def send(self, dice: random.Random) -> None:
        data, found = self.make(dice), b""
        try:
            with closing(self.connect()) as connection, suppress(ConnectionError):
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                while piece := connection.recv(1 << 18):
                    found += piece
        except TimeoutError:
            self.faults.append(f"no end within 20 s: {data!r}")
        codes = [line[9:12].decode("latin-1") for line in found.split(b"\r\n") if line.startswith(b"HTTP/1.")]
        self.codes.update(codes or ["none"])
        if any(code.startswith("5") for code in codes) and not said(found):
            self.faults.append(f"{codes}: {data!r}: {found[-300:]!r}")


def said(answer: bytes) -> bool:
    """Whether a 5xx gives its reason: a problem of the API, or the router's own words; never a bug."""
    lower = answer.lower()
    return b"a bug in the daemon" not in lower and (b"problem+json" in lower or b'{"error": ' in lower)


def targets(box: Box) -> list[Target]:
    (web,) = box.status()["services"]
    door = box.status()["daemon"]["listening"][0].rpartition(":")[2]
    token = (box.state_dir / "token").read_text().strip().encode()

    def unix() -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(20)
        connection.connect(str(box.socket))
        return connection

    def tcp(port: int) -> Callable[[], socket.socket]:
        return lambda: socket.create_connection(("127.0.0.1", port), timeout=20)

    def signed(dice: random.Random) -> bytes:
        return mangled(dice).replace(
            b"host: stoker\r\n", b"host: stoker\r\nauthorization: Bearer " + token + b"\r\n"
        )

    return [
        Target("API, socket", unix, mangled),
        Target("API, calls", unix, call),
        Target("API, TCP", tcp(int(door)), signed),
        Target("router", tcp(int(web["url"].rpartition(":")[2])), mangled),
    ]


def sizes(box: Box) -> dict[str, tuple[float, int]]:
    """Resident MiB and open descriptors of the daemon and its router."""
    assert box.daemon is not None
    found = {}
    for name, pid in (("daemon", box.daemon.pid), ("router", router_of(box))):
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        found[name] = (pages * os.sysconf("SC_PAGESIZE") / 2**20, len(os.listdir(f"/proc/{pid}/fd")))
    return found


def router_of(box: Box) -> int:
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (folder / "cmdline").read_bytes()
            if (
                b"stoker_router" in words
                and str(box.directory).encode() in words + (folder / "environ").read_bytes()
            ):
                return int(folder.name)
    raise SystemExit("there is no router")


def rounds(messages: int, parts: int = 10) -> Iterator[int]:
    return iter([messages // parts] * parts)


def main() -> int:
    given = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    given.add_argument("--messages", type=int, default=20_000)
    given.add_argument("--seed", type=int, default=1)
    options = given.parse_args()
    dice = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder, Box(Path(folder)) as box:
        (Path(folder) / "m.py").write_text(APP)
        box.write('services: {web: {python: "m:app", traffic: {timeout: 5}}}\n')
        box.up("--listen", "127.0.0.1:0")
        box.ready("web", 1)
        places = targets(box)
        began, before = time.monotonic(), {}
        for n, part in enumerate(rounds(options.messages)):
            for turn in range(part):
                places[turn % len(places)].send(dice)
            if n == 1:
                before = sizes(box)  # by now everything is loaded that is loaded at all
        after = sizes(box)
        took = time.monotonic() - began
        alive = box.get("web") == "ok" and box.status()["daemon"]["pid"] == box.daemon.pid
        sent = sum(len(list(range(p, options.messages // 10, 4))) for p in range(4)) * 10
    for place in places:
        print(
            f"{place.name:12} " + "  ".join(f"{code}: {count}" for code, count in sorted(place.codes.items()))
        )
        for fault in place.faults[:5]:
            print(f"  FAULT {fault[:600]}")
    for name, (memory, descriptors) in after.items():
        was, had = before[name]
        print(f"{name:12} {was:.1f} > {memory:.1f} MiB, descriptors {had} > {descriptors}")
    faults = sum(len(place.faults) for place in places)
    grown = [n for n, (m, d) in after.items() if m > before[n][0] * 1.15 + 2 or d > before[n][1] + 8]
    print(f"{sent} messages, {faults} faults, in {took:.0f} s; grown: {grown or 'nothing'}; alive: {alive}")
    return 0 if alive and not faults and not grown else 1


if __name__ == "__main__":
    sys.exit(main())
