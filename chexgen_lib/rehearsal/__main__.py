"""python -m chexgen_lib.rehearsal [PROFILE] [--stages 02_cohort ...] [--set SETTINGS] [--folder FOLDER]"""

import argparse
import resource
import sys
import time
from pathlib import Path

from chexgen_lib.rehearsal import items, workplace
from chexgen_lib.storage import write_csv
from chexgen_lib.workflow import dag, settings
from chexgen_lib.workflow.notebooks import ROOT, NotebookError, load_yaml


def main() -> int:
    """Returns the exit status: 1 if a stage failed, or an item that the stages make is missing."""
    parser = argparse.ArgumentParser(
        prog="python -m chexgen_lib.rehearsal",
        description="Run all stages of a profile on stand-ins of its datasets and weights; say which items come out.",
    )
    parser.add_argument("profile", nargs="?", default="paper")
    parser.add_argument("--stages", nargs="*", default=[], help="and those that they need; default: all")
    parser.add_argument("--set", default="", help="settings beside the profile, in one text, as make's SET")
    parser.add_argument("--folder", type=Path, help="default: runs/rehearsal/PROFILE; a second time, it goes on there")
    options = parser.parse_args()
    start = time.perf_counter()
    known = dag.plain(options.profile)
    dag.with_needed(options.stages, dag.stages(known))  # a misspelt one is named before anything is written
    place = (options.folder or ROOT / "runs/rehearsal" / options.profile).resolve()
    beside = settings.split(options.set, known) if options.set else []
    workplace.prepare(place, options.profile, workplace.with_rivals(beside))
    print(f"{place}: data, weights and params.yaml in {time.perf_counter() - start:.0f} s", flush=True)
    failed = workplace.repro(place, options.stages) != 0
    params = load_yaml(place / "params.yaml")
    stages = dag.with_needed(options.stages, dag.stages(params, place))
    found = items.table(place, params, stages)
    write_csv(found, place / "items.csv")
    print(items.page(found))
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    minutes, processor = (time.perf_counter() - start) / 60, sum(u.ru_utime + u.ru_stime for u in used) / 60
    missing = items.missing(found)
    print(f"profile {options.profile} in {minutes:.1f} minutes, {processor:.1f} of one processor's: ", end="")
    print(f"{'stages failed' if failed else 'all stages ended'}, {len(missing)} items missing")
    return 1 if failed or len(missing) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except NotebookError as error:
        sys.exit(f"error: {error}")
