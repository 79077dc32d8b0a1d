"""The reader study's forms are blind, complete on return, and add up."""

import numpy as np
import polars as pl
import pytest

from chexgen_lib.quality import reader_study as rs

PROMPTS = [f"report {i}" for i in range(6)]


@pytest.fixture
def study(tmp_path):
    x = np.random.default_rng(0).random((2, 6, 16, 16)).astype(np.float32)
    return rs.export(tmp_path / "study", PROMPTS, {"ours": x[0], "other": x[1]}, seed=1)


def fill(study, score_of, reader="reader-1"):
    path = study / f"form-{reader}.csv"
    form, key = pl.read_csv(path), pl.read_csv(study / "key.csv")
    arm = dict(zip(key["image"], key["arm"], strict=True))
    form.with_columns(score=pl.Series([str(score_of(arm[i], i)) for i in form["image"]])).write_csv(path)
    return path


def test_forms_are_blind_and_shuffled(study):
    forms = [(study / f"form-reader-{i}.csv").read_text() for i in (1, 2)]
    assert forms[0] != forms[1] and "ours" not in forms[0]
    assert "+2 perfect correspondence" in forms[0]
    assert len(list((study / "images").glob("*.png"))) == 12
    arms = pl.read_csv(study / "key.csv").sort("image")["arm"].to_list()
    assert arms != sorted(arms) and arms != sorted(arms, reverse=True)


def test_round_trip_and_summary(study):
    for reader in ("reader-1", "reader-2"):
        fill(study, lambda arm, i: "+2" if arm == "ours" else int(i[3]) % 2, reader)
    scores = rs.read(study)
    assert scores.height == 24
    summary = rs.summarise(scores, baseline="other", n_resamples=100)
    ours = summary.filter(pl.col("arm") == "ours")
    assert ours["value"].to_list() == [2, 2] and ours["n"].to_list() == [6, 6] and (ours["p_wilcoxon"] < 0.05).all()
    assert summary.filter(pl.col("arm") == "other")["p_wilcoxon"].to_list() == [None, None]
    with pytest.raises(ValueError, match="baseline"):
        rs.summarise(scores, baseline="nobody")


@pytest.mark.parametrize("bad", ["3", "", "good", "1.5"])
def test_a_wrong_score_names_form_and_image(study, bad):
    fill(study, lambda arm, i: 1, "reader-2")
    fill(study, lambda arm, i: bad if i == "0004.png" else 0)
    with pytest.raises(ValueError, match=r"form-reader-1.csv, 0004.png.*use -2, -1, 0, 1 or 2"):
        rs.read(study)


def test_missing_rows_columns_key_and_overwriting(study):
    path = fill(study, lambda arm, i: 0)
    fill(study, lambda arm, i: 0, "reader-2")
    whole = pl.read_csv(path)
    whole[1:].write_csv(path)
    with pytest.raises(ValueError, match="each once"):
        rs.read(study)
    whole.drop("score").write_csv(path)
    with pytest.raises(ValueError, match="score"):
        rs.read(study)
    with pytest.raises(FileExistsError):
        rs.export(study, PROMPTS, {})
    (study / "key.csv").unlink()
    with pytest.raises(FileNotFoundError, match="unblinded"):
        rs.read(study)


def test_an_arm_with_a_missing_image_is_refused(tmp_path):
    with pytest.raises(ValueError, match="6 prompts"):
        rs.export(tmp_path, PROMPTS, {"ours": np.zeros((5, 8, 8), np.float32)})
