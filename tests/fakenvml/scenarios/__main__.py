"""Run one scenario: `python -m fakenvml.scenarios NAME STATE`."""

import sys

from fakenvml.fakebox import FakeBox
from fakenvml.scenarios import SCENARIOS

SCENARIOS[sys.argv[1]][2](FakeBox(sys.argv[2]))
