"""The scores that Figure 2c reads are complete, and add up."""

import polars as pl
import pytest

from chexgen_lib.quality import reader_study as rs


@pytest.fixture
def scored(tmp_path):
    rows = [
        {"reader": reader, "case": f"c{k}", "arm": arm, "score": "2" if arm == "ours" else str(k % 2)}
        for reader in ("A", "B")
        for k in range(6)
        for arm in ("other", "ours")
    ]
    pl.DataFrame(rows).write_csv(tmp_path / rs.FILE)
    return tmp_path


def test_means_and_the_paired_test(scored):
    scores = rs.read(scored)
    assert scores.height == 24 and scores["score"].dtype == pl.Int64
    summary = rs.summarise(scores, baseline="other", n_resamples=100)
    ours = summary.filter(pl.col("arm") == "ours")
    assert ours["value"].to_list() == [2, 2] and ours["n"].to_list() == [6, 6] and (ours["p_wilcoxon"] < 0.05).all()
    other = summary.filter(pl.col("arm") == "other")
    assert other["value"].to_list() == [0.5, 0.5] and other["p_wilcoxon"].to_list() == [None, None]
    assert (other["low"] < 0.5).all() and (other["high"] > 0.5).all()
    with pytest.raises(ValueError, match="baseline"):
        rs.summarise(scores, baseline="nobody")


@pytest.mark.parametrize("bad", ["3", "", "good", "1.5"])
def test_a_wrong_score_is_named(scored, bad):
    table = pl.read_csv(scored / rs.FILE, infer_schema=False)
    table[3, "score"] = bad
    table.write_csv(scored / rs.FILE)
    with pytest.raises(ValueError, match=r"agreement.csv, row 4 .*'c1', 'ours'.*needs one score of -2, -1, 0, 1 or 2"):
        rs.read(scored)


def test_rows_columns_and_files_that_are_missing(scored):
    whole = pl.read_csv(scored / rs.FILE, infer_schema=False)
    whole[1:].write_csv(scored / rs.FILE)
    with pytest.raises(ValueError, match="23 scores, expected 24"):
        rs.read(scored)
    rest = whole.filter((pl.col("arm") == "ours") == pl.col("case").is_in(["c0", "c1", "c2"]))
    rest.write_csv(scored / rs.FILE)  # as many scores of each arm, and of no case both
    with pytest.raises(ValueError, match="12 scores, expected 24: every reader scores every case"):
        rs.read(scored)
    pl.concat([whole, whole[:1]]).write_csv(scored / rs.FILE)
    with pytest.raises(ValueError, match="row 1"):
        rs.read(scored)
    whole.drop("score").write_csv(scored / rs.FILE)
    with pytest.raises(ValueError, match="score.*readers score"):
        rs.read(scored)
    (scored / rs.FILE).unlink()
    with pytest.raises(FileNotFoundError, match="chexgen readers score"):
        rs.read(scored)
