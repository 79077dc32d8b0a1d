"""ChexGen companion: the library behind the notebooks."""

import os

__version__ = "0.1.0"

# OpenMP's threads wait for each other many times per step. By default they spin, which is fast on an idle machine;
# beside one other busy program, each wait lasts until the scheduler gives the core back. OpenMP reads these variables
# when torch is imported, and child processes inherit them. Values set by the user are kept.
WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}
for _name, _value in WAITING.items():
    os.environ.setdefault(_name, _value)
