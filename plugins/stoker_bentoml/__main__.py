"""`PYTHON .../stoker_bentoml/__main__.py inspect|serve ...`, in the Python that the bento runs in.

That may be another interpreter than Stoker's, without Stoker in it: nothing but this package and BentoML is
imported, and the code keeps to what Python 3.9 knows.
"""

from __future__ import annotations

import importlib.util
import os
import sys


def main(argv: list[str]) -> None:
    """Run one of the two programs."""
    _make_importable(os.path.dirname(os.path.abspath(__file__)))
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    if argv[1] == "inspect":
        from stoker_bentoml import inspecting

        inspecting.main(argv[2])
    else:
        from stoker_bentoml import serving

        serving.main(argv[2], argv[3], int(argv[4]))


def _make_importable(folder: str) -> None:
    """Let this package be imported, without whatever else lies beside it."""
    if sys.path and os.path.realpath(sys.path[0]) == os.path.realpath(folder):
        sys.path.pop(0)
    found = importlib.util.spec_from_file_location(
        "stoker_bentoml", os.path.join(folder, "__init__.py"), submodule_search_locations=[folder]
    )
    assert found is not None
    assert found.loader is not None
    package = importlib.util.module_from_spec(found)
    sys.modules["stoker_bentoml"] = package
    found.loader.exec_module(package)


if __name__ == "__main__":
    main(sys.argv)
