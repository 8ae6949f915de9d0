"""Slurm's own commands, each run with an environment of its own."""

from __future__ import annotations

import math
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import anyio

from stoker.errors import WorkerError
from stoker.model.node import Node
from stoker.plugin.ports import StartRequest

KEPT = ("PATH", "SLURM_CONF", "LANG")
"""Variables of the daemon that these commands need. A job inherits nothing else."""
TIMEOUT = 60.0
"""Seconds one of them may take; slurmctld itself gives up before that."""


AWAY = frozenset({"DOWN", "FAIL", "FUTURE", "UNKNOWN", "POWERED_DOWN", "POWER_DOWN", "DRAINED"})
"""States of nodes on which nothing runs."""


class SlurmAwayError(WorkerError):
    """The cluster's controller does not answer, or refuses."""


@dataclass(frozen=True, slots=True)
class Job:
    """One job as `squeue` shows it. `reason`: why it waits, or where it is going."""

    id: str
    state: str
    reason: str
    mark: str


class Commands:
    """`name`: of every job of this daemon."""

    def __init__(self, name: str, environ: Mapping[str, str]) -> None:
        self.name = name
        self._environ = {key: environ[key] for key in KEPT if key in environ}
        self._environ.setdefault("PATH", os.defpath)

    async def submit(self, script: str, mark: str, log: str, needs: Sequence[str]) -> str:
        """Hand in a job; returns its id. Raises SlurmAwayError."""
        words = [
            "sbatch",
            "--parsable",
            "--export=ALL",  # which is next to nothing, see KEPT
            f"--job-name={self.name}",
            f"--comment={mark}",
            "--no-requeue",  # a worker that is lost is replaced by the daemon, under another id
            "--open-mode=append",
            f"--output={log}",
            "--chdir=/",
            "--nodes=1",
            "--ntasks=1",
            *needs,
        ]
        said = await self._run(words, script)
        return said.strip().partition(";")[0]

    async def jobs(self) -> list[Job]:
        """All jobs of this daemon that the controller still knows. Raises SlurmAwayError."""
        words = ["squeue", "--noheader", "--states=all", f"--name={self.name}", "--format=%i|%T|%r|%k"]
        rows = [line.split("|", 3) for line in (await self._run(words)).splitlines()]
        return [Job(*row) for row in rows if len(row) == 4]

    async def nodes(self) -> list[Node]:
        """All nodes of the cluster. Raises SlurmAwayError."""
        return nodes_of(await self._run(["scontrol", "-o", "show", "nodes"]))

    async def signal(self, job: str, number: int) -> None:
        """Send a signal to what the job runs itself. One that is over is no error. Raises SlurmAwayError."""
        await self._run(["scancel", "--quiet", "--batch", f"--signal={number}", job], may_fail=True)

    async def cancel(self, job: str) -> None:
        """End it altogether. One that is over is no error. Raises SlurmAwayError."""
        await self._run(["scancel", "--quiet", job], may_fail=True)

    async def beside(self, job: str, argv: Sequence[str]) -> tuple[int, str]:
        """Run a command on the job's node; returns its exit code and last line."""
        words = ["srun", "--quiet", f"--jobid={job}", "--overlap", "--ntasks=1", "--chdir=/", *argv]
        done = await anyio.run_process(
            words, check=False, env=self._environ, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
        )
        return done.returncode, done.stdout.decode(errors="replace").strip().rpartition("\n")[2][:200]

    async def _run(self, words: Sequence[str], text: str = "", *, may_fail: bool = False) -> str:
        try:
            with anyio.fail_after(TIMEOUT):
                done = await anyio.run_process(words, input=text.encode(), check=False, env=self._environ)
        except (OSError, TimeoutError) as error:
            raise SlurmAwayError(f"{words[0]} cannot be run: {error or 'it does not answer'}") from error
        if done.returncode and not may_fail:
            last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
            raise SlurmAwayError(f"{words[0]}: {last.removeprefix(f'{words[0]}: ')}")
        return done.stdout.decode(errors="replace")


def needs(request: StartRequest) -> list[str]:
    """What the job asks for, as options of sbatch. Pure."""
    wanted = request.elsewhere
    if wanted is None:
        return []
    found = [f"--{name}={value}" if value else f"--{name}" for name, value in wanted.options]
    resources = wanted.resources
    if resources.gpu:
        kind = f"{resources.gpu_type}:" if resources.gpu_type else ""
        found.append(f"--gres=gpu:{kind}{math.ceil(resources.gpu)}")
    if resources.cpu:
        found.append(f"--cpus-per-task={math.ceil(resources.cpu)}")
    if resources.memory:
        found.append(f"--mem={math.ceil(resources.memory / (1 << 20))}M")
    return found


def nodes_of(said: str) -> list[Node]:
    """The nodes that `scontrol -o show nodes` tells of. Pure."""
    found = []
    for line in said.splitlines():
        told = dict(word.partition("=")[::2] for word in line.split())
        if "NodeName" not in told:
            continue
        gpus = re.findall(r"\bgpu(?::([^:,()]+))??:(\d+)", told.get("Gres", ""))
        state = told.get("State", "")
        found.append(
            Node(
                address=told.get("NodeAddr", told["NodeName"]),
                alive=not ("*" in state or set(re.split(r"[+*~#$@^-]", state)) & AWAY),
                gpus=float(sum(int(count) for _, count in gpus)),
                cpu=float(told.get("CPUTot", 0)),
                memory=int(told.get("RealMemory", 0)) << 20,
                accelerator=next((kind for kind, _ in gpus if kind), ""),
            )
        )
    return found
