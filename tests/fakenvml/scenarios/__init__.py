"""What the fake must do, asked through the unmodified nvidia-ml-py.

Each scenario runs in a process of its own, because pynvml keeps the library it has loaded.
test_fakenvml.py runs them all.
"""

from fakenvml.scenarios import devices, faults, topology
from fakenvml.scenarios.asking import SCENARIOS

__all__ = ["SCENARIOS", "devices", "faults", "topology"]
