"""Groups are correlated between a real cohort and its copy, patients resampled in both together."""

import polars as pl
import pytest
from scipy import stats

from chexgen_lib.experiments import fairness
from chexgen_lib.experiments.fairness import scores as fs
from chexgen_lib.experiments.fairness.agreement import agreement
from chexgen_lib.pools import groups as gr
from tests.builders import grouped_cohort, harder, scored, scores_around


def test_agreement_is_the_correlation_of_the_groups():
    table, labels = grouped_cohort(300, most=2)
    real = scored(table, labels, scores_around(labels, 1, harder(table)))
    synthetic = scored(table, labels, scores_around(labels, 2, 1.2 * harder(table)))
    result = agreement(real, synthetic)
    groups = fs.group_table(real).select("attribute", "group", real="f1").drop_nulls()
    groups = groups.join(
        fs.group_table(synthetic).select("attribute", "group", synthetic="f1"), on=["attribute", "group"]
    )
    for attribute, own in groups.filter(pl.col("attribute") != gr.EVERYONE).group_by("attribute"):
        rows = {r["measure"]: r for r in result.filter(attribute=attribute[0]).iter_rows(named=True)}
        shift = (own["synthetic"] - own["real"]).mean()
        assert rows[fairness.SHIFT]["value"] == pytest.approx(shift) and shift < 0
        for measure, r in ((fairness.PEARSON, stats.pearsonr), (fairness.SPEARMAN, stats.spearmanr)):
            row = rows[measure]
            assert row["n_groups"] == own.height
            if own.height == 2:
                assert row["value"] is None and "1 or -1" in row["note"]
            else:
                assert row["value"] == pytest.approx(r(own["real"], own["synthetic"])[0])
                assert -1 <= row["low"] <= row["value"] <= row["high"] <= 1 and row["low"] < row["high"]
    everything = result.filter(attribute=fairness.ALL_GROUPS, measure=fairness.PEARSON).row(0, named=True)
    assert everything["n_groups"] == groups.height - 1 and everything["low"] > 0.3


def test_both_cohorts_are_resampled_together():
    table, labels = grouped_cohort()
    real = scored(table, labels, scores_around(labels))
    for row in agreement(real, real).drop_nulls("value").iter_rows(named=True):
        expected = 0 if row["measure"] == fairness.SHIFT else 1
        assert (row["value"], row["low"], row["high"]) == pytest.approx((expected,) * 3)  # unpaired: far from it


def test_a_constant_side_has_no_correlation():
    table, labels = grouped_cohort()
    real, perfect = scored(table, labels, scores_around(labels)), scored(table, labels, labels)
    result = agreement(real, perfect).filter(attribute="race", measure=fairness.PEARSON).row(0, named=True)
    assert (result["value"], result["low"], result["note"]) == (None, None, "all groups are equal on one side")


def test_unpaired_cohorts_are_refused():
    table, labels = grouped_cohort()
    real = scored(table, labels, scores_around(labels))
    fewer = (table["patient_id"] != "a:0").to_numpy()
    with pytest.raises(ValueError, match="differ in their patients"):
        agreement(real, scored(table.filter(fewer), labels[fewer], scores_around(labels)[fewer]))
    with pytest.raises(ValueError, match="differ in their resamples"):
        agreement(real, scored(table, labels, scores_around(labels), seed=1))
    with pytest.raises(ValueError, match="differ in their groups"):
        agreement(real, scored(table, labels, scores_around(labels), min_n=20))
