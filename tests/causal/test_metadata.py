"""Records become complete rows, and every record is accounted for."""

import polars as pl
import pytest

from chexgen_lib.causal.effects import effect
from chexgen_lib.causal.graph import CausalError, make_graph
from chexgen_lib.causal.metadata import metadata_table
from tests.causal.test_model import GRAPH, simulated


def test_every_record_is_a_row_or_left_out_for_a_reason():
    kinds = {"source": "choice", "age": "number", "view": "choice", "Effusion": "choice", "Fracture": "choice"}
    records = pl.DataFrame(
        {
            "source": ["a", "a", "a", "a", "b"],
            "age": [50.0, None, 60.0, 70.0, 80.0],
            "view": ["AP SUPINE", "PA", "LORDOTIC", "PA", "PA"],
            "Effusion": [1.0, 1.0, 0.0, None, 1.0],
            "Fracture": [None, 1.0, 0.0, 1.0, None],
        }
    )
    table, left_out = metadata_table(records, make_graph(kinds, []))
    assert table.rows() == [("a", 50.0, "AP", 1, 0), ("a", 70.0, "PA", 0, 1)]
    assert len(table) + left_out["n"].sum() == len(records)
    said = {row["source"]: row["reason"] for row in left_out.filter(source="b").iter_rows(named=True)}
    assert said == {"b": "no Fracture in this source"}
    assert left_out.filter(source="a")["reason"].to_list() == [f"{n} unknown, or a rare view" for n in ("age", "view")]


def test_a_variable_that_records_do_not_have_is_named():
    records = pl.DataFrame({"source": ["a"], "view": ["PA"], "age": [50.0]})
    with pytest.raises(CausalError, match="Records have no bmi, Edema: take them out of the graph, or join them"):
        metadata_table(records, make_graph({"age": "number", "bmi": "number", "Edema": "choice"}, []))


def test_an_effect_has_an_interval_and_conditioning_stands_beside_it():
    found = effect(simulated(1500), GRAPH, "device", (0, 1), ("edema", 1), n_bootstrap=8, draws=4000)
    do, conditioned = found.iter_rows(named=True)
    true = simulated(100_000, 1, 1)["edema"].mean() - simulated(100_000, 1, 0)["edema"].mean()
    assert do["way"] == "do" and do["low"] < do["value"] < do["high"] < 0 < conditioned["low"]
    assert do["value"] == pytest.approx(true, abs=0.06)


def test_the_images_of_a_patient_are_no_new_patients():
    """Each row four times: with their patients an interval is as wide as of the rows once, else half as wide."""
    once, two = simulated(250).select("device", "edema"), make_graph({"device": "choice", "edema": "choice"}, [])
    four = pl.concat([once.with_columns(patient_id=pl.int_range(250))] * 4)
    widths = []
    for table in (once, four, four.drop("patient_id")):
        conditioned = effect(table, two, "device", (0, 1), ("edema", 1), n_bootstrap=200, draws=10).row(1, named=True)
        widths.append(conditioned["high"] - conditioned["low"])
    assert widths[1] / widths[0] == pytest.approx(1, abs=0.2) and widths[2] / widths[0] < 0.65


def test_a_resample_without_a_rare_value_is_left_out():
    rare = simulated(120).with_columns(device=pl.int_range(120) < 2)  # about one resample in seven has none
    two = make_graph({"device": "choice", "edema": "choice"}, [])
    do, conditioned = effect(rare, two, "device", (False, True), ("edema", 1), 30, 200).iter_rows(named=True)
    assert do["low"] <= do["high"] and conditioned["low"] <= conditioned["high"]


@pytest.mark.parametrize(
    ("cause", "outcome", "words"),
    [
        ("device", ("edema", 2), "edema = 2: fitted on 0, 1 alone"),
        ("device", ("age", 60), "age is a number: an outcome is a choice"),
        ("device", ("Edema", 1), "'Edema' is no variable"),
        ("devices", ("edema", 1), "'devices' is no variable"),
    ],
)
def test_an_effect_on_nothing_is_refused(cause, outcome, words):
    with pytest.raises(CausalError, match=words):
        effect(simulated(200), GRAPH, cause, (0, 1), outcome, 2, 10)
    with pytest.raises(CausalError, match="the table lacks sex"):
        effect(simulated(200).drop("sex"), GRAPH, "device", (0, 1), ("edema", 1), 2, 10)
