"""`stoker check`: validate."""

from __future__ import annotations

import sys

import click

from stoker.cli.quick import print_json
from stoker.cli.session import config_options, output_option
from stoker.errors import ConfigError


@click.command()
@config_options
@output_option
def command(files: tuple[str, ...], sets: tuple[str, ...], profile: str | None, output: str) -> int:
    """Validate ./stoker.yaml or the FILEs; every error as file:line:column: path: message."""
    from stoker.api.documents import problem_document
    from stoker.cli import exits, launch, loading

    try:
        effective = loading.load(launch.default_files(files), profile=profile, sets=sets, to_run=False)
    except ConfigError as error:
        if output != "json":
            raise
        errors = [problem_document(problem) for problem in error.problems]
        print_json({"ok": False, "errors": errors, "services": 0, "deployments": 0})
        return exits.USAGE
    services, deployments = effective.desired.services, effective.layers
    if output == "json":
        print_json(
            {
                "ok": True,
                "errors": [],
                "notices": list(effective.notices),
                "services": len(services),
                "deployments": len(deployments),
            }
        )
        return exits.OK
    for notice in effective.notices:
        sys.stderr.write(f"note: {notice}\n")
    sys.stdout.write(f"ok: {_count(len(services), 'service')} in {_count(len(deployments), 'deployment')}\n")
    return exits.OK


def _count(number: int, word: str) -> str:
    return f"{number} {word}" + ("" if number == 1 else "s")
