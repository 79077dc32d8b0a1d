"""How well does the check work? Measured on planted faults and on radiologists' sentences.

`detection` plants one fault in each of a sample of passing descriptions and counts how many of them `check` reports, in
the grammar's wording and in that of `paraphrase`, whose sentences were written by hand without regard to grammar or
check. `against_reports` compares what the report parser reads in real reports (Open-i) with the findings that human
indexers coded.
"""

from collections.abc import Callable

import polars as pl
from scipy.stats import binomtest

from chexgen_lib.descriptions import grammar
from chexgen_lib.descriptions.check import PASS, check
from chexgen_lib.descriptions.paraphrase import denial, hash_of, paraphrase
from chexgen_lib.descriptions.report_parser import read
from chexgen_lib.records import FINDINGS

Write = Callable[[pl.DataFrame], pl.Series]  # Records -> one description each
_SHARE = {"n": pl.Int64, "found": pl.Float64, "low": pl.Float64, "high": pl.Float64}


def detection(records: pl.DataFrame, n: int = 150, seed: int = 0, write: Write = grammar.full) -> pl.DataFrame:
    """The share of planted faults that `check` reports.

    Excluded, because the altered text would still be true: records with nothing to describe, texts that the fault does
    not change, and swapped sides where left and right have the same findings.

    Args:
        records: of any sources.
        n: records for each source and fault, at most; sampled from those whose description passes.
        seed: of the sample.
        write: Records -> one description each.

    Returns:
        Columns source, fault, n, found (share), low, high (95 % interval, Wilson). The fault "clean" is the share of
            unaltered descriptions that is flagged.
    """
    rows = []
    for part in records.with_columns(write(records).alias("description")).partition_by("source", maintain_order=True):
        checked = check(part).filter(pl.col("qc") != "fail: nothing to describe")
        source = part["source"][0]
        rows.append((source, "clean", *_share(checked["qc"] != PASS)))
        for fault, (applies, plant) in FAULTS.items():
            chosen = checked.filter(pl.col("qc") == PASS, applies).sample(fraction=1, shuffle=True, seed=seed).head(n)
            texts = plant(chosen, write)
            planted = chosen.with_columns(texts.alias("description")).filter(texts != chosen["description"])
            rows.append((source, fault, *_share(check(planted)["qc"] != PASS)))
    return pl.DataFrame(rows, {"source": pl.String, "fault": pl.String} | _SHARE, orient="row")


def detection_by_wording(records: pl.DataFrame, n: int, seed: int) -> pl.DataFrame:
    """`detection` in the grammar's and in the paraphrases' wording, named in the column wording.

    Up to `n` records per fault and source are taken from a random sample of 20 n of each source.
    """
    shuffled = records.sample(fraction=1, shuffle=True, seed=seed)
    sample = shuffled.group_by("source", maintain_order=True).head(20 * n)
    wordings = {"grammar": grammar.full, "paraphrase": paraphrase}
    return pl.concat(
        detection(sample, n, seed, write).with_columns(pl.lit(name).alias("wording"))
        for name, write in wordings.items()
    )


def beside_each_other(detection: pl.DataFrame) -> pl.DataFrame:
    """For display: one row per wording and fault, one column per source, with "share [95 %] n" in each cell."""
    numbers = [pl.col(c).round(2) for c in ("found", "low", "high")]
    shown = pl.format("{} [{}, {}] {}", *numbers, "n").alias("found [95 %] n")
    return detection.with_columns(shown).pivot(
        "source", index=["wording", "fault"], values=shown.meta.output_name(), sort_columns=True
    )


def readable(agreement: pl.DataFrame) -> pl.DataFrame:
    """The table of `against_reports` for display: each measure with its interval, after its number of cases."""
    measures = {"present": "sensitivity", "absent": "specificity", "affirmed": "precision"}
    shown: list[pl.Expr] = []
    for count, measure in measures.items():
        numbers = [pl.col(c).round(2) for c in (measure, f"{measure}_low", f"{measure}_high")]
        shown += [pl.col(count), pl.format("{} [{}, {}]", *numbers).alias(measure)]
    return agreement.select("finding", *shown, "hedged")


