"""Prompts that request a severity: they grade how opaque the lungs are.

The paper conditions on severity annotations and does not say in which words (Methods, Training data augmentation
experiments). Here the words are those of the descriptions (`descriptions.grammar`): the impression of a record of which
each opacity is graded by its own score, "Severe pulmonary edema and mild atelectasis."; so it is as short as the
radiologists' impressions that stage II is trained on.
"""

from collections.abc import Iterable

import numpy as np
import polars as pl

from chexgen_lib.descriptions import grammar
from chexgen_lib.descriptions.report_parser import read
from chexgen_lib.learners.regressor import OPAQUE, cut_points, grades, opacity_scores, scored_purpose
from chexgen_lib.pools.requests import choose_training
from chexgen_lib.records import SCHEMA, SEVERITIES

CLEAR = "The lungs are clear."


def requests(cohort: pl.DataFrame, n: int, seed: int = 0) -> pl.DataFrame:
    """Up to `n` training records that have a score (`scored_purpose`): image_id, prompt, score 0..1 and its grade.

    A random sample, so scores are as frequent as among all. Empty where no training record has a score above 0.
    """
    cuts = cut_points(cohort)
    scored = cohort.with_columns(score=pl.Series(opacity_scores(cohort))).filter(pl.col("score").is_not_nan())
    if cuts is None:
        return scored.head(0).select("image_id", "prompt", "score", grade=pl.lit(None, pl.String))
    chosen = choose_training(scored, n, seed, scored_purpose(cohort))
    grade = pl.Series("grade", grades(chosen["score"].to_numpy(), cuts))
    return chosen.select("image_id", prompts(chosen, cuts), "score", grade)


def prompts(records: pl.DataFrame, cuts: np.ndarray) -> pl.Series:
    """A prompt for each record: its findings, of which those that fill lung are graded by their own scores.

    Sides and sites are the record's, the source's other labels are left out: they may state a grade of their own.
    """
    shares = [{s["finding"]: s["score"] for s in row if s["score"] > 0} for row in records["severity"].to_list()]
    shares = [{finding: score for finding, score in row.items() if finding in OPAQUE} for row in shares]
    pairs = zip(records["details"].to_list(), shares, strict=True)
    details = [_graded(row or [], scores, cuts) for row, scores in pairs]
    texts = grammar.full(
        records.with_columns(
            *(pl.Series(finding, [float(finding in scores) for scores in shares]) for finding in OPAQUE),
            details=pl.Series(details, dtype=SCHEMA["details"]),
            labels=pl.lit([], SCHEMA["labels"]),
        )
    )
    impression = texts.str.split("Impression: ").list.last().str.replace("Not stated.", "", literal=True)
    clear = pl.Series(["" if scores else CLEAR for scores in shares])
    return (impression + " " + clear).str.strip_chars().alias("prompt")


def _graded(details: list[dict], shares: dict[str, float], cuts: np.ndarray) -> list[dict]:
    """Details of a record, with one for each place of an opacity, graded by its score."""
    others = [d for d in details if d["finding"] not in OPAQUE]
    graded = []
    for finding, score in shares.items():
        places = [d for d in details if d["finding"] == finding] or [{"finding": finding, "side": None, "site": None}]
        graded += [d | {"severity": grades([score], cuts)[0]} for d in places]
    return others + graded


def by_grade(requests: pl.DataFrame) -> pl.DataFrame:
    """For each grade of `requests`, starting with clear lungs: grade, records and an example of a prompt."""
    grades_ = requests.sort("score").group_by("grade", maintain_order=True)
    return grades_.agg(pl.len().alias("records"), pl.col("prompt").first().alias("example"))


def stated(prompts: Iterable[str]) -> pl.DataFrame:
    """In how many texts the report parser reads an opacity of each grade, and of none: grade, texts."""
    counts = dict.fromkeys((*SEVERITIES, "not graded"), 0)
    for prompt in prompts:
        graded = [mention.place[2] for mention in read(prompt).affirmed if mention.finding in OPAQUE]
        for grade in {grade or "not graded" for grade in graded}:
            counts[grade] += 1
    return pl.DataFrame({"grade": list(counts), "texts": list(counts.values())})
