"""Why a service or replica is as it is, over the live screen: what `stoker explain` and `story` say."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from stoker.cli.client import Client, story_path
from stoker.errors import StokerError


class Detail(ModalScreen[None]):
    """One answer; Escape leads back."""

    CSS = """
    Detail { align: center middle; }
    Detail VerticalScroll { width: 90%; height: 85%; padding: 1 2; }
    Detail VerticalScroll { border: round $primary; background: $surface; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [("escape,q,enter", "dismiss", "Back")]

    def __init__(self, client: Client, name: str, *, replica: bool) -> None:
        super().__init__()
        self._client = client
        self._what = name
        self._replica = replica

    def compose(self) -> ComposeResult:
        """A box that scrolls."""
        with VerticalScroll() as box:
            box.border_title = self._what
            box.border_subtitle = "Esc: back"
            yield Static("…", id="words")

    def on_mount(self) -> None:
        """Ask the daemon."""
        self._ask()

    @work(thread=True)
    def _ask(self) -> None:
        from stoker.cli.commands.explain import told
        from stoker.cli.events_text import story_lines

        try:
            if self._replica:
                found = self._client.get("/v1/explain", replica=self._what)
                lines = list(told({**found, "chain": []}))
                lines += story_lines(self._client.get(story_path(self._what))["events"])
            else:
                lines = list(told(self._client.get("/v1/explain", service=self._what)))
        except StokerError as error:
            lines = [(str(error), "red")]
        self.app.call_later(self._show, lines)

    def _show(self, lines: list[tuple[str, str]]) -> None:
        if self.is_mounted:
            parts = [(f"{text}\n", style) for text, style in lines]
            self.query_one("#words", Static).update(Text.assemble(*parts))
