"""The yardstick: foresight against other systems' autoscalers, late requests and cost, one table.

    python tests/bench/bench_scaling.py --yardstick [DIRECTORY] [--seeds 1]      the tables of docs/scaling.md
    python tests/bench/bench_scaling.py [DIRECTORY] [--startups 5,20,60] [--seeds 3] [--policies ...]

Every trace of the directory (CSV, also .gz: `arrival_s` and `service_s`, or `input_tokens` and
`output_tokens`, for which a replica is taken to read 8000 and write 50 tokens a second in each of its slots)
is replayed with every start-up time and seed; without a directory, generated ones are; with --yardstick,
both. A seed shifts the trace against the control loops (0 to 15 s) and each start-up by up to 10 %. Each
policy has one setting, its default, in all cells. Cost is relative to a schedule that knows the future
(`stoker.simulate.bound`).

The recorded traces that the defaults of foresight were looked at with are public: Azure's LLM inference
traces of 2023 (code, conv; github.com/Azure/AzurePublicDataset) and Mooncake's conversation trace
(github.com/kvcache-ai/Mooncake), with arrivals as seconds from the first. They are not in this repository.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import itertools
import math
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from stoker.config.build import rule_of
from stoker.model.service import Command, Scaling, ServiceSpec, Traffic
from stoker.plugin.manager import PluginRegistry
from stoker.plugin.ports import PluginContext
from stoker.simulate.bound import clairvoyant
from stoker.simulate.replay import Case, replay
from stoker.simulate.report import figures
from stoker.simulate.trace import Trace

TUNED_ON = ("code", "mooncake", "rush", "images")
"""Loads (by their names' ends or beginnings) that the defaults of foresight were chosen on. The others are
not blind: candidates were also tried on the conversation trace, which was drawn too, and the generated ones
whose names end in "-b" have the same shapes with other random numbers."""
BURSTY = "code"
PEERS = ("kpa", "hpa", "ray", "bento")
OURS = "foresight"


@dataclass(frozen=True)
class Load:
    """A trace and the service it is for."""

    name: str
    trace: Trace
    slots: int = 4
    slo_wait: float = 2.0
    most: int = 24
    low: int = 1


@dataclass(frozen=True)
class Result:
    """One run. `late` in percent, `cost` relative to the bound."""

    load: str
    startup: float
    seed: int
    policy: str
    late: float
    cost: float
    hours: float
    seconds: float


def directory(path: Path) -> list[Load]:
    """The traces in a directory."""
    files = sorted([*path.glob("*.csv"), *path.glob("*.csv.gz")])
    named = [(file.name.partition(".")[0], file) for file in files]
    return [Load(name, _read(file), most=16 if "azure" in name else 24) for name, file in named]


def _read(file: Path) -> Trace:
    data = file.read_bytes()
    text = (gzip.decompress(data) if file.suffix == ".gz" else data).decode()
    rows = [(float(row["arrival_s"]), _service(row)) for row in csv.DictReader(text.splitlines())]
    return Trace(tuple(at for at, _ in rows), tuple(seconds for _, seconds in rows))


def _service(row: dict[str, str]) -> float:
    if "service_s" in row:
        return float(row["service_s"])
    return 0.05 + float(row["input_tokens"]) / 8000 + float(row["output_tokens"]) / 50


def generated() -> list[Load]:
    """Loads after the shapes of recorded ones: a public stream with a rush each full hour (two seeds), image
    jobs that come in small series over half a day (two seeds), and bursts out of nothing."""
    return [
        Load("rush", generate(6 * 3600, rush(7, 2.7), 1.6, seed=2), slots=2),
        Load("rush-b", generate(6 * 3600, rush(11, 3.0), 1.6, seed=12), slots=2),
        Load("images", series(12 * 3600, 0.018, seed=4), 1, 30.0, 16),
        Load("images-b", series(12 * 3600, 0.033, seed=14), 1, 30.0, 16),
        Load("bursts", generate(3600, _bursts, 1.0, seed=3), most=16),
    ]


def rush(seed: int, height: float):
    """A rate that swings slowly, wavers from minute to minute, and jumps for a minute at each full hour."""
    source = random.Random(seed)
    waver = [math.exp(source.gauss(0, 0.08)) for _ in range(24 * 60)]

    def rate(now: float) -> float:
        since = now % 3600
        jump = height - 1 if since < 60 else (height - 1) * math.exp(-(since - 60) / 40)
        return 4.0 * (1 + 0.35 * math.sin(now / 3400 + seed)) * waver[int(now / 60) % len(waver)] * (1 + jump)

    return rate


def series(seconds: float, rate: float, *, seed: int) -> Trace:
    """Users who send one to a few requests half a minute apart; each holds a slot for 1 to 120 s."""
    source, now, rows = random.Random(seed), 0.0, []
    while now < seconds:
        now += source.expovariate(max(rate / 1.8 * (1 + 0.8 * math.sin(now / 6875)), 1e-4))
        at = now
        while True:
            rows.append((at, min(120.0, max(1.0, source.lognormvariate(math.log(22), 0.65)))))
            if source.random() < 1 / 1.8:
                break
            at += source.expovariate(1 / 25)
    rows.sort()
    return Trace(tuple(at for at, _ in rows), tuple(taken for _, taken in rows))


def _bursts(now: float) -> float:
    return 12.0 if int(now / 10) * 7919 % 13 < 3 else 0.1


def generate(seconds: float, rate, mean: float, *, seed: int) -> Trace:
    """Poisson arrivals at a rate that varies with time, lognormal service times (half their mean apart)."""
    source, now, rows = random.Random(seed), 0.0, []
    sigma = math.sqrt(math.log(1.25))
    while now < seconds:
        now += source.expovariate(max(rate(now), 0.02))
        rows.append((now, source.lognormvariate(math.log(mean) - sigma * sigma / 2, sigma)))
    return Trace(tuple(at for at, _ in rows), tuple(taken for _, taken in rows))


def policies():
    """Makes a policy by its name, from whatever plugins are installed."""
    registry = PluginRegistry()
    registry.load()
    context = PluginContext(instance="bench", state_dir="", runtime_dir="")
    return lambda name: registry.factory("policy", name)(context)


def service_of(load: Load, policy: str) -> ServiceSpec:
    """The service that the load is for, scaled by that policy at its defaults."""
    return ServiceSpec(
        deployment="bench",
        name=load.name,
        launch=Command(("run",)),
        working_dir="/",
        scaling=Scaling(min_replicas=load.low, max_replicas=load.most, policies=(rule_of(policy),)),
        traffic=Traffic(concurrency=load.slots),
        slo_wait=load.slo_wait,
    )


def measure(load: Load, policy: str, startup: float, seed: int, bound: float) -> Result:
    """One run."""
    source = random.Random(1000 + seed)
    shift = source.uniform(0, 15)
    trace = Trace(tuple(at + shift for at in load.trace.arrivals), load.trace.services)
    first = sum(s for at, s in zip(load.trace.arrivals, load.trace.services, strict=True) if at < 300)
    case = Case(
        spec=service_of(load, policy),
        trace=trace,
        startup=startup,
        slo_wait=load.slo_wait,
        initial=math.ceil(first / 300 / load.slots / 0.7),
        startups=[startup * source.uniform(0.9, 1.1) for _ in range(2000)],
    )
    began = time.perf_counter()
    row = figures(replay([case], policies())[0])
    taken = time.perf_counter() - began
    return Result(
        load=load.name,
        startup=startup,
        seed=seed,
        policy=policy,
        late=100 * row.slo_miss_ratio,
        cost=row.replica_seconds / bound,
        hours=row.replica_seconds / 3600,
        seconds=taken,
    )


def run(
    loads: Sequence[Load], names: Sequence[str], startups: Sequence[float], seeds: int
) -> Iterator[list[Result]]:
    """Cell by cell: every policy on one load with one start-up time and one seed."""
    for load, startup in itertools.product(loads, startups):
        bound = clairvoyant(
            load.trace, slots=load.slots, slo_wait=load.slo_wait, startup=startup, min_replicas=load.low
        )
        for seed in range(seeds):
            yield [measure(load, name, startup, seed, bound) for name in names]


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean."""
    return sum(values) / len(values)


def summary(cells: Sequence[Sequence[Result]], names: Sequence[str]) -> list[str]:
    """One line a policy: mean late, geometric mean cost, and ours against it, cell by cell. Two figures are
    equal within 0.05 points late and 0.5 % cost."""
    lines = ["| policy | late % | cost | foresight better on both | worse on both | its replica-hours |"]
    lines.append("|---|---|---|---|---|---|")
    for name in names:
        theirs = [next(r for r in cell if r.policy == name) for cell in cells]
        ours = [next((r for r in cell if r.policy == OURS), None) for cell in cells]
        late, cost = mean([r.late for r in theirs]), math.exp(mean([math.log(r.cost) for r in theirs]))
        line = f"| {name} | {late:.2f} | {cost:.2f} |"
        pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if a is not None]
        if name != OURS and pairs:
            better = sum(a.late <= b.late + 0.05 and a.cost <= b.cost * 1.005 for a, b in pairs)
            worse = sum(b.late <= a.late + 0.05 and b.cost <= a.cost * 1.005 for a, b in pairs)
            hours = sum(a.hours for a, _ in pairs) / sum(b.hours for _, b in pairs) - 1
            line += f" {better} of {len(pairs)} | {worse} of {len(pairs)} | {hours:+.0%} |"
        lines.append(line if line.count("|") > 4 else line + " | | |")
    return lines


