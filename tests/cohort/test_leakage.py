"""No patient who is validated or tested on is trained on, whichever way it would have happened."""

import sys

import polars as pl
import pytest
import torch

from chexgen_lib.cohort import leakage
from chexgen_lib.cohort.layout import CohortError
from chexgen_lib.training.latent_cache import LatentCache


def cache(path, n: int) -> None:
    latents = torch.zeros(n, 4, 2, 2).half()
    LatentCache(latents, latents.clone(), torch.zeros(n, 3).half(), torch.arange(n + 1)).save(path)


def manifest(folder, image_ids, record=None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    named = {} if record is None else {"record": record}
    pl.DataFrame({"image_id": image_ids, **named}).write_parquet(folder / "manifest.parquet")


@pytest.fixture
def run(tmp_path):
    """A run of six images of five patients: a and b train, c chooses, d and e are tested on."""
    (tmp_path / "cohort").mkdir()
    pl.DataFrame(
        {
            "image_id": ["a1", "a2", "b1", "c1", "d1", "e1"],
            "patient_id": ["a", "a", "b", "c", "d", "e"],
            "study_id": ["s1", "s2", "s3", "s4", "s5", "s6"],
            "split": ["train", "train", "train", "val", "test", "test"],
            "stage1": [True, True, False, True, False, False],
            "stage2": [False, False, True, False, True, False],
            "external": [False, True, False, False, False, True],
        }
    ).write_parquet(tmp_path / "cohort/cohort.parquet")
    for name, n in {"pretraining_train": 2, "pretraining_val": 1, "alignment_train": 1}.items():
        cache(tmp_path / "cohort" / name, n)
    manifest(tmp_path / "pools/text", ["b1"])
    manifest(tmp_path / "pools/masks", ["a1:ribs"], record=["a1"])
    manifest(tmp_path / "pools/matched", ["e1"])
    manifest(tmp_path / "pools/rivals/matched/other", ["e1"])
    manifest(tmp_path / "pools/rivals/synthesis/other", ["d1"])
    manifest(tmp_path / "pools/rivals/text/other", ["b1"])
    manifest(tmp_path / "pools/lungs", ["of another folder"])
    manifest(tmp_path / "synthesis", ["d1"])
    roles = {"patient_id": ["a", "c", "e"], "role": ["train", "val", "test"]}
    pl.DataFrame(roles).write_parquet(tmp_path / "pools/fairness.parquet")
    return tmp_path


def command(run, monkeypatch) -> int:
    monkeypatch.setattr(sys, "argv", ["leakage", str(run)])
    return leakage.main()


def test_a_run_without_leaks_passes(run, monkeypatch, capsys):
    found = leakage.walk(run)
    assert found["shared"].sum() == 0 and len(found) == 6 + 7 + 3
    sides = dict(found.select("set", "trained_on").iter_rows())
    assert sides["pools/text"] and sides["pools/masks"] and sides["cohort, external, train"]
    assert not (sides["pools/matched"] or sides["synthesis"] or sides["cohort, stage1, val"] or sides["fairness, val"])
    assert command(run, monkeypatch) == 0 and "pools/masks" in capsys.readouterr().out


def leak_by_split(run):
    path = run / "cohort/cohort.parquet"
    table = pl.read_parquet(path).with_columns(patient_id=pl.col("patient_id").replace({"e": "a"}))
    table.write_parquet(path)


def leak_by_role(run):
    path = run / "pools/fairness.parquet"
    pl.read_parquet(path).with_columns(patient_id=pl.col("patient_id").replace({"e": "b"})).write_parquet(path)


def leak_by_another_dataset(run):
    """a, who is trained on, is d of a dataset with the same images, who is tested on."""
    path, names = run / "cohort/cohort.parquet", {"a": "nih:00000007", "d": "chestx_det:00000007"}
    table = pl.read_parquet(path).with_columns(patient_id=pl.col("patient_id").replace(names))
    table.write_parquet(path)


def leak_by_report(run):
    """One report, of a patient who is trained on and of one who is tested on."""
    path = run / "cohort/cohort.parquet"
    pl.read_parquet(path).with_columns(study_id=pl.col("study_id").replace({"s6": "s1"})).write_parquet(path)


LEAKS = {
    "a report of two patients": leak_by_report,
    "a patient of two datasets": leak_by_another_dataset,
    "a patient in two splits": leak_by_split,
    "a pool drawn from a test record": lambda run: manifest(run / "pools/text", ["b1", "d1"]),
    "a pool drawn from a test record's masks": lambda run: manifest(run / "pools/masks", ["a1:ribs"], record=["e1"]),
    "a pool of a record that chooses": lambda run: manifest(run / "pools/balancing", ["c1"]),
    "a training record among the samples": lambda run: manifest(run / "synthesis", ["d1", "b1"]),
    "a training patient in the test of groups": leak_by_role,
}


@pytest.mark.parametrize("leak", LEAKS)
def test_every_leak_is_found(run, monkeypatch, capsys, leak):
    LEAKS[leak](run)
    assert command(run, monkeypatch) == 1
    assert "of them on the other side, too, first " in capsys.readouterr().out


def test_a_cache_of_other_images_and_a_lost_record_are_errors(run, monkeypatch):
    cache(run / "cohort/alignment_train", 2)
    with pytest.raises(CohortError, match="alignment_train: 2 pairs of 1 records"):
        leakage.walk(run)
    cache(run / "cohort/alignment_train", 1)
    manifest(run / "pools/text", ["b1", "lost"])
    with pytest.raises(SystemExit, match="1 records are not the cohort's, first 'lost'"):
        command(run, monkeypatch)
    with pytest.raises(CohortError, match="run the stage 02_cohort first"):
        leakage.walk(run / "nothing")
