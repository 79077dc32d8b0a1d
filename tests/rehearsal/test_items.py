"""The last page says of every item whether it was made, and why not."""

import polars as pl

from chexgen_lib.rehearsal import items


def state(figures, item, shows=None):
    found = items.table(figures).filter(pl.col("item") == item)
    return (found if shows is None else found.filter(pl.col("shows").str.contains(shows)))["state"][0]


def test_an_item_is_made_when_its_file_holds_its_rows(tmp_path):
    assert state(tmp_path, "Fig 3f") == "MISSING: 09_augmentation did not write it"
    rows = {"source": ["paper", "this run"], "task": ["severity"] * 2, "value": [0.5, None]}
    pl.DataFrame(rows).write_csv(tmp_path / "fig3.csv")
    assert state(tmp_path, "Fig 3f") == "MISSING: no row with source=this run;task=severity"
    pl.DataFrame(rows | {"value": [0.5, 0.4]}).write_csv(tmp_path / "fig3.csv")
    assert state(tmp_path, "Fig 3f") == items.MADE
    assert state(tmp_path, "Fig 1a") == "a drawing without data"


def test_the_page_has_a_line_for_each_item(tmp_path):
    found = items.table(tmp_path)
    lines = items.page(found).splitlines()
    assert len(lines) == len(found) + 2 and lines[-1] == f"0 of {len(found)} items made"
