"""Free-text reports: their sections, and the records that stage II trains and tests on.

Written for MIMIC-CXR's reports (Johnson et al. 2019: "FINAL REPORT", headers in capitals, de-identified words as
underscores), and liberal about what other hospitals do: synonyms of headers, headers in any case at the start of a
line, addenda, several headers in one, or none at all.
"""

from collections.abc import Callable, Sequence

import polars as pl

from chexgen_lib.records import SPLITS, RecordError

SECTIONS = ("indication", "comparison", "technique", "findings", "impression", "addendum")
# Header -> the section that it opens; "" opens text that belongs to no section.
HEADERS = {
    "indication": "indication, indications, clinical indication, reason for exam, reason for examination, "
    "reason for study, reason for this examination, history, clinical history, clinical information, patient history, "
    "medical condition",
    "comparison": "comparison, comparisons, comparison study, comparison studies, comparison film, prior study, "
    "prior studies",
    "technique": "technique, procedure, projection, views, number of views",
    "findings": "findings, finding, report, chest findings",
    "impression": "impression, impressions, conclusion, conclusions, summary, opinion, findings and impression, "
    "findings/impression, impression and findings, impression/findings, preliminary impression, final impression",
    "addendum": "addendum, addenda, final addendum",
    "": "final report, wet read, wet read version, preliminary report, examination, exam, study, type of examination, "
    "recommendation, recommendations, notification, notifications, attestation, signed by, dictated by, "
    "electronically signed by",
}
TEST_FOLDER = "p19"

_SECTION_OF = {header: section for section, headers in HEADERS.items() for header in headers.split(", ")}
_LONGEST_FIRST = sorted(_SECTION_OF, key=len, reverse=True)
_ANY, _CAPITALS = "|".join(_LONGEST_FIRST), "|".join(h.upper() for h in _LONGEST_FIRST)
_TITLES = "|".join(header.capitalize() for header in _LONGEST_FIRST)
_WORDS = r"[A-Z ,&/0-9()-]*"
_HEADER = "|".join(
    (
        rf"(?m)^[ \t]*(?i:{_ANY})[ \t]*:",  # at the start of a line, in any case
        rf"\b(?:{_CAPITALS}|{_TITLES})[ \t]*:",  # within a line
        rf"^[ \t]*(?:{_CAPITALS})[ \t]*$",  # alone on its line, without a colon
        r"^[ \t]*(?:FINAL REPORT|WET READ|FINAL ADDENDUM|ADDENDUM)\b",
        # The examination's name in place of FINDINGS: "PORTABLE CHEST, 9:12:", "PA AND LATERAL VIEWS:"
        rf"^[ \t]*{_WORDS}\b(?:CHEST|VIEWS?|RADIOGRAPHS?|LATERAL|PORTABLE|AP|PA)\b{_WORDS}:",
    )
)
_MARK = "\x1e"  # no report holds this control character


def sections(reports: pl.Series) -> pl.DataFrame:
    """The sections of each report, as columns indication, comparison, technique, findings, impression, addendum.

    A section that a report lacks, or leaves empty, is null. A combined header ("FINDINGS AND IMPRESSION") opens the
    impression. Text before the first header, and under "FINAL REPORT" or "WET READ", belongs to no section; but where a
    report has neither findings nor impression, that text is its findings. A section that occurs several times is joined
    in order; the lines of a section are joined by single spaces, de-identified words (`___`) kept.

    Args:
        reports: String; the result has a row each, in order.
    """
    reports = reports.rename("report").cast(pl.String)
    marked = reports.to_frame().select(
        pl.col("report").str.replace_all(_MARK, " ").str.replace_all(_HEADER, _MARK + "${0}" + _MARK).str.split(_MARK)
    )
    pieces = marked.with_row_index("row").explode("report").with_columns(at=pl.int_range(pl.len()).over("row"))
    header = pl.col("report").str.strip_chars(" \t\r\n:").str.to_lowercase().str.replace_all(r"\s+", " ")
    pieces = pieces.with_columns(
        section=pl.when(pl.col("at") % 2 == 1).then(header.replace_strict(_SECTION_OF, default="findings"))
    ).with_columns(pl.col("section").forward_fill().over("row").fill_null(""))
    text = pl.col("report").str.replace_all(r"\s+", " ").str.strip_chars(" ")
    parts = pieces.filter(pl.col("at") % 2 == 0).with_columns(text=text).filter(pl.col("text") != "")
    table = pl.DataFrame({"row": pl.int_range(reports.len(), dtype=pl.UInt32, eager=True)})
    for section in (*SECTIONS, ""):
        texts = parts.filter(pl.col("section") == section).group_by("row").agg(pl.col("text").str.join(" "))
        table = table.join(texts.rename({"text": section}), on="row", how="left", maintain_order="left")
    untitled = pl.when(pl.col("findings").is_null() & pl.col("impression").is_null()).then(pl.col(""))
    return table.with_columns(findings=pl.coalesce("findings", untitled)).select(SECTIONS)


