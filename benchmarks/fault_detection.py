"""How many planted faults quality control finds, and how its reading agrees with Open-i's indexers.

    python benchmarks/fault_detection.py [--rows 4000] [--n 250] [--seed 0]

Reads the four tables that torchxrayvision ships, draws "--rows" records of each, plants up to "--n" faults of each kind
per source in the grammar's wording and in the hand-written paraphrases, and writes fault_detection.csv (wording,
source, fault, n, found, low, high; "clean": the share flagged without a fault) and report_reading.csv (one row per
finding, all Open-i reports) beside this file.
"""

import argparse
from pathlib import Path

import polars as pl

from chexgen_lib.descriptions import audit, grammar
from chexgen_lib.descriptions.paraphrase import paraphrase
from chexgen_lib.sources import registry


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=4000, help="records drawn from each source")
    parser.add_argument("--n", type=int, default=250, help="faults of each kind per source")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    loaded = {source: registry.load(source)[0] for source in registry.ALWAYS}
    drawn = pl.concat([df.sample(min(arguments.rows, df.height), seed=arguments.seed) for df in loaded.values()])
    detected = [
        audit.detection(drawn, arguments.n, arguments.seed, write).select(pl.lit(wording).alias("wording"), pl.all())
        for wording, write in (("grammar", grammar.full), ("paraphrase", paraphrase))
    ]
    folder = Path(__file__).parent
    results = {
        "fault_detection.csv": pl.concat(detected),
        "report_reading.csv": audit.against_reports(loaded["openi"]),
    }
    for name, table in results.items():
        table.write_csv(folder / name, float_precision=4)
        with pl.Config(tbl_rows=-1, tbl_cols=-1, tbl_width_chars=250, float_precision=3):
            print(table)


if __name__ == "__main__":
    main()
