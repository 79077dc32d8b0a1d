"""What processes of the library find in their environment; light, since each stage reads it before it imports torch."""

import os

LAUNCH = "CHEXGEN_LAUNCH"  # the command that starts the processes of a training (`training.launch`)
STAGE = "CHEXGEN_STAGE"  # the folder that a stage holds (`kept.held`) as long as its processes train
# By default the threads of libgomp, which torch computes with, spin for milliseconds at every barrier. Where another
# program, a browser for example, has the core of a thread that the others wait for, all of that is lost, many times a
# step. Spun no longer than a thread of a quiet machine has to wait, they lose little on either
# (`benchmarks/busy_machine.csv`).
SPIN_BRIEFLY = {"GOMP_SPINCOUNT": "20000"}


def spin_briefly() -> None:
    """Let threads that wait for each other spin for a short time only, unless the user says for how long.

    torch reads it when it is imported, so this process must not have done that.
    """
    for name, value in SPIN_BRIEFLY.items():
        os.environ.setdefault(name, value)
