"""The last page says of every item whether it was made, and why not; one that should have been ends the rehearsal."""

import csv
import sys

import polars as pl
import pytest

from chexgen_lib.rehearsal import __main__ as command
from chexgen_lib.rehearsal import items, workplace
from chexgen_lib.workflow import dag

PAPER = dag.plain("paper") | {"generators": {"RoentGen": "x", "MINIM": "y"}}
STAGES = dag.stages(PAPER)


def rows():
    return list(csv.DictReader((items.files(items.__package__) / "items.csv").open(encoding="utf-8")))


def state(place, item, shows="", params=PAPER, stages=STAGES):
    found = items.table(place, params, stages).filter(pl.col("shows").str.contains(shows), item=item)
    return found["state"][0]


def make_all(figures):
    """A file for every item, with the rows that it must hold."""
    tables = {}
    for row in filter(lambda row: row["file"], rows()):
        path = figures / row["file"]
        path.parent.mkdir(parents=True, exist_ok=True)
        if row["file"].endswith(".csv"):
            held = dict(pair.split("=", 1) for pair in row["rows"].split(";")) if row["rows"] else {}
            tables.setdefault(path, []).append(held | {"value": "1"})
        else:
            path.touch()
    for path, content in tables.items():
        pl.DataFrame(content, infer_schema_length=None).write_csv(path)


def test_an_item_is_made_when_its_file_holds_its_rows(tmp_path):
    assert state(tmp_path, "Fig 3f") == "MISSING: 09_augmentation did not write it"
    content = {"source": ["paper", "this run"], "task": ["severity"] * 2, "value": [0.5, None]}
    (figures := tmp_path / PAPER["figures_dir"]).mkdir(parents=True)
    pl.DataFrame(content).write_csv(figures / "fig3.csv")
    assert state(tmp_path, "Fig 3f") == "MISSING: no row with source=this run;task=severity"
    pl.DataFrame(content | {"value": [0.5, 0.4]}).write_csv(figures / "fig3.csv")
    assert state(tmp_path, "Fig 3f") == items.MADE
    assert state(tmp_path, "Fig 1a") == "a drawing without data"


def test_what_a_profile_or_these_stages_do_not_make_is_not_missing(tmp_path):
    assert state(tmp_path, "Fig 3f", stages=["01_curation"]) == "not asked for: 09_augmentation"
    without = PAPER | {"generators": {"baseline": None}}
    assert state(tmp_path, "Fig 2a", "MINIM", without) == "not in this profile: generators.MINIM is not set"
    gpu = dag.plain("gpu")
    assert state(tmp_path, "Results", "RAD-DINO", gpu).startswith("not in this profile: supervised_pretraining.starts=")
    assert state(tmp_path, "Results", "RAD-DINO") == "MISSING: 10_supervised_pretraining did not write it"
    assert state(tmp_path, "ED Table 1", "", gpu) == "not in this profile: curation.data_root is not set"


def test_files_beside_the_figures_are_looked_for_in_the_run(tmp_path):
    gpu = dag.plain("gpu")
    assert not gpu["figures_dir"].startswith(gpu["root"]), "else this tests nothing"
    assert state(tmp_path, "ED Table 5", "", gpu) == "MISSING: 01_curation did not write it"
    (notebook := tmp_path / gpu["root"] / "notebooks/01_curation.ipynb").parent.mkdir(parents=True)
    notebook.touch()
    assert state(tmp_path, "ED Table 5", "", gpu) == items.MADE


def test_the_page_has_a_line_for_each_item(tmp_path):
    found = items.table(tmp_path, PAPER, STAGES)
    lines = items.page(found).splitlines()
    assert len(lines) == len(found) + 2 and lines[-1] == f"0 of {len(found)} items made"


@pytest.mark.parametrize("removed", ["fig2d.png", "ed_table8.csv"])
def test_a_rehearsal_without_an_item_fails(tmp_path, monkeypatch, capsys, removed):
    """Every stage ends, and one of their files is not there."""

    def prepare(place, profile, overrides):
        dag.compose(profile, place / "params.yaml", overrides)

    monkeypatch.setattr(workplace, "prepare", prepare)
    monkeypatch.setattr(workplace, "repro", lambda place, stages: 0)
    monkeypatch.setattr(dag, "stages", lambda params, root=None: STAGES)
    monkeypatch.setattr(sys, "argv", ["rehearsal", "paper", "--folder", str(tmp_path)])
    figures = tmp_path / PAPER["figures_dir"]
    make_all(figures)
    assert command.main() == 0 and "all stages ended, 0 items missing" in capsys.readouterr().out
    (figures / removed).unlink()
    assert command.main() == 1
    assert f"{removed:<30} MISSING" in capsys.readouterr().out
