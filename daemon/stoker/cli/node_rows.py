"""The machines of a cluster, made from the devices document: for `stoker gpus`. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stoker.cli.table import Cell, Column, Table
from stoker.model.quantity import format_bytes

Document = Mapping[str, Any]


def node_table(nodes: Sequence[Document]) -> Table:
    """One row per machine."""
    columns = (
        Column("NODE"),
        Column("BACKEND"),
        Column("STATE"),
        Column("GPUS", right=True),
        Column("CORES", right=True),
        Column("MEMORY", right=True),
        Column("ALSO", shrink=True),
        Column("REPLICAS", shrink=True),
    )
    return Table(columns, tuple(_row(node) for node in nodes))


def _row(node: Document) -> tuple[Cell, ...]:
    kind = f" {node['accelerator']}" if node["accelerator"] else ""
    return (
        Cell(node["address"], "bold"),
        Cell(node["backend"]),
        Cell("alive", "green") if node["alive"] else Cell("lost", "red"),
        Cell(f"{node['gpus']:g}{kind}" if node["gpus"] else "-"),
        Cell(f"{node['cpu']:g}"),
        Cell(format_bytes(node["memory"])),
        Cell(", ".join(f"{name} {value:g}" for name, value in sorted(node["custom"].items()))),
        Cell(", ".join(node["replicas"]) or "-"),
    )
