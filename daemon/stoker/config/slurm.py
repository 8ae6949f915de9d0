"""Slurm in the file: what a service asks of the cluster. Pure."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from stoker.config.fields import Text
from stoker.config.section import Section
from stoker.config.tree import Path, Report

OWN = frozenset(
    {
        "array", "chdir", "comment", "cpus-per-task", "error", "export", "gpus", "gres", "input", "job-name",
        "mem", "nodes", "ntasks", "open-mode", "output", "parsable", "requeue", "no-requeue", "wait", "wrap",
    }
)  # fmt: skip
"""Options of sbatch that Stoker gives itself."""

OptionName = Annotated[str, Text("a long option of sbatch", "exclusive", r"[a-z][a-z-]*")]
OptionValue = Annotated[str, Text("a text", "user", r"[^\n]*")]
Word = Annotated[str, Text("a name of the cluster's", "gpu", r"[^\s,]+(,[^\s,]+)*")]


class SlurmSection(Section):
    """What the jobs of a Slurm cluster ask for, beside `resources`."""

    partition: Word | None = None
    """Where to run. Default: the cluster's own."""
    account: Word | None = None
    """Who pays."""
    qos: Word | None = None
    """The quality of service."""
    constraint: Annotated[str, Text("features of nodes", "a100&nvlink", r"\S+")] | None = None
    """Only nodes with these features."""
    time: Annotated[str, Text("a time limit", "7-00:00:00", r"(\d+-)?\d+(:\d+){0,2}|UNLIMITED")] | None = None
    """How long a replica may run before Slurm ends it. Default: the partition's."""
    options: dict[OptionName, OptionValue] = Field(default={}, examples=[{"exclusive": "user"}])
    """Further options of sbatch, without the dashes; "" for one that takes no value."""


def options_of(
    whole: SlurmSection, own: SlurmSection, report: Report, path: Path
) -> tuple[tuple[str, str], ...]:
    """The service's options over those of the file; complains of those that are not its to give."""
    found: dict[str, str] = {}
    for section in (whole, own):
        named = section.model_dump(exclude={"options"}, exclude_none=True)
        found |= {key: str(value) for key, value in named.items()} | dict(section.options)
    for key in own.options:
        if key in OWN:
            message = "is decided by Stoker, from `resources` and the like"
            report.add((*path, "slurm", "options", key), message, key=True)
    return tuple(sorted(found.items()))