def to_zero(names: Sequence[str], startups: Sequence[float]) -> list[str]:
    """A service that may go to zero and has a request every few minutes: late and replica-hours."""
    load = Load("rare", series(12 * 3600, 0.0055, seed=5), 1, 30.0, 16, 0)
    lines = ["| start-up | " + " | ".join(names) + " |", "|---" * (1 + len(names)) + "|"]
    for startup in startups:
        cells = [measure(load, name, startup, 0, 1.0) for name in names]
        figures_of = " | ".join(f"{r.late:.1f} % / {r.hours:.2f} h" for r in cells)
        lines.append(f"| {startup:g} s | {figures_of} |")
    return lines


def tuned_on(name: str) -> bool:
    """Whether a load had a part in choosing the defaults."""
    return any(part in name for part in TUNED_ON) and not name.endswith("-b")


def tables(cells: Sequence[Sequence[Result]], names: Sequence[str]) -> list[str]:
    """The summary of all loads, of those that had a part in the tuning, those that had none, and the rest."""
    groups = {
        "all loads": cells,
        "loads that the defaults were chosen on": [cell for cell in cells if tuned_on(cell[0].load)],
        "others, not blind": [cell for cell in cells if not tuned_on(cell[0].load)],
        "without the bursty trace": [cell for cell in cells if BURSTY not in cell[0].load],
    }
    lines = []
    for title, group in groups.items():
        if group:
            lines += [f"\n{title}, {len(group)} cells:\n", *summary(group, names)]
    return lines


