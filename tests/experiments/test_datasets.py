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
from chexgen_lib.experiments import augmentation, detection, fine_tuning, pretraining, segmentation, severity
from chexgen_lib.experiments.adapter import train_adapter, train_reader
from chexgen_lib.experiments.adherence import adherence
from chexgen_lib.experiments.arms import CHEXGEN
from chexgen_lib.experiments.attention import Cases
from chexgen_lib.experiments.repeats import Repeats
from chexgen_lib.learners.base import LearnerConfig
from chexgen_lib.models.autoencoder import new_autoencoder
from chexgen_lib.models.transformer import ChexGenTransformer
from chexgen_lib.pools import annotated, annotation_sources, labelled, severity_prompts
from chexgen_lib.pools.annotations import choose_requests, condition_hash, condition_images
from chexgen_lib.records import FINDINGS, FRONTAL, SPLITS, assign_splits, label_set
from chexgen_lib.sources import chest_dr, registry, vindr_cxr
from chexgen_lib.training.config import TrainingConfig
from chexgen_lib.training.stages import read_training
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
    chosen = pl.concat(select(table, selections, lambda texts: [1] * len(texts), 120, with_images=True))
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
    _, tables = augmentation.classify({CHEXGEN: sets}, [1], CONFIG, REPEATS, tmp_path / "kept")
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
    results = pretraining.pretrain_all({CHEXGEN: sets}, NO_CASES, CONFIG, protocol, REPEATS, tmp_path / "kept")
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
        augmentation.classify({CHEXGEN: sets}, [1], CONFIG, REPEATS, tmp_path / "kept")
    with pytest.raises(CohortError, match=r"external_labels \['Edema'\] are none of the labels .*Aortic"):
        augmentation.classify({CHEXGEN: sets}, [1], CONFIG, REPEATS, tmp_path / "kept", ["Edema"])


KINDS = {"pneumothorax": ["siim_acr_ptx"], "ribs": ["vindr_ribcxr"], "boxes": ["chestx_det", "object_cxr"]}
TASKS = {
    "pneumothorax": {"sources": ["siim_acr_ptx"], "external": ["candid_ptx"]},
    "ribs": {"sources": ["vindr_ribcxr"]},
    "detection": {"sources": ["chestx_det"]},
    "foreign objects": {"sources": ["object_cxr"]},
}


@pytest.fixture(scope="module")
def marked(tmp_path_factory):
    """A run of all datasets with masks, boxes or scores, and the pools of their annotations: the real images again."""
    folder, root = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("run")
    makers = {"siim_acr_ptx": "siim", "candid_ptx": "candid", "vindr_ribcxr": "ribs", "object_cxr": "objects"}
    makers |= {"chestx_det": "chestx_det", "ralo": "ralo"}
    for source, maker in makers.items():
        getattr(collections, maker)(folder / source)
    with pytest.MonkeyPatch.context() as monkeypatch:
        run_of(root, folder, selection("annotated", *makers), monkeypatch=monkeypatch)
    requested = {"masks": {"pneumothorax": 99, "ribs": 99}, "boxes": {"boxes": 99}}
    data, requests = annotation_sources.request_annotations(root / "cohort", SIZE, requested, datasets=KINDS)
    for name, own in requests.items():
        hashes = [condition_hash(image) for image in condition_images(data, own)]
        record = data.table["image_id"].gather(own["row"])
        (root / name).mkdir()
        own.with_columns(record=record, condition_hash=pl.Series(hashes)).drop("row").write_parquet(
            root / name / "manifest.parquet"
        )
        np.save(root / name / "samples.npy", data.images[own["row"].to_list()][:, None])
    return root


