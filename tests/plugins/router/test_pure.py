"""The parts that need no network: bodies, the books, the queue, the choice of a worker."""

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.model.door import Tls
from stoker.model.load import LoadSample
from stoker.model.state import Route, RoutingTable, WorkerRoute
from stoker_router import answers
from stoker_router.alarm import Throttle
from stoker_router.exchange import NO_WORKER, UPLOAD, Exchange
from stoker_router.framing import Chunked, Counted, UntilClose
from stoker_router.head import BadMessage, Kind
from stoker_router.line import Line
from stoker_router.meter import ABORTED, BOUNDS, Meter
from stoker_router.table import WorkerConfig, read_table, split_address
from stoker_router.wire import decode_sample, encode_table
from stoker_router.worker import Pool

pytestmark = pytest.mark.anyio

# --- bodies -----------------------------------------------------------------------------------------------

BODY = b"3\r\nabc\r\nA;name=value\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n"


@given(st.lists(st.integers(1, len(BODY) - 1), unique=True).map(sorted))
def test_a_chunked_body_ends_where_it_ends_however_it_is_cut(cuts: list[int]) -> None:
    body = Chunked()
    whole = BODY + b"GET"
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    for piece in pieces[:-1]:
        assert body.take(piece, 0) == -1
    assert body.take(pieces[-1], 0) == len(pieces[-1]) - len(b"GET")


@pytest.mark.parametrize(
    "wrong",
    [
        *[b"\r\n", b"g\r\n", b"-1\r\n", b"1 \r\n", b"0x1\r\n", b"1\n", b"1;\x01\r\n", b"1\r\nab\r\n"],
        *[b"1; =y\r\n", b'1;a="b\r\n', b"1;\r\n", b"0\r\n\r\r", b"1\r\na\r\r"],
        *[b"1\r\na\n", b"1\r\na\r\r\n", b"0\r\n folded: x\r\n", b"0\r\nno colon\r\n", b"0\r\nA: b\n"],
        *[b"f" * 16 + b"\r\n", b"1;" + b"x" * 9000, b"0\r\n" + b"A: b\r\n" * 65],
    ],
)
def test_a_malformed_chunk_is_refused(wrong: bytes) -> None:
    with pytest.raises(BadMessage):
        Chunked().take(wrong, 0)


def test_a_counted_body_and_one_without_end() -> None:
    body = Counted(5)
    assert [body.take(b"ab", 0), body.take(b"..cde", 2)] == [-1, 5]
    assert Counted(0).take(b"xyz", 1) == 1
    assert UntilClose().take(b"anything", 0) == -1


# --- the books --------------------------------------------------------------------------------------------


def test_areas_are_exact() -> None:
    meter = Meter(100.0)
    meter.flight_area -= 101.0  # one begins
    meter.flight_area -= 102.0  # another
    meter.flight_area += 104.0  # one ends
    assert meter.take(110.0, 1, 0)["in_flight_seconds"] == pytest.approx(3 + 8)
    assert meter.take(111.5, 1, 0)["in_flight_seconds"] == pytest.approx(1.5)
    meter.flight_area += 112.0
    meter.queue_area -= 112.0
    last = meter.take(113.0, 0, 1)
    assert (last["in_flight_seconds"], last["queued_seconds"]) == (pytest.approx(0.5), pytest.approx(1.0))


def test_buckets_classes_and_a_new_beginning() -> None:
    meter = Meter(0.0)
    for total in (0.001, 0.005, 0.0051, 0.3, 1000.0):
        meter.completed(200, total, 0.0)
    meter.completed(999, 2.0, 0.5)
    meter.answered(503)
    meter.answered(ABORTED)
    sample = meter.take(1.0, 0, 0)
    assert sample["latency"] == {"0.001": 1, "0.005": 1, "0.01": 1, "0.3": 1, "2.0": 1, "inf": 1}
    assert sample["codes"] == {"2xx": 5, "5xx": 2, "aborted": 1}
    assert (sample["completions"], sample["wait_seconds"]) == (6, 0.5)
    assert meter.take(2.0, 0, 0)["codes"] == {}
    assert list(BOUNDS) == sorted(BOUNDS)


# --- the queue --------------------------------------------------------------------------------------------


def exchange(arrived: float) -> Exchange:
    made = Exchange(None, Kind(b"GET"), b"", whole=True)  # type: ignore[arg-type] # nobody asks
    made.arrived = arrived
    return made


@given(st.permutations(range(8)))
def test_the_line_is_in_order_of_arrival_whoever_comes_back(order: list[int]) -> None:
    line = Line()
    for arrived in order:
        line.join(exchange(float(arrived)), now=10.0)
    assert [one.arrived for one in line] == sorted(order)