def main(arguments: Sequence[str]) -> int:
    """Print the cells as they come, then the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("directory", nargs="?", type=Path)
    parser.add_argument("--startups", default="5,20,60")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--policies", default=",".join((*PEERS, OURS)))
    parser.add_argument("--yardstick", action="store_true", help="recorded and generated loads, all tables")
    parser.add_argument("--to-zero", action="store_true", help="only the service with rare requests")
    given = parser.parse_args(arguments)
    names = given.policies.split(",")
    if given.to_zero:
        print("\n".join(to_zero(names, [float(text) for text in given.startups.split(",")])))
        return 0
    loads = directory(given.directory) if given.directory else []
    if given.directory and not loads:
        parser.error(f"no trace (*.csv, *.csv.gz) in {given.directory}")
    if given.yardstick or not loads:
        loads += [load for load in generated() if not given.yardstick or load.name != "bursts"]
    print("| load | start-up | seed | " + " | ".join(names) + " |\n" + "|---" * (3 + len(names)) + "|")
    cells = []
    for cell in run(loads, names, [float(text) for text in given.startups.split(",")], given.seeds):
        cells.append(cell)
        figures_of = " | ".join(f"{r.late:.2f} % / {r.cost:.2f}" for r in cell)
        print(f"| {cell[0].load} | {cell[0].startup:g} s | {cell[0].seed} | {figures_of} |", flush=True)
    print("\n".join(tables(cells, names) if given.yardstick else ["", *summary(cells, names)]))
    slowest = max((r for cell in cells for r in cell), key=lambda r: r.seconds)
    print(f"\nslowest replay: {slowest.seconds:.2f} s ({slowest.policy} on {slowest.load})")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
