"""A long curation run against a server that injects faults, killed three times (SIGKILL) at random moments.

    python -m benchmarks.language_model_faults [--records 20000] [--limit 60] [--stall 30] [--kills 3]

Records of the shipped tables with distinct facts, some with an instruction hidden in their report, are described by a
process that is killed and started again; the server (tests/language_model/fault_server.py) runs here and counts.
"Wrong" is any text that is neither exactly what the server says of that record's facts nor the grammar's. "Lost" are
answers that were sent in full to a process that was killed before it could keep them: only those may be paid for twice.
Throughput is served requests, good or faulty, as a share of the server's limit: in the median second, while a process
was running (from its first request to its last, so with the tails in which only stalled requests are left), and over
all, with the starts of the processes. Writes language_model_faults.csv beside this file.
"""

import argparse
import json
import multiprocessing
import os
import random
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
from tqdm import tqdm

from chexgen_lib.descriptions import grammar
from chexgen_lib.descriptions.check import PASS, check
from chexgen_lib.language_model.cache import AnswerCache
from chexgen_lib.language_model.facts import project
from chexgen_lib.language_model.protocol import Endpoint, Report
from chexgen_lib.language_model.writer import LanguageModel
from chexgen_lib.sources import registry
from tests.language_model.fault_server import INJECTION, FaultServer, right_answer

CONCURRENCY = 32  # of the writer, and of the reviewer


def cohort(n: int) -> pl.DataFrame:
    """`n` records of the shipped tables with distinct facts, an instruction in the report of each 100th."""
    df = pl.concat(registry.load(source)[0].gather_every(3).head(2 * n) for source in registry.ALWAYS)
    df = check(grammar.describe(df)).filter(pl.col("qc") == PASS)
    df = df.with_row_index().with_columns(
        report=pl.when(pl.col("index") % 100 == 0).then(pl.lit(INJECTION)).otherwise("report")
    )
    df = df.drop("index", "qc", "description", "description_origin")
    df = df.with_columns(project(df, with_report=True)).unique("facts", keep="first", maintain_order=True)
    return df.drop("facts").sample(n, shuffle=True, seed=0)


def curate(folder: Path, url: str, timeout: float) -> None:
    """The process that is killed."""
    df = pl.read_parquet(folder / "records.parquet")
    writer, reviewer = (
        Endpoint(name, base_url=url, concurrency=CONCURRENCY, timeout=timeout) for name in ("writer", "reviewer")
    )
    model = LanguageModel(writer, reviewer, cache=folder / "answers.sqlite", with_report=True)
    records, fallbacks = model.describe(df)
    fallbacks.write_parquet(folder / "fallbacks.parquet")
    records.write_parquet(folder / "described.parquet")


def run(folder: Path, server: FaultServer, timeout: float, kills: list[int]) -> tuple[list[set[str]], list[tuple]]:
    """Keys lost at each kill (made when so many requests have been served), and first and last second of each run."""
    lost, spans = [], []
    context = multiprocessing.get_context("spawn")
    for kill in (*kills, None):
        began = len(server.served)
        process = context.Process(target=curate, args=(folder, server.url, timeout))
        process.start()
        while process.is_alive() and (kill is None or len(server.served) < kill):
            time.sleep(0.05)
        process.kill() if kill else None
        process.join()
        time.sleep(0.2)  # what the server had begun to send
        spans.append((server.served[began], server.served[-1]))
        if kill:
            with AnswerCache(folder / "answers.sqlite") as cache:
                lost.append({key for key in list(server.delivered) if cache.report(key) is None})
        elif process.exitcode:
            raise SystemExit("the last run failed")
    return lost, spans


def wrong(described: pl.DataFrame) -> int:
    """Descriptions that are neither the server's right text for the facts nor the grammar's."""
    facts = project(described, with_report=True)
    by_grammar = described["description_origin"] == "grammar-1"
    by_rules = grammar.full(described)
    count = 0
    for text, data, ruled, rule in zip(described["description"], facts, by_grammar, by_rules, strict=True):
        right = rule if ruled else Report(**right_answer({"facts": json.loads(data), "nonce": "-"})).text()
        count += text != right
    return count


def summary(folder: Path, server: FaultServer, lost: list[set[str]], spans: list[tuple]) -> dict[str, object]:
    described, fallbacks = (pl.read_parquet(folder / f"{name}.parquet") for name in ("described", "fallbacks"))
    asked = pl.read_parquet(folder / "records.parquet")
    with AnswerCache(folder / "answers.sqlite") as cache:
        used = cache.used()
    twice = {key for key, n in server.delivered.items() if n > 1}
    seconds = np.bincount((np.array(server.served) - server.served[0]).astype(int))
    running = sum(last - first for first, last in spans)
    reasons = fallbacks["reason"].str.extract(r"^([a-z ]+: [a-z]+)").value_counts(sort=True)
    return {
        "records": asked.height,
        "exactly once": described.height == asked.height and described["image_id"].equals(asked["image_id"]),
        "wrong": wrong(described),
        "requests served": len(server.served),
        "usable answers delivered": server.delivered.total(),
        "usable answers in the cache": used["answers"].sum() - used["unusable"].sum(),
        "paid twice": sum(n - 1 for n in server.delivered.values()),
        "paid twice and not lost at a kill": len(twice - set().union(*lost)),
        "lost at the kills": " + ".join(str(len(keys)) for keys in lost),
        "in flight at most": 2 * CONCURRENCY,
        "fallbacks to the grammar": fallbacks.height,
        **{f"fallback, {reason}": n for reason, n in reasons.iter_rows()},
        **{f"fault, {fault}": n for fault, n in sorted(server.faults.items())},
        "over the limit (429)": server.over_limit,
        "server's limit, requests/s": server.limit,
        "median second, share of limit": round(float(np.median(seconds)) / server.limit, 3),
        "running, share of limit": round(len(server.served) / running / server.limit, 3),
        "over all, share of limit": round(len(server.served) / (spans[-1][1] - spans[0][0]) / server.limit, 3),
        "seconds": round(spans[-1][1] - spans[0][0]),
        "cores": os.cpu_count(),
        "load average over 15 minutes": round(os.getloadavg()[2], 1),  # other work on the machine slows the client
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--limit", type=float, default=60.0, help="requests a second that the server takes")
    parser.add_argument("--stall", type=float, default=30.0, help="seconds; the client's time-out is 5 s more")
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    moments = random.Random(arguments.seed).sample(range(1, 2 * arguments.records), arguments.kills)
    server = FaultServer(limit=arguments.limit, stall=arguments.stall, hang=4 * arguments.stall, seed=arguments.seed)
    with tempfile.TemporaryDirectory() as name, server.running():
        folder = Path(name)
        cohort(arguments.records).write_parquet(folder / "records.parquet")
        lost, spans = run(folder, server, arguments.stall + 5, sorted(moments))
        results = summary(folder, server, lost, spans)
    table = pl.DataFrame({"quantity": list(results), "value": [str(v) for v in results.values()]})
    table.write_csv(Path(__file__).with_suffix(".csv"))
    for quantity, value in results.items():
        tqdm.write(f"{quantity}: {value}")


if __name__ == "__main__":
    main()
