"""From a dataset's folder, in its publisher's layout, through the cohort to a trained step of whom it is for."""

import numpy as np
import polars as pl
import pytest
from PIL import Image

from chexgen_lib.cohort import layout
from chexgen_lib.cohort.build import build
from chexgen_lib.cohort.layout import CohortError
from chexgen_lib.cohort.select import Selection, select
from chexgen_lib.descriptions import grammar
from chexgen_lib.descriptions.check import check
from chexgen_lib.experiments import augmentation, fine_tuning, pretraining
from chexgen_lib.experiments.attention import Cases
from chexgen_lib.experiments.repeats import Repeats
from chexgen_lib.learners.base import LearnerConfig
from chexgen_lib.pools import labelled
from chexgen_lib.records import FINDINGS, FRONTAL, SPLITS, assign_splits, label_set
from chexgen_lib.sources import chest_dr, registry, vindr_cxr
from tests.sources import collections

SIZE = 64
CONFIG = LearnerConfig(steps=2, size="ci", batch_size=8, checks=1)
REPEATS = Repeats(1, n_resamples=20)
EVERYTHING = dict.fromkeys(SPLITS)
NO_CASES = Cases(np.zeros(0, int), np.zeros(0, int), np.zeros((0, 8, 8), bool))


def selection(flag, *sources):
    return Selection(flag, sources, EVERYTHING, views=FRONTAL, optional=True, natural=True, labels_alone=True)


def run_of(root, data, *selections, monkeypatch):
    """A run whose cohort is what stages 01 and 02 make of the datasets below `data`."""
    monkeypatch.setattr(registry, "ALWAYS", ())
    records, _ = zip(*registry.load_all(data).values(), strict=True)
    table = check(grammar.describe(assign_splits(pl.concat(records), {"train": 0.5, "val": 0.3, "test": 0.2})))
    chosen = select(table, selections, lambda texts: [1] * len(texts), 120, with_images=True)
    (root / "cohort").mkdir(parents=True)
    build(root / "cohort", chosen, [SIZE], image_root=str(data))
    assert pl.read_csv(root / "cohort/rejects.csv").is_empty()
    return root


def pool_of(root, flag="stage2", copies=1):
    """A folder with another generator's images of the training records: here they are the real ones."""
    cohort, folder = layout.load(root / "cohort"), root / "text"
    rows = layout.rows(cohort, flag, "train")
    folder.mkdir()
    for row, image in zip(rows, layout.load_images(root / "cohort", SIZE, rows), strict=True):
        Image.fromarray(image).save(folder / f"{row}.png")
    table = pl.DataFrame({"image": [f"{row}.png" for row in rows], "image_id": cohort["image_id"].gather(rows)})
    table.write_csv(folder / "labels.csv")
    return folder


def test_vindr_cxr_to_classification_of_its_15_labels(tmp_path, monkeypatch):
    collections.vindr(tmp_path / "data/vindr_cxr")
    run = run_of(tmp_path / "run", tmp_path / "data", selection("stage2", "vindr_cxr"), monkeypatch=monkeypatch)
    sets = labelled.assemble(run, pool_of(run), SIZE, SIZE)
    _, tables = augmentation.classify(sets, sets, [1], CONFIG, REPEATS, tmp_path / "kept")
    assert tables["test"]["finding"].unique(maintain_order=True).to_list() == [*vindr_cxr.LABELS, "Average"]
    known = tables["test"].drop_nulls("value")["finding"].unique(maintain_order=True).to_list()
    assert known == ["Pleural effusion", "No finding", "Average"]


def test_vindr_cxr_to_fine_tuning_with_15_labels_and_chest_dr_to_official_shots_of_19(tmp_path, monkeypatch):
    """Pretrained on 14 findings of another dataset, as in the paper."""
    collections.vindr(tmp_path / "data/vindr_cxr")
    collections.chest_dr_folder(tmp_path / "data/chest_dr")
    collections.nih_folder(tmp_path / "data/nih")
    flags = [selection("stage2", "nih"), selection("external", "vindr_cxr"), selection("few_shot", "chest_dr")]
    run = run_of(tmp_path / "run", tmp_path / "data", *flags, monkeypatch=monkeypatch)
    sets = labelled.assemble(run, pool_of(run), SIZE, SIZE)
    few = LearnerConfig(steps=1, size="ci", batch_size=8, checks=1)
    protocol = fine_tuning.Protocol([1], [], [1.0], [1, 5], 2, CONFIG, few)
    results = pretraining.pretrain_all(sets, NO_CASES, CONFIG, protocol, REPEATS, tmp_path / "kept")
    curves = pretraining.curves(results, sets, protocol, REPEATS)
    named = {g: tuple(own["finding"].unique(maintain_order=True)) for (g,), own in curves.group_by("group")}
    assert named == {
        "internal": (*FINDINGS, "Average"),
        "external": (*vindr_cxr.LABELS, "Average"),
        "few-shot": (*chest_dr.LABELS, "Average"),
    }
    shots = curves.filter(group="few-shot", finding="TB").drop_nulls("value")
    assert shots["set"].unique(maintain_order=True).to_list() == ["1-shot", "5-shot"]
    assert shots.filter(set="5-shot")["images"].unique().to_list() == [10.0] and set(shots["n"]) == {12}


def test_a_test_set_without_a_label_of_the_training_set_is_refused(tmp_path, monkeypatch):
    collections.vindr(tmp_path / "data/vindr_cxr", train=12, test=12)
    collections.chest_dr_folder(tmp_path / "data/chest_dr", train=16, test=12)
    flags = [selection("stage2", "vindr_cxr"), selection("external", "chest_dr")]
    run = run_of(tmp_path / "run", tmp_path / "data", *flags, monkeypatch=monkeypatch)
    sets = labelled.assemble(run, pool_of(run), SIZE, SIZE)
    assert label_set(sets.everything.table[sets.rows["external test"]]) == chest_dr.LABELS
    with pytest.raises(CohortError, match="external test: its 12 images know none of the labels"):
        augmentation.classify(sets, sets, [1], CONFIG, REPEATS, tmp_path / "kept")
    with pytest.raises(CohortError, match=r"external_labels \['Edema'\] are none of the labels .*Aortic"):
        augmentation.classify(sets, sets, [1], CONFIG, REPEATS, tmp_path / "kept", ["Edema"])
