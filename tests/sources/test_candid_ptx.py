"""CANDID-PTX: three tables of regions, one Record an image."""

import numpy as np

from chexgen_lib.sources import candid_ptx, masks
from tests.sources.layouts import CANDID, by_id, put, reasons


def test_regions_of_three_tables_make_one_record_an_image(tmp_path):
    table, rejects = candid_ptx.load(put(tmp_path, CANDID))
    found = by_id(table)
    ill, other = found["candid_ptx:1.2.826.1"], found["candid_ptx:1.2.826.2"]
    assert masks.classes(ill["mask"]) == ("Pneumothorax", "Support Devices")
    assert np.flatnonzero(masks.read(ill["mask"], "Pneumothorax").T).tolist() == [0, 1, 2, 10, 11]
    assert (ill["Pneumothorax"], ill["Support Devices"], ill["Fracture"]) == (1, 1, None)
    assert ill["report"].startswith("Left apical\n") and ill["patient_id"] == "candid_ptx:P0001"
    assert (other["Pneumothorax"], other["Fracture"], other["labels"]) == (0, 1, ["acute rib fracture"])
    assert reasons(rejects) == {
        "Pneumothorax_reports.csv 2": masks.MERGED,
        "chest_tube.csv 1": masks.MERGED,
        "acute_rib_fracture.csv 1": masks.MERGED,
        "acute_rib_fracture.csv 2": "image without a row in Pneumothorax_reports.csv",
    }


def test_an_image_has_one_id_with_and_without_its_ending(tmp_path):
    expected = candid_ptx.load(put(tmp_path, CANDID))[0]
    put(tmp_path, {"chest_tube.csv": CANDID["chest_tube.csv"].replace("1.2.826.1,", "1.2.826.1.dcm,")})
    assert candid_ptx.load(tmp_path)[0].equals(expected)