def test_annotated_datasets_to_a_trained_adapter_and_its_reader(marked, tmp_path):
    data = annotation_sources.of_run(marked / "cohort", SIZE, 0, 0, None, KINDS)
    assert data.classes == ("ribs", "Pneumothorax", "Effusion", "Support Devices", "Emphysema")
    requests = {split: choose_requests(data, split, n) for split, n in (("train", 8), ("held out", 4))}
    assert set(requests["train"]["kind"]) == set(requests["held out"]["kind"]) == set(KINDS)
    shown = {
        split: [data.shows(*about) for about in t.select("row", "kind").iter_rows()] for split, t in requests.items()
    }
    assert all(shown["held out"]) and 8 <= sum(shown["train"]) < 24  # images without anything are trained on as well
    black = condition_images(data, requests["train"])[np.array(shown["train"]) == 0]
    assert len(black) and not black.any()
    base = ChexGenTransformer.of_size("ci", sample_size=SIZE // 8, text_dim=384)
    config = TrainingConfig(steps=1, batch_size=2, precision="fp32", warmup_steps=0, log_every=1)
    (tmp_path / "adapter").mkdir()
    train_adapter(tmp_path / "adapter", base, 1, data, requests, new_autoencoder((8, 8, 8)).eval(), "minilm", config)
    assert len(read_training(tmp_path / "adapter")[0]) == 1
    (tmp_path / "reader").mkdir()
    train_reader(tmp_path / "reader", data, LearnerConfig(1, size="ci", batch_size=4))

    class Truth:
        def predict(self, images):
            return np.concatenate([data.masks[np.array([row])] for row in requests["held out"]["row"]])

    images = data.images[requests["held out"]["row"].to_list()][:, None]
    assert adherence(data, requests["held out"], images, Truth()).tolist() == [1.0] * len(images)


def test_annotated_datasets_to_segmentation_and_detectors_of_their_own(marked, tmp_path):
    sets = annotated.of_run(marked, SIZE, [marked / "masks", marked / "boxes"], None, TASKS)
    settings = {"size": "ci", "steps": None, "epochs": 1, "batch_size": 4, "checks": 1}
    for kind, tests in {"pneumothorax": ["test", "external test"], "ribs": ["test"]}.items():
        result = segmentation.segment(sets[kind], kind, [1], tmp_path / kind, settings, REPEATS)
        assert result.left_out == "" and result.table["test"].unique(maintain_order=True).to_list() == tests
        assert set(result.table["arm"]) >= {"real", "real + 1x"}
    sizes = dict(segmentation.segment(sets["pneumothorax"], "pneumothorax", [1], tmp_path / "pneumothorax", settings,
                                      REPEATS).images.select("set", "images").iter_rows())  # fmt: skip
    assert sizes["external test"] == 12 and sizes["train"] + sizes["val"] + sizes["test"] == 20
    found = detection.detect_all(
        sets, [1], tmp_path / "boxes", settings | {"classes": ["No Finding", "Effusion", "Emphysema"]}, REPEATS
    )
    categories = found.table["category"].unique(maintain_order=True).to_list()
    assert categories == ["No Finding", "Effusion", "Emphysema", "Overall", "Foreign Object"]
    counts = dict(found.table.filter(arm="real", metric="mAP50").select("category", "n").iter_rows())
    assert counts == {"No Finding": 4, "Effusion": 4, "Emphysema": 2, "Overall": 0, "Foreign Object": 4}
    assert found.table.filter(category="Overall")["value"].null_count() == len(found.table.filter(category="Overall"))
    assert found.table.filter(category="No Finding")["n"].unique().to_list() == [4]  # a box around the whole image


def test_ralo_to_prompts_and_severity(marked, tmp_path):
    cohort = layout.load(marked / "cohort")
    requests = severity_prompts.requests(cohort, 99)
    assert set(requests["image_id"].str.split(":").list.first()) == {"ralo"}
    assert set(requests["grade"]) <= {"none", "mild", "moderate", "severe"} and "none" in set(requests["grade"])
    for name in ("severity", "rival"):
        (tmp_path / name).mkdir()
        requests.select("image_id").write_parquet(tmp_path / name / "manifest.parquet")
        rows = [cohort["image_id"].to_list().index(i) for i in requests["image_id"]]
        np.save(tmp_path / name / "samples.npy", layout.load_images(marked / "cohort", SIZE, rows)[:, None])
    settings = {"size": "ci", "steps": 2, "batch_size": 4, "checks": 1}
    pools = {"ChexGen": tmp_path / "severity", "baseline": tmp_path / "rival"}
    sets = severity.load(marked, cohort, pools, SIZE, settings)
    result = severity.grade(sets, cohort, [1], tmp_path / "runs", settings, REPEATS)
    assert result.left_out == "" and result.table["test"].unique().to_list() == ["test"]
    counted = dict(result.images.select("set", "images").iter_rows())
    assert counted["train"] + counted["val"] + counted["test"] == 30


@pytest.mark.parametrize(
    ("datasets", "message"),
    [
        ({"pneumothorax": {"sources": ["nih"]}}, "no annotated image of 'nih': name it in cohort.annotated_sources"),
        ({"lungs": {"sources": ["nih"]}}, "unknown task 'lungs'; use some of pneumothorax, ribs, detection"),
        ({"ribs": {"sources": ["siim_acr_ptx"]}}, "no request for 'ribs' of siim_acr_ptx"),
    ],
)
def test_a_dataset_that_does_not_serve_a_task_is_named(marked, datasets, message):
    with pytest.raises(CohortError, match=message):
        annotated.of_run(marked, SIZE, [marked / "masks"], None, datasets)