def impressions(
    records: pl.DataFrame, token_counts: Callable[[list[str]], Sequence[int]], max_tokens: int = 120
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The records of stage II, and how many are left after each step of their selection (paper, Methods).

    Kept are PA views with an impression of fewer than `max_tokens` tokens, one image per study and one study per
    impression (the first in the table, within its split). The splits are those of all stages, "test" the folder
    p19, "train" and "val" p10 to p18 (`records.assign_splits`). The paper keeps 45,000 and 3,500 pairs
    (`paper.training`) and does not say how it selected them; nothing is sampled here.

    Args:
        records: of source `mimic_cxr`; others are left out by the first step.
        token_counts: texts -> number of tokens of each, by the tokenizer in use.
        max_tokens: an impression has fewer.

    Returns:
        The records, and a funnel: step, n, train, val, test.

    Raises:
        RecordError: if there is no record of mimic_cxr, a patient id names no folder, or a split is not its folder's.
    """
    records = records.filter(pl.col("source") == "mimic_cxr")
    if records.is_empty():
        raise RecordError(
            "no record of source 'mimic_cxr': load its tables (registry.load) before stage II's selection"
        )
    folder = pl.col("patient_id").str.extract(r"^mimic_cxr:p?(1\d)\d{6}$")
    if (strange := records.filter(folder.is_null())).height:
        raise RecordError(
            f"patient_id {strange['patient_id'][0]!r} is in none of the folders p10 to p19 "
            f"({strange.height} such rows): MIMIC-CXR's subject ids have 8 digits, from 10000000 to 19999999"
        )
    test = ("p" + folder) == TEST_FOLDER
    if (strange := records.filter(pl.col("split").is_null() | (test != (pl.col("split") == "test")))).height:
        raise RecordError(
            f"patient_id {strange['patient_id'][0]!r} has the split {strange['split'][0]!r} ({strange.height} such "
            f"rows): {TEST_FOLDER} alone is tested on; run the curation stage (notebook 01) again, which assigns splits"
        )
    steps = [("images of mimic_cxr", records)]

    def keep(step: str, condition: pl.Expr) -> None:
        steps.append((step, steps[-1][1].filter(condition)))

    keep("PA view", pl.col("view") == "PA")
    keep("with an impression", pl.col("impression").fill_null("").str.strip_chars() != "")
    texts = steps[-1][1]["impression"].unique(maintain_order=True)
    counts = pl.Series(token_counts(texts.to_list()), dtype=pl.Int64)
    keep(
        f"impression under {max_tokens} tokens", pl.col("impression").is_in(texts.filter(counts < max_tokens).implode())
    )
    keep("one image per study", pl.col("study_id").is_first_distinct())
    same = pl.col("impression").str.to_lowercase().str.replace_all(r"\s+", " ").str.strip_chars(" .")
    keep("one study per impression", pl.struct("split", same).is_first_distinct())
    funnel = [(step, df.height, *((df["split"] == s).sum() for s in SPLITS)) for step, df in steps]
    schema = {"step": pl.String, "n": pl.Int64} | dict.fromkeys(SPLITS, pl.Int64)
    return steps[-1][1], pl.DataFrame(funnel, schema, orient="row")