def pooled(detection: pl.DataFrame) -> dict[str, float]:
    """All sources, faults and wordings together: faults planted and share detected, clean texts and share flagged."""
    together = {}
    for names, rows in (
        (("planted", "found"), detection.filter(pl.col("fault") != "clean")),
        (("clean", "flagged"), detection.filter(fault="clean")),
    ):
        n = int(rows["n"].sum())
        together |= dict(zip(names, (n, float((rows["n"] * rows["found"]).sum()) / max(n, 1)), strict=True))
    return together


def against_reports(records: pl.DataFrame) -> pl.DataFrame:
    """The findings that the report parser reads in radiologists' sentences, compared with those of the Records.

    A finding that the text only doubts ("may represent", "cannot exclude") counts neither as present nor as absent: it
    is counted as hedged and excluded from the other measures, as are unknown findings. "No Finding" is read where a
    text denies acute disease and affirms no other finding.

    Args:
        records: with `report` or `impression`; the first record of each study is taken.

    Returns:
        One row per finding: finding; present, sensitivity, sensitivity_low, sensitivity_high (95 % interval); absent
            and specificity, affirmed and precision likewise; hedged.
    """
    studies = records.unique("study_id", keep="first", maintain_order=True)
    text = pl.concat_str("report", "impression", separator="\n\n", ignore_nulls=True)
    studies = studies.select(*FINDINGS, text=text).filter(pl.col("text") != "")
    readings = [_findings_read(text) for text in studies["text"]]
    return pl.DataFrame(
        [_agreement(f, studies[f], pl.Series([r[f] for r in readings], dtype=pl.Boolean)) for f in FINDINGS],
        infer_schema_length=None,
    )


def _findings_read(text: str) -> dict[str, bool | None]:
    """Finding -> affirmed; None where it is only doubted."""
    reading = read(text)
    affirmed, hedged, denied = ({m.finding for m in ms} for ms in (reading.affirmed, reading.hedged, reading.denied))
    states = {f: True if f in affirmed else None if f in hedged else False for f in FINDINGS}
    return states | {"No Finding": "No Finding" in denied and not affirmed & set(FINDINGS)}


def _agreement(finding: str, truth: pl.Series, reading: pl.Series) -> dict:
    known = truth.is_not_null()
    certain = known & reading.is_not_null()
    row: dict = {"finding": finding}
    measures = {
        ("present", "sensitivity"): reading.filter(certain & (truth == 1)),
        ("absent", "specificity"): ~reading.filter(certain & (truth == 0)),
        ("affirmed", "precision"): truth.filter(certain & reading) == 1,
    }
    for (count, name), agrees in measures.items():
        row[count], row[name], row[f"{name}_low"], row[f"{name}_high"] = _share(agrees)
    return row | {"hedged": (known & reading.is_null()).sum()}


def _share(hits: pl.Series) -> tuple[int, float | None, float | None, float | None]:
    """n, the share of True, and its 95 % interval (Wilson); null where n is 0."""
    if hits.is_empty():
        return 0, None, None, None
    interval = binomtest(int(hits.sum()), hits.len()).proportion_ci(0.95, method="wilson")
    return hits.len(), hits.mean(), interval.low, interval.high


# The faults


def _dropped(df: pl.DataFrame) -> pl.DataFrame:
    """One present finding made unknown."""
    gone = _present(df)
    return df.with_columns(pl.when(gone != f).then(pl.col(f)).alias(f) for f in FINDINGS[1:])


def _added(df: pl.DataFrame) -> pl.DataFrame:
    """One finding made present that is not."""
    new = _picked(df, pl.concat_list(pl.when(pl.col(f).fill_null(0) == 0).then(pl.lit(f)) for f in FINDINGS[1:]))
    return df.with_columns(pl.when(new == f).then(1.0).otherwise(pl.col(f)).alias(f) for f in FINDINGS[1:])


def _present(df: pl.DataFrame) -> pl.Series:
    """One present finding of each row."""
    return _picked(df, pl.concat_list(pl.when(pl.col(f) == 1).then(pl.lit(f)) for f in FINDINGS[1:]))


def _denials(df: pl.DataFrame) -> pl.Series:
    """A sentence that denies the finding of `_present`."""
    pairs = zip(_present(df), df["image_id"], strict=True)
    return pl.Series([denial(finding, hash_of(image)) for finding, image in pairs], dtype=pl.String)


def _picked(df: pl.DataFrame, findings: pl.Expr) -> pl.Series:
    """One of each row's findings, chosen by the image id."""
    listed = df.select("image_id", findings=findings.list.drop_nulls())
    return pl.Series([row[hash_of(image) % len(row)] for image, row in listed.iter_rows()], dtype=pl.String)


