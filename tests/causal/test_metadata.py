"""Records become complete rows, and every record is accounted for."""

import polars as pl
import pytest

from chexgen_lib.causal.effects import effect
from chexgen_lib.causal.graph import make_graph
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


def test_an_effect_has_an_interval_and_conditioning_stands_beside_it():
    found = effect(simulated(1500), GRAPH, "device", (0, 1), ("edema", 1), n_bootstrap=8, draws=4000)
    do, conditioned = found.iter_rows(named=True)
    true = simulated(100_000, 1, 1)["edema"].mean() - simulated(100_000, 1, 0)["edema"].mean()
    assert do["way"] == "do" and do["low"] < do["value"] < do["high"] < 0 < conditioned["low"]
    assert do["value"] == pytest.approx(true, abs=0.06)
