"""What deciding costs: a pass over many busy services, and an hour's load replayed.

    python tests/bench/bench_decide.py [--services 100] [--policies foresight,concurrency] [--rounds 7]

Every service has a load of its own, a Poisson stream of 5 requests a second around which it swings, replayed
for a quarter of an hour. Then each is decided again, second by second, as the daemon does when the router's
samples come in: policy, windows, bounds (`decided`), and the box shared out among all (`shared out`). The
replay is an hour of 5 requests a second, the whole of `stoker simulate` but reading the file. CPU time, the
median of the rounds; the fastest beside it, for a machine that does other things too. `adding` is the same
machine's time for a million additions: what to compare a figure of another machine with.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

from bench_scaling import Load, generate, policies, service_of

from stoker.decide.budget import Amount
from stoker.decide.scaling import settle
from stoker.plugin.ports import PolicyInput
from stoker.simulate.box import SharedBox
from stoker.simulate.replay import Case, Member, replay

RATE, SERVICE_TIME = 5.0, 2.0
WARM = 900.0
PASSES = 20
"""Seconds in a row that are decided and timed, of which four pass between two lessons of foresight's."""


def case(policy: str, seed: int, seconds: float) -> Case:
    """One service with its load."""
    load = Load(
        f"s{seed}",
        generate(seconds, lambda now: RATE * (1 + 0.5 * math.sin(now / 200 + seed)), SERVICE_TIME, seed=seed),
    )
    return Case(spec=service_of(load, policy), trace=load.trace, startup=20.0, initial=3)


def warm(policy: str, count: int) -> tuple[list[Member], SharedBox]:
    """Services in the midst of their loads, as they stand after the replay, and the box they share."""
    box = SharedBox(Amount(devices=math.inf, cpu=math.inf, memory=math.inf))
    last: dict[str, Member] = {}

    def keep(found: Sequence[Member], now: float) -> None:
        box(found, now)
        if now >= WARM - 60:
            last[found[0].case.spec.key] = found[0]

    for seed in range(count):
        replay([case(policy, seed, WARM)], policies(), apportion=keep)
    return list(last.values()), box


def passes(policy: str, count: int) -> tuple[list[float], list[float]]:
    """Milliseconds of each pass over so many services: deciding, and sharing out."""
    made, (members, box) = policies()(policy), warm(policy, count)
    deciding, sharing = [], []
    for second in range(1, PASSES + 1):
        for member in members:
            last = member.history.fine[-1]
            sample = replace(last, start=last.end, end=last.end + 1.0, arrivals=4 + second % 3, completions=5)
            member.history = member.history.add(replace(sample, service_seconds=10.0, in_flight_seconds=10.0))
        began = time.process_time()
        for member in members:
            _decide(member, made, member.history.fine[-1].end)
        between = time.process_time()
        box(members, members[0].history.fine[-1].end)
        deciding.append((between - began) * 1000)
        sharing.append((time.process_time() - between) * 1000)
    return deciding, sharing


def _decide(member: Member, policy, now: float) -> None:
    """As the daemon does."""
    spec = member.case.spec
    view = member.pool.state(member.target, 20.0)
    answers = []
    for rule in spec.scaling.policies:
        given = PolicyInput(
            service=spec,
            policy=rule,
            window=lambda seconds: member.history.window(seconds, now),
            pool=view,
            now=now,
            state=member.memory.state_of(rule),
            wall=now,
        )
        answers.append((rule, policy.decide(given)))
    settled = settle(spec, answers, member.memory, view, now)
    member.decision, member.memory = settled.decision, settled.memory
    member.target = settled.decision.target


def hour(policy: str) -> float:
    """Milliseconds to replay an hour."""
    one = case(policy, 1, 3600)
    make = policies()
    began = time.process_time()
    replay([one], make)
    return (time.process_time() - began) * 1000


def adding() -> float:
    """Milliseconds for a million additions."""
    began, total = time.process_time(), 0.0
    for number in range(1_000_000):
        total += number
    return (time.process_time() - began) * 1000


def told(name: str, values: Sequence[float]) -> None:
    """One line."""
    print(f"{name:<46} {statistics.median(values):8.2f} ms   fastest {min(values):8.2f} ms", flush=True)


def main(arguments: Sequence[str]) -> int:
    """Print a line a figure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--services", type=int, default=100)
    parser.add_argument("--policies", default="foresight,concurrency")
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args(arguments)
    told("adding", [adding() for _ in range(given.rounds)])
    for policy in given.policies.split(","):
        deciding, sharing = passes(policy, given.services)
        told(f"{policy}: {given.services} services decided", deciding)
        told(f"{policy}: {given.services} services shared out", sharing)
        told(
            f"{policy}: an hour at {RATE:g} requests/s replayed", [hour(policy) for _ in range(given.rounds)]
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