def _negated(df: pl.DataFrame, write: Write) -> pl.Series:
    """A present finding is denied wherever it was affirmed."""
    denials = _denials(df)
    texts = write(_dropped(df)).str.replace_all("Not stated.", "", literal=True)
    return pl.select(
        texts.str.replace("Findings: ", pl.format("Findings: {} ", denials)).str.replace(
            "Impression: ", pl.format("Impression: {} ", denials)
        )
    ).to_series()


def _contradicted(df: pl.DataFrame, write: Write) -> pl.Series:
    """A present finding is denied in the Findings and still affirmed elsewhere."""
    denied = pl.format("Findings: {} ", _denials(df))
    return df.select(pl.col("description").str.replace("Findings: ", denied)).to_series()


def _swapped(df: pl.DataFrame, write: Write) -> pl.Series:
    """Left and right are swapped in Findings and Impression."""
    text = pl.col("description")
    for old, new in ((r"\b([Ll])eft\b", "${1}\0"), (r"\b([Rr])ight\b", "${1}eft"), ("[Ll]\0", "right")):
        text = text.str.replace_all(old, new)
    text = text.str.replace_all(r"\b[Rr]eft\b", "left")
    return df.select(text).to_series()


def _doubted(df: pl.DataFrame, write: Write) -> pl.Series:
    doubts = pl.Series([DOUBTS[hash_of(image) % len(DOUBTS)] for image in df["image_id"]], dtype=pl.String)
    doubtful = pl.format("Impression: {} ", doubts)
    return df.select(pl.col("description").str.replace("Impression: ", doubtful)).to_series()


def _changed(field: str, value: pl.Expr) -> pl.Expr:
    """Every detail's `field` set to another value."""
    return pl.col("details").list.eval(pl.element().struct.with_fields(value.alias(field)))


def _rewritten(**columns: pl.Expr) -> Callable[[pl.DataFrame, Write], pl.Series]:
    """The descriptions of records with some columns altered."""
    return lambda df, write: write(df.with_columns(**columns))


def _has_one_side() -> pl.Expr:
    """Some finding or label has a side, and swapping left and right changes its places."""
    swapped = pl.element().struct.field("side").replace({"left": "right", "right": "left"})
    swapped = pl.col("details").list.eval(pl.element().struct.with_fields(swapped.alias("side")))
    return swapped.list.sort() != pl.col("details").list.sort()


DOUBTS = ("Possible", "Probable", "Findings may represent", "Suspected", "Cannot exclude", "Findings suggest")
_ILL = pl.any_horizontal(pl.col(f) == 1 for f in FINDINGS[1:])
_PLACED = pl.col("details").list.len() > 0
_SITE = pl.element().struct.field("site").fill_null("").replace_strict({"upper lobe": "base"}, default="upper lobe")
_SEVERITY = pl.element().struct.field("severity").fill_null("").replace_strict({"severe": "mild"}, default="severe")
_OTHER_SEX = pl.when(pl.col("sex") == "M").then(pl.lit("F")).otherwise(pl.lit("M"))
_OTHER_VIEW = pl.col("view").fill_null("").replace_strict({"PA": "AP", "AP": "LATERAL"}, default="PA")

# Fault -> (records to which it applies, how it is planted).
FAULTS: dict[str, tuple[pl.Expr, Callable[[pl.DataFrame, Write], pl.Series]]] = {
    "finding dropped": (_ILL, lambda df, write: write(_dropped(df))),
    "finding added": (pl.lit(True), lambda df, write: write(_added(df))),
    "finding negated": (_ILL, _negated),
    "finding contradicted": (_ILL, _contradicted),
    "side swapped": (_has_one_side(), _swapped),
    "site changed": (_PLACED, _rewritten(details=_changed("site", _SITE))),
    "severity changed": (_PLACED, _rewritten(details=_changed("severity", _SEVERITY))),
    "age changed": (pl.col("age").is_not_null(), _rewritten(age=(pl.col("age") + 7) % 90)),
    "sex changed": (pl.col("sex").is_not_null(), _rewritten(sex=_OTHER_SEX)),
    "view changed": (pl.lit(True), _rewritten(view=_OTHER_VIEW)),
    "speculation": (_ILL, _doubted),
}
