"""Each stand-in is what its dataset's reader, and the reader of its images, expect."""

import polars as pl
import pytest

from chexgen_lib.cohort.build import STORED_VALUES
from chexgen_lib.estimates.measures import LEAST
from chexgen_lib.images import read_image
from chexgen_lib.records import FINDINGS, SPLITS, assign_splits
from chexgen_lib.rehearsal import datasets
from chexgen_lib.sources import registry


@pytest.mark.parametrize("source", datasets.MAKERS)
def test_a_stand_in_is_read_whole_with_its_images(source, tmp_path, quick_pictures):
    datasets.MAKERS[source](tmp_path / source)
    report, ready = registry.check(source, tmp_path)
    assert ready, report
    records, rejects = registry.load(source, tmp_path / source)
    assert len(records) >= 18 and rejects.filter(~pl.col("reason").str.contains("merged")).is_empty()
    first = records.head(4)
    for image in first["image"]:
        path = next((tmp_path / source).rglob(image.rpartition("/")[2]))
        assert read_image(path, need_header=source in STORED_VALUES).std() > 0.05
    annotated = (
        records["mask"].count() + (records["boxes"].list.len() > 0).sum() + (records["severity"].list.len() > 0).sum()
    )
    assert (annotated > 0) == (source in (*datasets.ANNOTATED, "nih", "vindr_pcxr", "vindr_cxr", "candid_ptx"))


@pytest.mark.parametrize(
    "source, case",
    [("siim_acr_ptx", pl.col("Pneumothorax") == 1), ("chest_dr", pl.col("labels").list.contains("TB")), ("ralo", None)],
)
def test_a_stand_in_can_be_validated_and_tested_on(source, case, tmp_path, quick_pictures):
    """Found by the rehearsal: nothing to validate severity on, one case of pneumothorax or tuberculosis to test on."""
    datasets.MAKERS[source](tmp_path / source)
    records = assign_splits(registry.load(source, tmp_path / source)[0])
    assert set(records["split"]) == set(SPLITS)
    assert records.filter(split="val").select("labels", "severity", *FINDINGS).unique().height > 1
    tested = records.filter(split="test")
    cases = tested.filter(True if case is None else case)
    assert len(cases) >= LEAST and (case is None or len(tested) - len(cases) >= LEAST)


def test_a_stand_in_that_is_there_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "MAKERS", {"a": lambda folder: folder.mkdir()})
    (tmp_path / "a").mkdir()
    (tmp_path / "a/own").touch()
    datasets.lay_out(tmp_path)
    assert (tmp_path / "a/own").exists()
