"""`stoker ui`: how to open the web page."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from stoker.cli.quick import print_json
from stoker.cli.session import output_option, session_of, session_options

if TYPE_CHECKING:
    from stoker.api.roles import Role

DEFAULT = "127.0.0.1:7070"


@click.command()
@click.option(
    "--listen", metavar="HOST:PORT", is_flag=False, flag_value=DEFAULT,
    help=f"Open the page there now, until the daemon ends; {DEFAULT} where no place is given.",
)  # fmt: skip
@click.option("--view", is_flag=True, help="With the token of those who may look only.")
@output_option
@session_options
@click.pass_context
def command(context: click.Context, listen: str | None, view: bool, output: str) -> int:
    """Say how to open the web page of the running daemon."""
    client = session_of(context).client()
    if listen:
        client.post("/v1/listen", {"address": listen})
    daemon = client.get("/v1/status")["daemon"]
    role: Role = "view" if view else "operate"
    token, trouble = _token(daemon["state_dir"], role) if daemon["listening"] else ("", "")
    scheme = "https" if daemon["tls"] else "http"
    urls = [_url(scheme, address, token) for address in daemon["listening"]]
    if output == "json":
        print_json({"urls": urls, "listening": daemon["listening"], "socket": client.socket})
    else:
        sys.stdout.write("".join(f"{line}\n" for line in _lines(urls, trouble, client.socket)))
    return 0


def _url(scheme: str, address: str, token: str) -> str:
    """The token stands behind the #: browsers keep that part to themselves."""
    from stoker.api.tcp import join_address, split_address

    host, port = split_address(address)
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"{scheme}://{join_address(shown, port)}/" + (f"#token={token}" if token else "")


def _token(state_dir: str, role: Role) -> tuple[str, str]:
    """The token, or the words why it cannot be shown."""
    from stoker.api.tcp import token, token_path
    from stoker.errors import StokerError

    try:
        return token(state_dir, role), ""
    except StokerError:
        return (
            "",
            f"the token is in {token_path(state_dir, role)}, which you may not read; ask the daemon's user",
        )


def _lines(urls: list[str], trouble: str, socket: str) -> list[str]:
    if urls:
        return [*urls, *([trouble] if trouble else [])]
    return [
        "The page is not open on TCP. To open it on this box until the daemon ends:",
        "  stoker ui --listen",
        "From another machine, with the authority that ssh gives you:",
        f"  ssh -L 7070:{socket} THIS-BOX     and then http://localhost:7070/",
    ]
