"""The live screen itself: pools, the chosen pool's replicas, GPUs, events; explain and story by Enter."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, ClassVar

from rich.text import Text
from textual import work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import DataTable, Footer, RichLog, Static

from stoker.cli import gpu_rows, rows
from stoker.cli.client import Client
from stoker.cli.rows import key_of
from stoker.cli.table import Table
from stoker.cli.top.detail import Detail
from stoker.cli.top.link import Link
from stoker.cli.top.state import LiveState, spark
from stoker.errors import StokerError

SPARK = 24
SPARK_STEP = 10.0
SEVERITIES = {"info": "", "warning": "yellow", "error": "bold red"}
SURE = 3.0
"""Seconds within which a second press of the same key means it."""

Document = dict[str, Any]


class Top(App[int]):
    """One daemon, live. `client` asks and tells; the stream comes by a Link."""

    TITLE = "stoker"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #headline { padding: 0 1; background: $panel; }
    #errors, #notices { padding: 0 1; display: none; max-height: 6; }
    #errors { color: $error; }
    #notices { color: $warning; max-height: 3; }
    #errors.some, #notices.some { display: block; }
    #lower { height: 2fr; }
    #replicas { min-height: 4; }
    DataTable { height: 1fr; scrollbar-size-horizontal: 0; }
    #pools { height: auto; max-height: 45%; }
    #devices { max-height: 12; height: auto; }
    #devices.none { display: none; }
    RichLog { height: 1fr; border-top: solid $panel; padding: 0 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q,ctrl+c", "quit", "Quit", key_display="q", priority=True),
        Binding("enter", "why", "Why", priority=True),
        Binding("plus,equals_sign", "bounds(1)", "More", key_display="+"),
        Binding("minus", "bounds(-1)", "Fewer", key_display="-"),
        Binding("r", "sure('restart')", "Restart"),
        Binding("s", "hold", "Stop/start"),
        Binding("c", "cordon", "Cordon GPU"),
        Binding("tab", "focus_next", "Next table"),
    ]

    def __init__(self, client: Client) -> None:
        super().__init__()
        self.told = LiveState()
        self._client = client
        self._skew = 0.0
        self._chosen = ""
        self._pressed = ("", 0.0)
        self._link = Link(
            client,
            heard=lambda kind, message: self.call_later(self._hear, kind, message),
            standing=lambda words: self.call_later(self._stand, words),
        )
        self._standing = "connecting"

    def compose(self) -> ComposeResult:
        """The parts of the screen, from top to bottom."""
        yield Static(id="headline")
        yield Static(id="errors")
        yield Static(id="notices")
        yield DataTable(id="pools", cursor_type="row", zebra_stripes=True)
        with Horizontal(id="lower"), Vertical():
            yield DataTable(id="replicas", cursor_type="row")
            yield DataTable(id="devices", cursor_type="row")
        yield RichLog(id="events", max_lines=500, min_width=1, wrap=True, markup=False)
        yield Footer()

    def on_mount(self) -> None:
        """Begin to listen; ages and sparklines move with time."""
        self.query_one("#pools", DataTable).focus()
        self.set_interval(1.0, self._draw)
        self._link.start()

    def on_unmount(self) -> None:
        """The thread must not call an application that is gone."""
        self._link.stop()

    # -- what the daemon says --------------------------------------------------------------------------

    def _hear(self, kind: str, message: Mapping[str, Any]) -> None:
        if not self.query("#events"):
            return  # the screen is being taken down
        self._skew = message["now"] - time.time()
        fresh = self.told.apply(kind, message)
        if kind == "state":
            self._load_history()
        log = self.query_one("#events", RichLog)
        for event in fresh:
            stamp = time.strftime("%H:%M:%S", time.localtime(_seconds(event["time"])))
            log.write(
                Text(f"{stamp} {event['message']}", style=SEVERITIES.get(event["severity"], "")), expand=True
            )
        self._draw()

    def _stand(self, words: str) -> None:
        self._standing = words
        self._draw()

    @work(thread=True, exclusive=True, group="history")
    def _load_history(self) -> None:
        try:
            history = self._client.get("/v1/history", seconds=SPARK * SPARK_STEP)
        except StokerError:
            return  # the stream says it too, and comes back by itself
        self.call_later(self.told.add_history, history["services"])

    # -- the picture -----------------------------------------------------------------------------------

    def _draw(self) -> None:
        if not self.query("#headline"):
            return  # the screen is being taken down
        headline = self.query_one("#headline", Static)
        if not self.told.known:
            headline.update(Text(self._standing))
            return
        now = time.time() + self._skew
        status = self.told.status(now)
        words = rows.headline(status)
        live = self._standing == "live"
        headline.update(
            Text(words if live else f"{words}  [{self._standing}]", style="" if live else "yellow")
        )
        errors, down = rows.error_lines(status), rows.outage_lines(status)
        rejected = ["config rejected; the last good one runs", *errors[:4]] if errors else []
        self._show("errors", rejected + down)
        self._show("notices", [*rows.rejection_lines(status), *status["daemon"].get("notices", [])])
        keys = [key_of(service) for service in status["services"]]
        if self._chosen not in keys:
            self._chosen = keys[0] if keys else ""
        sparks = [spark(self.told.loads.get(key, {}), now, step=SPARK_STEP, width=SPARK) for key in keys]
        self._fill("pools", rows.service_table(status), keys, extra=("LOAD", sparks))
        mine = [(key, replica) for key, replica in _replicas(status) if key == self._chosen]
        replicas = rows.replica_table(mine, status["devices"])
        self._fill("replicas", replicas, [replica["id"] for _, replica in mine])
        devices = self.query_one("#devices", DataTable)
        devices.set_class(not status["devices"], "none")
        uuids = [device["uuid"] for device in status["devices"]]
        self._fill("devices", gpu_rows.device_table(status["devices"], brief=True), uuids)

    def _show(self, name: str, lines: list[str]) -> None:
        """Lines above the tables; none, and no room is taken."""
        box = self.query_one(f"#{name}", Static)
        box.set_class(bool(lines), "some")
        box.update(Text("\n".join(lines)))

    def _fill(
        self, name: str, table: Table, keys: list[str], *, extra: tuple[str, list[str]] | None = None
    ) -> None:
        """Bring a table to these rows, changing only cells that differ."""
        shown = self.query_one(f"#{name}", DataTable)
        titles = [column.title for column in table.columns] + ([extra[0]] if extra else [])
        if [str(column.label) for column in shown.ordered_columns] != titles:
            shown.clear(columns=True)
            for title in titles:
                shown.add_column(title, key=title)
        if [row.key.value for row in shown.ordered_rows] != keys:
            place = shown.cursor_row
            shown.clear()
            for key in keys:
                shown.add_row(*([""] * len(titles)), key=key)
            shown.move_cursor(row=min(place, max(0, len(keys) - 1)))
        for number, row in enumerate(table.rows):
            cells = [
                Text(cell.text, style=cell.style, justify="right" if column.right else "left")
                for cell, column in zip(row, table.columns, strict=True)
            ]
            if extra:
                cells.append(Text(extra[1][number], style="cyan"))
            for title, cell in zip(titles, cells, strict=True):
                if shown.get_cell(keys[number], title) != cell:
                    shown.update_cell(keys[number], title, cell, update_width=True)

    def on_data_table_row_highlighted(self, event: DataTable.RowHighlighted) -> None:
        """The pool under the cursor is the one whose replicas are shown."""
        if event.data_table.id == "pools" and event.row_key.value:
            self._chosen = event.row_key.value
            if self.told.known:
                self._draw()

    # -- what the operator says ------------------------------------------------------------------------

    def action_why(self) -> None:
        """Why what is under the cursor is as it is; once more leads back."""
        if isinstance(self.screen, Detail):
            self.screen.dismiss()
        elif isinstance(table := self.focused, DataTable) and table.id != "devices" and table.row_count:
            name = table.ordered_rows[table.cursor_row].key.value
            if name:
                self.push_screen(Detail(self._client, name, replica=table.id == "replicas"))

    def action_bounds(self, change: int) -> None:
        """One replica more or fewer at most."""
        service = self._service()
        if service is not None:
            most = max(0, service["max_replicas"] + change)
            low = min(service["min_replicas"], most)
            self._tell("/v1/scale", {"service": self._chosen, "min_replicas": low, "max_replicas": most})

    def action_hold(self) -> None:
        """Hold the chosen service at zero, or release it."""
        service = self._service()
        if service is not None and service.get("held"):
            self._tell("/v1/start", {"service": self._chosen})
        else:
            self.action_sure("stop")

    def action_sure(self, verb: str) -> None:
        """What disturbs requests wants its key pressed twice."""
        if not self._chosen:
            return
        wanted = f"{verb} {self._chosen}"
        if self._pressed[0] == wanted and time.monotonic() - self._pressed[1] < SURE:
            self._pressed = ("", 0.0)
            self._tell(f"/v1/{verb}", {"service": self._chosen})
        else:
            self._pressed = (wanted, time.monotonic())
            self.notify(f"{wanted}: press again to do it", timeout=SURE)

    def action_cordon(self) -> None:
        """Keep new workers from the GPU under the cursor, or give it back."""
        devices = self.query_one("#devices", DataTable)
        if not devices.has_focus or not devices.row_count:
            self.notify("choose a GPU first: Tab leads to their table")
            return
        uuid = devices.ordered_rows[devices.cursor_row].key.value
        health = next(d["health"] for d in self.told.status(0.0)["devices"] if d["uuid"] == uuid)
        verb = "uncordon" if health in {"cordoned", "quarantined"} else "cordon"
        self._tell(f"/v1/devices/{verb}", {"device": uuid})

    def _service(self) -> Document | None:
        found = self.told.status(0.0)["services"] if self.told.known else []
        return next((service for service in found if key_of(service) == self._chosen), None)

    @work(thread=True)
    def _tell(self, path: str, body: Document) -> None:
        try:
            message, severity = self._client.post(path, body)["message"], "information"
        except StokerError as error:
            message, severity = str(error), "error"
        self.call_later(self._say, message, severity)

    def _say(self, message: str, severity: str) -> None:
        self.notify(message, severity="error" if severity == "error" else "information", markup=False)


def _replicas(status: Mapping[str, Any]) -> list[tuple[str, Document]]:
    return [(key_of(service), replica) for service in status["services"] for replica in service["replicas"]]


def _seconds(text: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(text).timestamp()
