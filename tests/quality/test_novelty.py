"""Prompts of unseen patients that stand in training are counted, and what is claimed is measured without them."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from chexgen_lib.quality import evaluate as quality
from chexgen_lib.quality import held_out, novelty
from chexgen_lib.quality.arms import GENERATOR, IGNORES
from chexgen_lib.quality.held_out import HeldOut
from chexgen_lib.records import FINDINGS
from tests.quality.test_evaluate import Toy, cohort

TRAINING = ["No acute cardiopulmonary abnormality.", "1. Stable cardiomegaly.", None]


def test_twins_are_found_whatever_their_case_punctuation_and_spacing():
    texts = [
        "no acute  cardiopulmonary abnormality",
        "1) Stable cardiomegaly",
        "Stable cardiomegaly.",  # without its number: other words
        "No acute abnormality.",
        "Éffusion.",
    ]
    found = novelty.seen(texts, [*TRAINING, "éffusion"])
    assert found.tolist() == [True, True, False, False, True]
    assert novelty.counts(found).rows() == [(novelty.SEEN, 3, 0.6), (novelty.NEW, 2, 0.4)]


def arrays(seen):
    """A generator that obeys prompts which stand in training, and ignores all others."""
    real, labels = cohort(40, 0)
    asked = np.where(seen[:, None], labels, cohort(40, 5)[1])
    synthetic = np.stack([cohort(40, 10 + s, asked)[0] for s in range(2)], 1)
    return HeldOut(real, synthetic, labels, cohort(60, 1)[0], [str(i // 2) for i in range(40)], seen)


def measured(seen):
    return quality.evaluate(arrays(seen), Toy(), [Toy()], n_resamples=40, seed=1)


def test_a_generator_that_knows_training_texts_alone_is_found_out():
    found = measured(np.arange(40) < 24)
    for metric in ("Pearson r, within findings", "AUROC of requested findings"):
        everything, new = (found.row(name, GENERATOR) for name in (metric, f"{metric}, {quality.NEW_TEXTS}"))
        assert (everything["n"], new["n"]) == (40, 16)
        assert everything["low"] > new["high"]
    ignores = found.row(f"Pearson r, within findings, {quality.NEW_TEXTS}", IGNORES)
    assert ignores["n"] == 16 and abs(ignores["value"]) < 0.3
    assert found.row(f"memorisation, distance ratio, {quality.NEW_TEXTS}", GENERATOR)["n"] == 16


@pytest.mark.parametrize("new", [0, novelty.FEWEST - 1])
def test_too_few_new_texts_are_not_measured(new):
    names = measured(np.arange(40) >= new).table["metric"]
    assert not names.str.contains(quality.NEW_TEXTS).any()
    assert "Pearson r" in names


def test_what_is_not_one_for_each_prompt_is_refused():
    with pytest.raises(ValueError, match="seen: needs one for each of 40 prompts, got 39"):
        replace(arrays(np.ones(40, bool)), seen=np.ones(39, bool))


def test_the_prompts_of_a_run_are_compared_with_its_training_texts_alone(tmp_path):
    texts = ["Edema.", "Clear.", "Clear lungs.", "EDEMA", "clear", "Fracture.", "Clear lungs."]
    splits = ["train", "train", "val", "test", "test", "test", "test"]
    ids = [f"i{k}" for k in range(7)]
    table = pl.DataFrame({"image_id": ids, "patient_id": ids, "split": splits, "prompt": texts})
    for folder in ("cohort", "synthesis"):
        (tmp_path / folder).mkdir()
    table.with_columns(pl.lit(0.0).alias(f) for f in FINDINGS).write_parquet(tmp_path / "cohort/cohort.parquet")
    rng = np.random.default_rng(0)
    np.save(tmp_path / "cohort/images_8.npy", rng.integers(0, 255, (7, 8, 8), np.uint8))
    np.save(tmp_path / "synthesis/samples.npy", rng.integers(0, 255, (4, 2, 8, 8), np.uint8))
    table[3:].reverse().write_parquet(tmp_path / "synthesis/manifest.parquet")
    data, prompts = held_out.load(tmp_path, 8)
    assert prompts["prompt"].to_list() == ["Clear lungs.", "Fracture.", "clear", "EDEMA"]
    assert data.seen.tolist() == [False, False, True, True]  # that of a validation record does not count
