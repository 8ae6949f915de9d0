"""`python -m stoker.cli`: the same as `stoker`, for a child process that must run this very installation."""

from __future__ import annotations

import sys

from stoker.cli.main import main

sys.exit(main())
