"""MedFMC ChestDR: 19 labels."""

import pytest

from chexgen_lib.records import RecordError, label_set, label_states
from chexgen_lib.sources import chest_dr
from tests.sources.layouts import CHEST_DR, by_id, put, reasons, support_set


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


def test_its_label_set_are_the_19_labels(tmp_path):
    table, _ = chest_dr.load(put(tmp_path, CHEST_DR))
    assert label_set(table) == chest_dr.LABELS and len(chest_dr.LABELS) == 19
    states = label_states(table, chest_dr.LABELS)
    assert states[0].nonzero()[0].tolist() == [0, 9, 12] and states[2].sum() == 0


def test_support_sets_name_their_images(tmp_path):
    put(tmp_path, CHEST_DR)
    put(tmp_path / "MedFMC/chest", support_set(1, 1, "DX.1.2.png") | support_set(5, 2, "5C2E.png", "DX.1.2.png"))
    table, _ = chest_dr.load(tmp_path)
    assert table["sets"].to_list() == [["1-shot 1", "5-shot 2"], ["5-shot 2"], []]
    assert chest_dr.load(put(tmp_path / "plain", CHEST_DR))[0]["sets"].to_list() == [[]] * 3


@pytest.mark.parametrize(
    ("text", "message"),
    [("DX.1.2.png 1,0\n", "needs lines of an image and 19 labels"), (None, "first 'chest_dr:gone'")],
)
def test_a_support_set_of_another_release_is_refused(tmp_path, text, message):
    ((name, lines),) = support_set(1, 1, "gone.png").items()
    with pytest.raises(RecordError, match=f"{name}: .*{message}"):
        chest_dr.load(put(tmp_path, CHEST_DR | {name: text or lines}))
