"""Counts beside the paper, composition and words; and the two figures drawn from them."""

import polars as pl
import pytest
from matplotlib.figure import Figure

from chexgen_lib import records
from chexgen_lib.descriptions import counts, grammar
from chexgen_lib.descriptions.check import PASS, check
from chexgen_lib.figures import ed_fig1, fig1b, lengths, style
from chexgen_lib.sources.table import REJECTS


@pytest.fixture(scope="module")
def cohort() -> pl.DataFrame:
    rows = [
        {
            "image_id": f"{s}:{i}",
            "patient_id": f"{s}:{i // 2}",
            "study_id": f"{s}:{i}",
            "source": s,
            "Edema": i % 2,
            "age": a,
            "sex": "F" if i % 3 else None,
            "view": "PA",
        }
        for s in ("nih", "padchest")
        for i, a in enumerate([0.2, 17.5, 18, 29, 55, None, 80, 99])
    ]
    df = records.validate(pl.DataFrame(rows))
    return check(grammar.describe(df))


def test_by_source_stands_beside_the_paper(cohort):
    rejects = pl.DataFrame(
        [("nih", "9", "nih:9", "broken row: x"), ("padchest", "3", None, "no labels")], schema=REJECTS, orient="row"
    )
    nih, padchest = counts.by_source(cohort, rejects).to_dicts()
    assert (nih["records"], nih["rejects"], nih["rows"], nih["patients"], nih["paper"]) == (
        8,
        1,
        9,
        4,
        112_120,
    )
    assert nih["difference"] == 9 - 112_120
    assert padchest["paper"] == 166_737
    assert counts.by_reason(rejects)["n"].to_list() == [1, 1]


def test_table_1_is_complete_with_gaps_where_a_dataset_is_absent(cohort):
    rejects = pl.DataFrame([("nih", "9", "nih:9", "broken row")], schema=REJECTS, orient="row")
    passing = cohort.with_columns(qc=pl.lit(PASS))
    table = counts.table1(counts.by_source(passing, rejects))
    rows = {row["dataset"]: row for row in table.to_dicts()}
    assert len(rows) == 9 and rows["NIH ChestX-ray14"]["this run"] == 9 and rows["BRAX"]["this run"] is None
    assert rows["OpenChest"] == {"dataset": "OpenChest", "paper": 959_206, "this run": 17, "qc_pass": 16}
    assert table.filter(pl.col("dataset") != "OpenChest")["paper"].sum() == 959_206


def test_lengths_count_every_description(cohort):
    table = counts.lengths(cohort)
    assert table.group_by("source").agg(pl.col("n").sum())["n"].to_list() == [8, 8]
    one = cohort.head(1).with_columns(description=pl.lit("No edema. No edema, age 50."))
    assert counts.lengths(one).row(0) == ("nih", 6, 1, 4)
    ax = lengths.figure(table).axes[0]
    assert all(stairs.get_data().values.sum() == pytest.approx(100) for stairs in ax.patches)


def test_reasons_are_counted_by_kind():
    rows = [("nih", str(i), None, f"unknown label 'x{i}'") for i in range(3)]
    assert counts.by_reason(pl.DataFrame(rows, schema=REJECTS, orient="row")).rows() == [("nih", "unknown label", 3)]


def test_composition_adds_up(cohort):
    table = counts.composition(cohort)
    for attribute in ("dataset", "view", "age", "sex"):
        part = table.filter(pl.col("attribute") == attribute)
        assert part["n"].sum() == cohort.height
        assert part.group_by("source").agg(pl.col("share").sum())["share"].to_list() == pytest.approx([1, 1])
    ages = dict(
        table.filter((pl.col("attribute") == "age") & (pl.col("source") == "nih")).select("value", "n").iter_rows()
    )
    assert ages == {"0-17": 2, "18-29": 2, "50-59": 1, "80+": 2, "not stated": 1}
    edema = table.filter(pl.col("value") == "Edema")
    assert edema["n"].to_list() == [4, 4]


def test_words_are_those_of_present_findings(cohort):
    table = counts.words(cohort)
    assert set(table["word"]) <= {"pulmonary", "edema", "lungs"}
    assert table.filter(pl.col("word") == "edema")["n"].to_list() == [4, 4]


def test_figures(cohort, tmp_path):
    composition, words = counts.composition(cohort), counts.words(cohort)
    for name, figure, table in (
        ("fig1b", fig1b.figure(composition), composition),
        ("ed_fig1", ed_fig1.figure(words, seed=1), words),
    ):
        assert isinstance(figure, Figure)
        path = style.save(figure, table, tmp_path / f"{name}.png")
        assert path.stat().st_size > 5_000
    again = style.save(ed_fig1.figure(words, seed=1), words, tmp_path / "again.png")
    assert again.read_bytes() == (tmp_path / "ed_fig1.png").read_bytes()


def test_bars_have_the_counts(cohort):
    figure = fig1b.figure(counts.composition(cohort))
    heights = [bar.get_height() for bar in figure.axes[1].patches]
    assert sum(heights) == cohort.height
