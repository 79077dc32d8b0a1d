"""Prompts that request a severity: they grade how opaque the lungs are.

The paper conditions on severity annotations and does not say in which words (Methods, Training data augmentation
experiments). Here the words are those of the descriptions (`descriptions.grammar`), of a record whose opacities are
graded each by its own score: "Severe pulmonary edema and mild atelectasis." A model of descriptions reads the whole of
it, and the grades in its metadata, too; one of impressions the impression alone, as short as a radiologist's.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import polars as pl

from chexgen_lib.cohort.layout import rows
from chexgen_lib.descriptions import grammar
from chexgen_lib.descriptions.report_parser import read
from chexgen_lib.learners.regressor import OPAQUE, cut_points, grades, opacity_scores, scored_purpose
from chexgen_lib.pools.requests import choose_training, with_prompts
from chexgen_lib.records import SCHEMA, SEVERITIES

CLEAR = "The lungs are clear."


def requests(cohort: pl.DataFrame, n: int, seed: int = 0, prompt: str = "impression") -> pl.DataFrame:
    """Up to `n` training records that have a score (`scored_purpose`), as they are asked for (`graded`).

    A random sample, so scores are as frequent as among all. Empty where no training record has a score above 0.

    Args:
        prompt: a key of `READERS`.

    Returns:
        The records with the prompt, the score 0..1 that the image is labelled with, and its `grade` among all scores:
        that of all opacities together, while the prompt grades each by its own.
    """
    cuts = cut_points(cohort)
    scored = cohort.with_columns(score=pl.Series(opacity_scores(cohort))).filter(pl.col("score").is_not_nan())
    if cuts is None:
        return scored.head(0).with_columns(grade=pl.lit(None, pl.String))
    chosen = choose_training(scored, n, seed, scored_purpose(cohort))
    chosen = chosen.with_columns(grade=pl.Series(grades(chosen["score"].to_numpy(), cuts), dtype=pl.String))
    asked = graded(chosen, cuts_of_findings(cohort))
    return with_prompts(asked.with_columns(prompt=impressions(asked)), prompt)


def cuts_of_findings(cohort: pl.DataFrame) -> dict[str, np.ndarray]:
    """The scores of each opacity where mild ends and where severe begins: terciles of its training scores above 0.

    A mild edema fills more lung than a severe lesion, so the words are each finding's own.
    """
    scores = pl.DataFrame(
        cohort[rows(cohort, scored_purpose(cohort), "train")].get_column("severity").explode().drop_nulls().to_list(),
        schema={"finding": pl.String, "score": pl.Float64},
    ).filter(pl.col("score") > 0, pl.col("finding").is_in(OPAQUE))
    return {name: np.quantile(own["score"], [1 / 3, 2 / 3]) for (name,), own in scores.group_by("finding")}


def graded(records: pl.DataFrame, cuts: Mapping[str, np.ndarray]) -> pl.DataFrame:
    """Records that assert the opacities which have a score, each graded by its own, and no other opacity as present.

    Sides and sites are the record's; the source's other labels are left out: they may state a grade of their own.
    """
    shares = [{s["finding"]: s["score"] for s in row if s["score"] > 0} for row in records["severity"].to_list()]
    shares = [{finding: score for finding, score in row.items() if finding in OPAQUE} for row in shares]
    pairs = zip(records["details"].to_list(), shares, strict=True)
    details = [_graded(row or [], scores, cuts) for row, scores in pairs]
    return records.with_columns(
        *(_state(finding, pl.Series([finding in scores for scores in shares])) for finding in OPAQUE),
        details=pl.Series(details, dtype=SCHEMA["details"]),
        labels=pl.lit([], SCHEMA["labels"]),
    )


def _state(finding: str, scored: pl.Series) -> pl.Expr:
    """1 where a finding has a score; where it is present without one, nothing is said of it."""
    unscored = pl.when(pl.col(finding) == 1).then(None).otherwise(pl.col(finding))
    return pl.when(scored).then(1.0).otherwise(unscored).cast(SCHEMA[finding]).alias(finding)


def impressions(records: pl.DataFrame) -> pl.Series:
    """The impression of each record's description; of one without an opacity it says that the lungs are clear."""
    said = grammar.full(records).str.split("Impression: ").list.last().str.replace("Not stated.", "", literal=True)
    opaque = pl.any_horizontal(pl.col(OPAQUE).fill_null(0) == 1)
    clear = records.select(pl.when(opaque).then(pl.lit("")).otherwise(pl.lit(CLEAR))).to_series()
    return (said + " " + clear).str.strip_chars().alias("prompt")


def _graded(details: list[dict], shares: Mapping[str, float], cuts: Mapping[str, np.ndarray]) -> list[dict]:
    """Details of a record, with one for each place of an opacity, graded by its score."""
    others = [d for d in details if d["finding"] not in OPAQUE]
    graded = []
    for finding, score in shares.items():
        places = [d for d in details if d["finding"] == finding] or [{"finding": finding, "side": None, "site": None}]
        graded += [d | {"severity": grades([score], cuts[finding])[0]} for d in places]
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
