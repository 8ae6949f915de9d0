"""`python -m stoker_router`: the router's program."""

import sys

from stoker_router.main import main

sys.exit(main(sys.argv[1:]))
