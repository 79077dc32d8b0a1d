"""Counts of a curated cohort: beside ED Table 1, by composition (Fig. 1b), rejects, words (ED Fig. 1)."""

import polars as pl

from chexgen_lib.descriptions.check import PASS
from chexgen_lib.paper import published
from chexgen_lib.records import FINDINGS
from chexgen_lib.sources import registry

AGE_BANDS = ("0-17", "18-29", "30-39", "40-49", "50-59", "60-69", "70-79", "80+")
UNKNOWN = "not stated"
MOST_WORDS = 150  # of a source, in its cloud
_COMMON = frozenset(
    "a an and are as at both for in is no not of on or other seen shows stated than that the there to typically which "
    "with without acute also appear appears area demonstrates examination findings finding image impression increased "
    "noted radiograph reveals".split()
)


def by_source(records: pl.DataFrame, rejects: pl.DataFrame) -> pl.DataFrame:
    """One row per source: source, records, rejects, rows (their sum), studies, patients, qc_pass, paper, difference.

    `paper` is the number of cases in ED Table 1, null where the paper does not have the source; `difference` is rows
    minus that number.
    """
    n = records.group_by("source", maintain_order=True).agg(
        records=pl.len(),
        studies=pl.col("study_id").n_unique(),
        patients=pl.col("patient_id").n_unique(),
        qc_pass=(pl.col("qc") == PASS).sum(),
    )
    lost = rejects.group_by("source").agg(rejects=pl.len())
    table = published.load("table1").filter(pl.col("arm") == "stage I").select("dataset", paper="value")
    names = pl.col("source").replace_strict(_paper_names(), default=None, return_dtype=pl.String)
    counted = (
        n.join(lost, on="source", how="full", coalesce=True, maintain_order="left_right")
        .with_columns(pl.col("records", "rejects", "studies", "patients", "qc_pass").fill_null(0).cast(pl.Int64))
        .with_columns(rows=pl.col("records") + pl.col("rejects"), dataset=names)
        .join(table, on="dataset", how="left", maintain_order="left")
        .with_columns(pl.col("paper").cast(pl.Int64))
    )
    columns = ("source", "records", "rejects", "rows", "studies", "patients", "qc_pass", "paper")
    return counted.select(*columns, difference=pl.col("rows") - pl.col("paper"))


def table1(by_source: pl.DataFrame) -> pl.DataFrame:
    """ED Table 1, stage I, in full: dataset, paper, this run (source rows, null where a dataset is absent), qc_pass.

    The last row is the total: the paper's corpus beside the rows of this run.
    """
    paper = published.load("table1").filter(pl.col("arm") == "stage I").select("dataset", paper=pl.col("value"))
    sources = {name: source for source, name in _paper_names().items()}
    ours = by_source.select("source", "qc_pass", **{"this run": pl.col("rows")})
    table = paper.with_columns(source=pl.col("dataset").replace_strict(sources, default=None, return_dtype=pl.String))
    table = table.join(ours, on="source", how="left", maintain_order="left").drop("source")
    total = table.select(pl.col("this run", "qc_pass").sum())
    whole = pl.col("dataset") == "OpenChest"
    return table.with_columns(
        pl.col("paper").cast(pl.Int64),
        *(pl.when(whole).then(total[c][0]).otherwise(c).alias(c) for c in total.columns),
    ).select("dataset", "paper", "this run", "qc_pass")


def _paper_names() -> dict[str, str]:
    """Source -> its name in ED Table 1, stage I; the paper does not use Open-i."""
    return {sheet.source: sheet.paper_name for sheet in registry.sheets() if sheet.role == "stage I"}


def lengths(records: pl.DataFrame) -> pl.DataFrame:
    """Lengths of the descriptions and size of their vocabulary: source, words (of a description), n, vocabulary.

    vocabulary: distinct words in all descriptions of the source, the same in each of its rows.
    """
    text = pl.col("description").str.to_lowercase().str.extract_all(r"[a-z][a-z'-]*|\d+")
    words = records.lazy().select("source", text=text)
    vocabulary = words.explode("text").group_by("source").agg(vocabulary=pl.col("text").n_unique())
    counted = words.group_by("source", words=pl.col("text").list.len().cast(pl.Int64)).agg(n=pl.len().cast(pl.Int64))
    return counted.join(vocabulary, on="source").sort("source", "words").collect()


def by_reason(rejects: pl.DataFrame) -> pl.DataFrame:
    """Rejects counted by source and reason (what is quoted in a reason is left out), most frequent first."""
    kind = pl.col("reason").str.replace_all(r": .*|'[^']*'|\d+", "").str.strip_chars()
    return (
        rejects.group_by("source", reason=kind)
        .agg(n=pl.len())
        .sort("n", "source", "reason", descending=[True, False, False])
    )


def composition(records: pl.DataFrame) -> pl.DataFrame:
    """What the cohort consists of, long form: source, attribute, value, n, share (of the source's records).

    attribute is "dataset", "view", "age" (bands of years), "sex" or "finding" (those that are 1; a record counts once
    for each).
    """
    band = pl.when(pl.col("age") >= 80).then(pl.lit(AGE_BANDS[-1]))
    for name in AGE_BANDS[-2::-1]:
        band = band.when(pl.col("age") >= int(name.split("-")[0])).then(pl.lit(name))
    plain = records.select("source", "view", "sex", dataset="source", age=band)
    frames = [
        plain.group_by("source", value=pl.col(attribute).fill_null(UNKNOWN))
        .agg(n=pl.len())
        .with_columns(attribute=pl.lit(attribute))
        for attribute in ("dataset", "view", "age", "sex")
    ]
    present = records.group_by("source").agg((pl.col(f) == 1).sum() for f in FINDINGS)
    frames.append(
        present.unpivot(index="source", variable_name="value", value_name="n").with_columns(attribute=pl.lit("finding"))
    )
    total = records.group_by("source").agg(total=pl.len())
    table = pl.concat(f.select("source", "attribute", "value", pl.col("n").cast(pl.Int64)) for f in frames)
    table = table.join(total, on="source").with_columns(share=(pl.col("n") / pl.col("total")).round(6))
    return table.drop("total").sort("source", "attribute", "value")


def words(records: pl.DataFrame) -> pl.DataFrame:
    """The most frequent words of the descriptions' findings: source, word, n (records that use it)."""
    findings = pl.col("description").str.extract(r"(?s)Findings: (.*?)(?: Impression:|$)")
    counted = records.select("source", text=findings).drop_nulls().group_by("source", "text").agg(n=pl.len())
    text = pl.col("text").str.to_lowercase()
    text = text.str.replace_all(r"\bno [^.]*\.|[^.]*typically[^.]*\.", "")  # what is absent, and definitions
    word = text.str.extract_all(r"[a-z][a-z-]+").list.unique()
    counted = counted.select("source", "n", word=word).explode("word").drop_nulls()
    counted = counted.filter(~pl.col("word").is_in(list(_COMMON))).group_by("source", "word").agg(pl.col("n").sum())
    counted = counted.sort("source", "n", "word", descending=[False, True, False])
    return counted.group_by("source", maintain_order=True).head(MOST_WORDS).with_columns(pl.col("n").cast(pl.Int64))
