"""Groups of patients: by attributes of a table, alone and in combinations, with what is too small to measure withheld.

Attributes are columns of text, as sex, race or view; ages are first made into the paper's groups (`age_group`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
import polars as pl

from chexgen_lib.records import MAX_AGE

AGE_GROUPS = {"19-40": 19, "41-65": 41, "66+": 66}  # name -> first year of age (paper, Methods and Figure 5)
EVERYONE = "everyone"  # the group of all rows, also of those whose attributes are unknown
TIMES = " × "  # between the parts of a combined attribute or group


def age_group(ages: pl.Series) -> pl.Series:
    """Ages in years -> the paper's age groups (`AGE_GROUPS`), an Enum series named "age group".

    Years are completed ones (40.9 is 40). Under 19 there is no group, as in the paper: null, as for an unknown age.

    Raises:
        ValueError: naming the first row with an age outside 0 to `MAX_AGE`.
    """
    age = ages.cast(pl.Float64).fill_nan(None).rename("age")
    wrong = (~age.is_between(0, MAX_AGE)).arg_true()
    if len(wrong):
        row = wrong[0]
        raise ValueError(f"row {row}: age {age[row]}; use years, 0 to {MAX_AGE}, or null ({len(wrong)} such rows)")
    group = pl.lit(None, pl.String)
    for name, first in AGE_GROUPS.items():
        group = pl.when(pl.col("age") >= first).then(pl.lit(name)).otherwise(group)
    return age.to_frame().select(group.cast(pl.Enum(list(AGE_GROUPS))).alias("age group")).to_series()


@dataclass(frozen=True)
class Groups:
    """Which rows of a table belong to which group of patients; see `groups`.

    Attributes:
        table: one row per group: attribute ("sex", "sex × race"), group ("F", "F × Black"), n_images, n_patients,
            withheld.
        unknown: attribute, n_images and n_patients of the rows that are in none of its groups, as a value is null.
        member: bool [N, G], row in group.
        patients: the distinct ids, sorted.
        patient: int [N], each row's place among them.
        min_n: the least number of patients of a group that is not withheld.
    """

    table: pl.DataFrame
    unknown: pl.DataFrame
    member: np.ndarray
    patients: list[str]
    patient: np.ndarray
    min_n: int

    @property
    def attributes(self) -> list[str]:
        """The attributes and their combinations, without "everyone"."""
        return [a for a in self.table["attribute"].unique(maintain_order=True) if a != EVERYONE]

    @property
    def withheld(self) -> np.ndarray:
        """Bool [G]."""
        return self.table["withheld"].to_numpy()


def groups(table: pl.DataFrame, attributes: Sequence[str], *, min_n: int = 10, combine: int = 3) -> Groups:
    """All groups that `attributes` (text or Enum columns) form alone and in combinations of up to `combine`.

    The first group is "everyone". Every combination of values is listed, even if no patient has it; Enum columns keep
    their order. Rows with a null value are in no group of that attribute and are counted in `unknown`. Groups of fewer
    than `min_n` patients are withheld because an estimate would mislead, not to keep it secret: their rows count in
    larger groups.

    Args:
        table: one row per image, with patient_id.
        combine: the most attributes that form groups together.

    Raises:
        ValueError: for a missing column, a missing id, a column of numbers (group them first) or min_n below 2, since
            one patient has no interval.
    """
    if min_n < 2:
        raise ValueError(f"min_n must be at least 2 patients, got {min_n}: one patient has no interval")
    if "patient_id" not in table.columns or table["patient_id"].null_count():
        raise ValueError("patient_id: needs an id in every row; patients are what is resampled")
    check_attributes(table, attributes)
    patients = table["patient_id"].unique().sort()
    patient = patients.search_sorted(table["patient_id"]).to_numpy()

    def sizes(members: np.ndarray) -> dict[str, int]:
        return {"n_images": int(members.sum()), "n_patients": len(np.unique(patient[members]))}

    members = [np.ones(len(table), bool)]
    listed, unknown = [{"attribute": EVERYONE, "group": EVERYONE} | sizes(members[0])], []
    for names in (c for size in range(1, combine + 1) for c in combinations(attributes, size)):
        cells, code = cells_of(table, names)
        attribute = TIMES.join(names)
        for k, cell in enumerate(cells):
            members.append(code == k)
            listed.append({"attribute": attribute, "group": cell} | sizes(members[-1]))
        unknown.append({"attribute": attribute} | sizes(code < 0))
    group_rows = pl.DataFrame(listed).with_columns(withheld=pl.col("n_patients") < min_n)
    return Groups(group_rows, pl.DataFrame(unknown), np.stack(members, 1), patients.to_list(), patient, min_n)


def check_attributes(table: pl.DataFrame, attributes: Sequence[str]) -> None:
    """Raise ValueError unless the table has rows and `attributes` are columns of it that hold no numbers."""
    if table.is_empty():
        raise ValueError("the table has no rows: nothing to group")
    if not attributes or isinstance(attributes, str):
        raise ValueError(f"attributes: needs a list of at least one column, got {attributes!r}")
    for name in attributes:
        if name not in table.columns:
            raise ValueError(f"attribute {name!r} is not a column; the table has {table.columns}")
        if table[name].dtype.is_numeric():
            raise ValueError(f"attribute {name!r} holds numbers; make groups of them first, for example by age_group")


def cells_of(table: pl.DataFrame, names: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """The groups that `names` form together: their names, and the group of each row [N], -1 where a value is null."""
    levels, code, known = [], np.zeros(len(table), np.int64), np.ones(len(table), bool)
    for name in names:
        column, dtype = table[name].cast(pl.String), table[name].dtype
        values = list(dtype.categories) if isinstance(dtype, pl.Enum) else sorted(column.drop_nulls().unique())
        place = {value: k for k, value in enumerate(values)}
        places = np.array([place.get(value, -1) for value in column], np.int64)
        levels.append(values)
        code, known = code * len(values) + places, known & (places >= 0)
    return [TIMES.join(cell) for cell in product(*levels)], np.where(known, code, -1)
