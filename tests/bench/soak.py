"""Kills daemon, router and workers at random under load, for minutes, and checks the laws.

    python tests/bench/soak.py [--minutes 30] [--seed N] [--out FILE]

Ends at the first broken law with what the daemon said, exit code 1; else prints the tally, exit code 0.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fakenvml.build import CannotBuildError, library
from fakenvml.fakebox import FakeBox
from system.chaos import Chaos, check_counts
from system.harness import Box


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--out", type=Path, help="where the tally goes as JSON")
    given = parser.parse_args()
    print(f"{given.minutes:g} minutes, seed {given.seed}", flush=True)
    directory = Path(tempfile.mkdtemp(prefix="soak-"))
    fault = run(given, directory)
    if fault:
        print(f"what the daemon left is in {directory}")
    else:
        shutil.rmtree(directory)
    return 1 if fault else 0


def run(given: argparse.Namespace, directory: Path) -> str:
    """Which law was broken, "" for none."""
    environ = {}
    try:
        library()
        environ = FakeBox.preset("2xt4", directory / "nvml.json").environ
    except CannotBuildError as error:
        print(f"without devices: {error}")
    with Box(directory, **environ) as box:
        chaos = Chaos(box, given.seed, gpu=bool(environ))
        fault = ""
        try:
            check_counts(chaos.run(given.minutes * 60))
        except AssertionError as error:
            fault = str(error)
        found = {"seed": given.seed, "broken": fault, **chaos.tally.report()}
        print(json.dumps(found, indent=1))
        if given.out:
            given.out.write_text(json.dumps(found, indent=1) + "\n")
    return fault


if __name__ == "__main__":
    sys.exit(main())
