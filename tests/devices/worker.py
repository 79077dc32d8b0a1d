"""Runs every case on the second device, or those that are named, and writes the fault of each and what it called.

Called are the functions of the library that the cases called there, as "file:first line".
"""

import sys
import tempfile
from pathlib import Path

from chexgen_lib.storage import write_json
from tests.devices import second_device

LIBRARY = Path(__file__).parents[2] / "chexgen_lib"


def main(output: str, *names: str) -> None:
    # Now that `second_device` has replaced what the library chooses.
    from tests.devices import learning_cases, sampling_cases, training_cases

    cases = sampling_cases.CASES | training_cases.CASES | learning_cases.CASES
    called: set[tuple[str, int]] = set()

    def note(frame, event, _):
        if event == "call" and frame.f_code.co_filename.startswith(str(LIBRARY)):
            called.add((frame.f_code.co_filename, frame.f_code.co_firstlineno))

    with tempfile.TemporaryDirectory() as folder:
        tempfile.tempdir = folder
        faults = {name: second_device.fault_of(cases[name], note) for name in names or cases}
    lines = sorted(f"{Path(file).relative_to(LIBRARY)}:{line}" for file, line in called)
    write_json({"faults": faults, "called": lines}, output)


if __name__ == "__main__":
    main(*sys.argv[1:])
