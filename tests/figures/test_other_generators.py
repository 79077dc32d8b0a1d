"""Other generators stand beside this run's, claim by claim, with the difference of the same resamples."""

import polars as pl
import pytest

from chexgen_lib.figures import other_generators

BEYOND = {"beyond": -0.1, "beyond_low": -0.2, "beyond_high": -0.05}
VALUE = {"value": 0.6, "low": 0.5, "high": 0.7, "difference": 0.3, "difference_low": 0.2, "difference_high": 0.4}


def write(folder, name: str, rows: list[dict]) -> None:
    pl.DataFrame(rows, infer_schema_length=None).write_csv(folder / f"{name}.csv")


@pytest.fixture
def folder(tmp_path):
    quality = {"source": "this run", "panel": "a", "n": 30}
    arms = ("this run", "MINIM", "real vs real", "Gaussian pixels", "ignores its prompt")
    write(tmp_path, "fig2", [quality | VALUE | {"metric": m, "arm": a} for m in ("FID-x", "MS-SSIM") for a in arms])
    task = {"source": "this run", "task": "classification", "test": "test", "metric": "AUROC", "n": 40}
    controls = {"real": None, "real + 2x": "real + 2x, shuffled", "real + 2x MINIM": "real + 2x"}
    rows = [task | VALUE | BEYOND | {"arm": a, "control": c} for a, c in controls.items()]
    everywhere = [row | {"category": category} for row in rows for category in ("Average", "Edema")]
    everywhere += [row | {"category": "Average", "source": "paper", "arm": "real+2x RoentGen"} for row in rows[:1]]
    write(tmp_path, "fig3", everywhere)
    start = {"finding": "Average", "group": "few-shot", "n": 50}
    longer = "default, as many steps"
    controls = {longer: None, "2x synthetic": longer, "2x new real": longer, "2x MINIM": "2x synthetic"}
    rows = [start | VALUE | BEYOND | {"set": s, "arm": a, "control": c} for s in "ab" for a, c in controls.items()]
    rows[-1] |= dict.fromkeys(BEYOND) | {"control": None}  # measured, but held against nothing
    write(tmp_path, "fig4", rows)
    fair = {"attribute": "sex", "measure": "best-worst gap of F1", "n_patients": 60}
    controls = {"balanced, synthetic": "real repeated", "balanced, MINIM": "balanced, synthetic"}
    write(tmp_path, "fig5_arms", [fair | VALUE | BEYOND | {"arm": a, "control": c} for a, c in controls.items()])
    return tmp_path


def test_every_figure_has_the_others_beside_ours(folder):
    found = other_generators.table(folder)
    assert set(found["generator"]) == {"MINIM"} and len(found) == 6
    assert found["item"].to_list() == ["Fig 2a", "Fig 2a", "Fig 3", "Fig 4a", "Fig 4a", "Fig 5d"]
    assert found["better"].to_list() == ["lower", "as between real images", *["higher"] * 3, "lower"]
    assert found["difference"].to_list() == [0.3, 0.3, -0.1, -0.1, None, -0.1]
    assert found["this run"].to_list() == [0.6] * 6 and found["n"].to_list() == [30, 30, 40, 50, 50, 60]
    shown = other_generators.readable(found)
    assert shown["difference"].to_list()[2] == "-0.100 [-0.200, -0.050]" and "no estimate" in set(shown["difference"])


def test_a_run_without_another_generator_has_no_row(folder):
    for path in folder.glob("*.csv"):
        table = pl.read_csv(path, infer_schema_length=None)
        table.filter(~pl.col("arm").str.contains("MINIM")).write_csv(path)
    found = other_generators.table(folder)
    assert found.is_empty() and list(found.schema) == list(other_generators.COLUMNS)
    assert other_generators.readable(found).columns[0] == "item"


def test_a_missing_table_names_its_stage(folder):
    (folder / "fig4.csv").unlink()
    with pytest.raises(FileNotFoundError, match="run the stage 10_supervised_pretraining first"):
        other_generators.table(folder)
