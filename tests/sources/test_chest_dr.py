"""MedFMC ChestDR: 19 labels."""

from chexgen_lib.sources import chest_dr
from tests.sources.layouts import CHEST_DR, by_id, put, reasons


def test_labels_become_states_and_a_missing_old_fracture_is_unknown(tmp_path):
    table, rejects = chest_dr.load(put(tmp_path, CHEST_DR))
    found = by_id(table)
    ill, old, clear = (found[f"chest_dr:{name}"] for name in ("DX.1.2", "5C2E", "5CF8"))
    assert (ill["Effusion"], ill["Pleural Other"], ill["Pneumonia"], ill["Fracture"]) == (1, 1, 0, None)
    assert ill["labels"] == ["pleural_effusion", "thickened_pleura", "emphysema"]
    assert (old["Fracture"], old["No Finding"], clear["No Finding"], clear["split"]) == (1, 0, None, "test")
    assert rejects.is_empty() and ill["Lung Opacity"] is None


def test_a_label_that_is_neither_0_nor_1_rejects_its_row(tmp_path):
    text = CHEST_DR["chest_train.csv"].replace("png,t,0", "png,t,2") + "DX.1.2.png,s" + ",0" * 19 + "\n"
    _, rejects = chest_dr.load(put(tmp_path, CHEST_DR | {"chest_train.csv": text}))
    assert list(reasons(rejects).values()) == ["label neither 0 nor 1: pleural_effusion '2'", "duplicate image id"]