def test_the_line_keeps_the_time_spent_in_it() -> None:
    line, one = Line(), exchange(1.0)
    line.join(one, 2.0)
    line.leave(one, 5.0)
    line.join(one, 7.0)
    line.leave(one, 8.0)
    assert one.waited == pytest.approx(4.0)
    assert line.first is None


# --- one request ------------------------------------------------------------------------------------------


class Recorder:
    """Stands for a client's or a worker's connection and its transport; writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []
        self.transport = self
        self.write_paused = self.stalled = False
        self.exchange: Exchange | None = None

    def hold(self, reason: int, *, hold: bool) -> None:
        self.told.append((reason, hold))

    def write(self, data: bytes) -> None:
        self.told.append(data)

    def writelines(self, pieces: list[bytes]) -> None:
        self.told.append(b"".join(pieces))

    def stall(self, *, stop: bool) -> None:
        self.told.append(stop)


def test_an_upload_that_stood_still_goes_on_at_the_next_worker() -> None:
    """The client is read again before anything is written, for that may already stop it anew."""
    client, first, second = Recorder(), Recorder(), Recorder()
    one = Exchange(client, Kind(b"PUT"), b"head", whole=False)  # type: ignore[arg-type] # enough for this
    one.repeatable = True
    one.send(first)  # type: ignore[arg-type] # enough for this
    one.push(b"body")
    one.hold_upload(hold=True)
    client.told.clear()
    one.send(second)  # type: ignore[arg-type] # enough for this
    assert client.told == [(NO_WORKER | UPLOAD, False)]
    assert second.told == [b"headbody"]
    assert second.exchange is one


def test_a_worker_is_not_read_for_a_client_that_does_not_read() -> None:
    client, upstream = Recorder(), Recorder()
    client.write_paused = upstream.stalled = True
    one = Exchange(client, Kind(b"GET"), b"head", whole=True)  # type: ignore[arg-type] # enough for this
    one.send(upstream)  # type: ignore[arg-type] # enough for this
    assert upstream.told == [False, b"head", True]


class Slots:
    """A service with one slot, and one who waits for it."""

    def __init__(self, told: list[object]) -> None:
        self.told = told
        self.freed: object = None

    def completed(self, exchange: Exchange, status: int, reusable: object) -> None:
        self.freed = reusable
        self.told.append("the next request")


@pytest.mark.parametrize("reusable", [True, False])
def test_a_slot_is_given_away_before_a_whole_answer_is_written(reusable: bool) -> None:
    """An empty slot costs all who wait; the client of an answer that is there can."""
    client, upstream = Recorder(), Recorder()
    client.service = Slots(client.told)
    client.done = lambda *, keep: client.told.append(("done", keep))
    upstream.abort = lambda: upstream.told.append("abort")
    one = Exchange(client, Kind(b"GET"), b"head", whole=True)  # type: ignore[arg-type] # enough for this
    one.send(upstream)  # type: ignore[arg-type] # enough for this
    one.answer(b"all of it", 200, reusable=reusable)
    assert client.told == ["the next request", b"all of it", ("done", True)]
    assert client.service.freed is (upstream if reusable else None)
    assert upstream.told == [b"head"] if reusable else [b"head", "abort"]
    assert upstream.exchange is None


# --- the choice of a worker -------------------------------------------------------------------------------


def pool(*limits: int | None) -> Pool:
    made = Pool(asyncio.get_running_loop(), lambda: None)
    made.configure(config(i, limit) for i, limit in enumerate(limits))
    return made


def config(number: int, limit: int | None = 1, *, draining: bool = False) -> WorkerConfig:
    return WorkerConfig(f"w{number}", "127.0.0.1", 1000 + number, limit, draining)


def take(made: Pool, avoid: str = "") -> str:
    worker = made.pick(made.workers.get(avoid))
    if worker is None:
        return ""
    worker.busy += 1
    return worker.config.id


async def test_least_loaded_then_longest_ago() -> None:
    assert [take(p := pool(1, 2, 4)), *(take(p) for _ in range(7))] == [
        "w0", "w1", "w2", "w2", "w1", "w2", "w2", "",
    ]  # fmt: skip
    unlimited = pool(None, None)
    assert [take(unlimited) for _ in range(5)] == ["w0", "w1", "w0", "w1", "w0"]


async def test_a_worker_that_failed_a_request_gets_it_only_if_there_is_no_other() -> None:
    made = pool(2, 2)
    assert [take(made, avoid="w0") for _ in range(4)] == ["w1", "w1", "w0", "w0"]


async def test_a_failing_worker_is_left_alone_then_tried_with_one() -> None:
    tried: list[float] = []
    loop = asyncio.get_running_loop()
    made = Pool(loop, lambda: tried.append(loop.time()))
    made.configure([config(0, 8)])
    worker = made.workers["w0"]
    pauses = []
    for _ in range(4):
        began = loop.time()
        count = len(tried)
        made.failed(worker)
        assert take(made) == ""
        while len(tried) == count:
            await asyncio.sleep(0.005)
        pauses.append(tried[-1] - began)
    assert pauses == pytest.approx([0.05, 0.1, 0.2, 0.25], abs=0.045)
    assert [take(made), take(made)] == ["w0", ""], "one at a time until it works"
    made.works(worker)
    assert take(made) == "w0"


async def test_draining_and_removed_workers_get_nothing() -> None:
    made = pool(1, 1, 1)
    made.configure([config(0, draining=True), config(1)])
    assert made.serving == 1
    assert [take(made), take(made)] == ["w1", ""]
    made.configure([config(0), config(1)])
    assert take(made) == "w0"


async def test_a_throttle_passes_the_first_and_the_last() -> None:
    passed: list[float] = []
    loop = asyncio.get_running_loop()
    throttle = Throttle(loop, 0.1, lambda: passed.append(loop.time()))
    for _ in range(5):
        throttle.call()
    assert len(passed) == 1
    while len(passed) < 2:
        await asyncio.sleep(0.005)
    assert passed[1] - passed[0] >= 0.09


# --- the wire ---------------------------------------------------------------------------------------------


def test_a_table_comes_through_the_wire_whole() -> None:
    workers = (
        WorkerRoute(id="a", endpoint="127.0.0.1:9000", concurrency=4),
        WorkerRoute(id="b", endpoint="[::1]:9001", draining=True),
    )
    route = Route(
        service="app/web", host="0.0.0.0", port=80, workers=workers, timeout=1.5, max_queue=7,
        max_concurrency=9, retry="always", protocol="http", held="why", max_body=5, priority_header="P",
        timeout_header="T", access_log=0.5, trace="start", proxy_protocol=True,
        trusted_proxies=("10.0.0.0/8",), tls=Tls(cert="/c", key="/k", version="1"),
    )  # fmt: skip
    (read,) = read_table(encode_table(RoutingTable(routes={"app/web": route}), {})).routes.values()
    assert read[:10] == ("app/web", "0.0.0.0", 80, 0, 1.5, 7, 9, "always", "http", "why")
    assert read[-8:] == (("/c", "/k", "1"), True, ("10.0.0.0/8",), 5, "P", "T", 0.5, "start")
    assert read.workers == (
        WorkerConfig("a", "127.0.0.1", 9000, 4, draining=False),
        WorkerConfig("b", "::1", 9001, None, draining=True),
    )


def test_the_port_a_service_had_is_preferred_only_at_the_same_host() -> None:
    route = Route(service="s", host="127.0.0.1", port=0)
    table = RoutingTable(routes={"s": route})
    assert read_table(encode_table(table, {"s": ("127.0.0.1", 123)})).routes["s"].prefer == 123
    assert read_table(encode_table(table, {"s": ("0.0.0.0", 123)})).routes["s"].prefer == 0


def test_a_newer_daemon_may_say_more() -> None:
    (raw,) = encode_table(RoutingTable(routes={"s": Route(service="s", host="h", port=1)}), {})
    assert read_table([{**raw, "invented": 1}]).routes["s"].port == 1


@pytest.mark.parametrize(
    ("text", "expected"), [("a:1", ("a", 1)), ("[::1]:2", ("::1", 2)), ("127.0.0.1:3", ("127.0.0.1", 3))]
)
def test_addresses(text: str, expected: tuple[str, int]) -> None:
    assert split_address(text) == expected


def test_a_sample_comes_through_the_wire_whole() -> None:
    meter = Meter(1.0)
    meter.arrivals = 3
    meter.completed(200, 1000.0, 1.0)
    sample = {**meter.take(2.0, 1, 1), "service": "s", "oldest_wait": 0.5, "workers": {"w": 1}}
    assert decode_sample({"op": "sample", **sample}) == LoadSample(
        service="s", start=1.0, end=2.0, in_flight=1, queued=1, in_flight_seconds=2.0, queued_seconds=2.0,
        arrivals=3, completions=1, service_seconds=999.0, wait_seconds=1.0, oldest_wait=0.5, codes={"2xx": 1},
        latency={float("inf"): 1}, workers={"w": 1},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("make", "lines"),
    [
        (lambda: answers.error(503, 'a "b"', keep=True, retry_after=3), [b"Retry-After: 3"]),
        (lambda: answers.error(431, "long", keep=False), [b"Connection: close"]),
    ],
)
def test_our_own_answers(make: Callable[[], bytes], lines: list[bytes]) -> None:
    head, _, body = make().partition(b"\r\n\r\n")
    found = head.split(b"\r\n")
    assert all(line in found for line in lines)
    assert b"Content-Length: %d" % len(body) in found
    assert (b"Connection: close" in found) == (b"Connection: close" in lines)
