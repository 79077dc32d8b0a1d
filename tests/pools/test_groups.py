"""Groups are the values of attributes and their combinations; unknown values and small groups are counted."""

import numpy as np
import polars as pl
import pytest

from chexgen_lib.pools.groups import AGE_GROUPS, EVERYONE, TIMES, age_group, groups

ATTRIBUTES = ["sex", "race", "age group"]


def cohort(patients=150):
    """Rows of patients with one to three images."""
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(patients), rng.integers(1, 4, patients))
    columns = {"sex": ["F", "M"], "race": ["Asian", "Black", "White", "White"], "age group": list(AGE_GROUPS)}
    table = pl.DataFrame({name: rng.choice(values, patients)[patient] for name, values in columns.items()})
    ids = pl.Series("patient_id", [f"a:{i}" for i in patient])
    return table.with_columns(ids, pl.col("age group").cast(pl.Enum(list(AGE_GROUPS))))


def test_age_groups_are_the_papers():
    ages = pl.Series([18.9, 19, 40.9, 41, 65.5, 66, 120, None, float("nan")], dtype=pl.Float32)
    grouped = age_group(ages)
    assert grouped.to_list() == [None, "19-40", "19-40", "41-65", "41-65", "66+", "66+", None, None]
    assert grouped.name == "age group" and grouped.dtype == pl.Enum(["19-40", "41-65", "66+"])
    with pytest.raises(ValueError, match=r"row 1: age 214.*2 such rows"):
        age_group(pl.Series([20.0, 214.0, -1.0]))


def test_groups_are_values_and_their_combinations():
    table = cohort()
    found = groups(table, ATTRIBUTES, min_n=10)
    assert found.attributes == [
        *ATTRIBUTES,
        "sex × race",
        "sex × age group",
        "race × age group",
        "sex × race × age group",
    ]
    assert found.member.shape == (len(table), 1 + 2 + 3 + 3 + 6 + 6 + 9 + 18)
    for k, row in enumerate(found.table.iter_rows(named=True)):
        names, values = row["attribute"].split(TIMES), row["group"].split(TIMES)
        own = table if row["attribute"] == EVERYONE else table.filter(**dict(zip(names, values, strict=True)))
        assert found.member[:, k].sum() == row["n_images"] == len(own)
        assert row["n_patients"] == own["patient_id"].n_unique()
        assert row["withheld"] == (row["n_patients"] < 10)
    assert [found.patients[i] for i in found.patient] == table["patient_id"].to_list()
    assert groups(table, ATTRIBUTES, combine=1).attributes == ATTRIBUTES


def test_the_minimum_counts_patients_and_empty_groups_are_listed():
    table = pl.DataFrame(
        {
            "patient_id": ["a:0"] * 30 + [f"a:{i}" for i in range(1, 13)],
            "site": pl.Series(["one"] * 30 + ["two"] * 12, dtype=pl.Enum(["one", "two", "three"])),
        }
    )
    found = groups(table, ["site"], min_n=2).table.filter(attribute="site")
    assert found.select("group", "n_images", "n_patients", "withheld").rows() == [
        ("one", 30, 1, True),
        ("two", 12, 12, False),
        ("three", 0, 0, True),
    ]


def test_unknown_attributes_form_no_group_and_are_counted():
    table = cohort()
    race = pl.when(pl.col("patient_id").is_in(["a:0", "a:1"])).then(None).otherwise("race")
    partly = groups(table.with_columns(race.alias("race")), ["sex", "race"])
    rows = table.filter(pl.col("patient_id").is_in(["a:0", "a:1"])).height
    assert partly.unknown.rows() == [("sex", 0, 0), ("race", rows, 2), ("sex × race", rows, 2)]
    assert partly.table.filter(attribute="race")["n_images"].sum() == len(table) - rows


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"age": 40.0}, {"attributes": ["age"]}, "'age' holds numbers"),
        ({}, {"attributes": ["height"]}, "'height' is not a column"),
        ({}, {"attributes": "sex"}, "attributes: needs a list"),
        ({"patient_id": None}, {"attributes": ["sex"]}, "patient_id"),
        ({}, {"attributes": ["sex"], "min_n": 1}, "min_n must be at least 2"),
    ],
)
def test_bad_groups_are_refused(change, options, message):
    table = cohort().with_columns(pl.lit(value).alias(name) for name, value in change.items())
    with pytest.raises(ValueError, match=message):
        groups(table, **options)
    with pytest.raises(ValueError, match="no rows"):
        groups(table.head(0).with_columns(patient_id=pl.lit("a:0")), ["sex"])
