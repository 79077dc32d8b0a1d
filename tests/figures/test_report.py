"""Claims are read off the figures' tables, signed so that better is positive, and judged with their controls."""

from pathlib import Path

import polars as pl
import pytest

from chexgen_lib.estimates.wording import NOT_SPECIFIC, OPPOSITE, SUPPORTED, UNMEASURABLE, UNMEASURED
from chexgen_lib.figures import claims, report
from chexgen_lib.figures.fig5 import COPY, PERMUTED

ZERO = {"difference": 0.0, "difference_low": -0.1, "difference_high": 0.1, "detectable": 0.14}


def gains(ends: tuple[float, float, float]) -> dict:
    return {f"difference{k}": v for k, v in zip(("", "_low", "_high"), ends, strict=True)} | {"detectable": 0.015}


def held(worth: float | None, beyond: tuple[float, float, float]) -> dict:
    """A row's columns of `estimates.worth`."""
    numbers = {f"beyond{k}": v for k, v in zip(("", "_low", "_high"), beyond, strict=True)}
    ends = {f"worth{k}": None if worth is None else worth + v for k, v in (("", 0.0), ("_low", -0.1), ("_high", 0.1))}
    return numbers | ends | {"oracle": "real + 2x new real", "control": "real + 2x, shuffled"}


@pytest.fixture
def folder(tmp_path) -> Path:
    """Tables of a made-up run in which little is gained."""
    r = [("this run", 0.6, 0.5, 0.7), ("ignores its prompt", 0.3, 0.2, 0.4)]
    fig2 = [dict(source="this run", metric="Pearson r", arm=a, value=v, low=lo, high=hi, n=64) for a, v, lo, hi in r]
    about = dict(source="this run", arm="real + 2x", n=250)
    fig3 = [
        about
        | dict(task="classification", category="Average", metric="AUROC", test="test")
        | gains((0.02, 0.01, 0.03))
        | held(0.5, (0.07, 0.05, 0.09)),
        about
        | dict(task="severity", category="all", metric="MAE", test="test")
        | gains((0.02, 0.01, 0.04))
        | held(None, (0.03, 0.02, 0.05)),
        about | dict(task="ribs", category="all", metric="Dice", test="test") | ZERO,
    ]
    fig3.append(fig3[0] | dict(arm="real + 2x, shuffled") | gains((-0.05, -0.07, -0.01)))
    few = [("internal", "3 %"), ("internal", "100 %"), ("few-shot", "1-shot"), ("few-shot", "10-shot")]
    fig4 = [
        dict(finding="Average", group=group, set=name, arm=arm, n=250) | ZERO
        for group, name in few
        for arm in ("default initialisation", "default, as many steps", "1x synthetic", "5x synthetic")
    ]
    groups = dict(source="this run", attribute="all groups", measure="Pearson r", n=20)
    fig5 = [groups | dict(arm=a, value=0.8, low=0.4, high=1.0) for a in (COPY, PERMUTED)]
    beyond = {"beyond": 0.0, "beyond_low": -0.01, "beyond_high": 0.01, "control": "real repeated"}
    arms = [
        dict(attribute=a, measure=m, arm=arm, n_patients=200) | gains((-0.03, -0.05, -0.01)) | beyond
        for a in ("sex", "age group")
        for m in claims.MEASURES
        for arm in ("balanced, synthetic", "real repeated")
    ]
    for name, rows in dict(fig2=fig2, fig3=fig3, fig4=fig4, fig5=fig5, fig5_arms=arms).items():
        pl.DataFrame(rows).write_csv(tmp_path / f"{name}.csv")
    return tmp_path


def of(table: pl.DataFrame, text: str, measure: str) -> dict:
    return table.filter(pl.col("claim").str.contains(text, literal=True), measure=measure).row(0, named=True)


def test_the_interval_decides(folder):
    table = claims.read(folder)
    assert of(table, "classification", "AUROC")["verdict"] == SUPPORTED
    assert of(table, "ribs", "Dice")["verdict"] == UNMEASURABLE  # the paper's 0.03 would have been missed
    assert of(table, "sex balanced", "worst-group F1")["verdict"] == OPPOSITE


def test_worth_and_the_distance_from_the_control_are_signed_as_gains(folder):
    table = claims.read(folder)
    right, wrong = of(table, "classification", "AUROC"), of(table, "severity", "MAE")
    assert (right["worth"], right["beyond_low"], right["detectable"]) == pytest.approx((0.5, 0.05, 0.015))
    assert [wrong[k] for k in ("beyond", "beyond_low", "beyond_high")] == pytest.approx([-0.03, -0.05, -0.02])
    rows = claims.readable(table)
    shown = rows.filter(pl.col("claim").str.contains("classification"), measure="AUROC").row(0, named=True)
    assert shown["worth"] == "0.50 [0.40, 0.60]" and shown["minimum detectable"] == "0.015"
    assert rows.filter(measure="MAE")["worth"].to_list() == [UNMEASURABLE]


def test_less_error_and_smaller_gaps_are_gains(folder):
    table = claims.read(folder)
    error = of(table, "severity", "MAE")
    assert [error[k] for k in ("gain", "low", "high")] == pytest.approx([-0.02, -0.04, -0.01])
    assert error["verdict"] == OPPOSITE
    gap = of(table, "sex balanced", "best-worst gap of F1")
    assert (gap["gain"], gap["control"]) == pytest.approx((0.03, 0.03)) and gap["verdict"] == NOT_SPECIFIC


def test_a_value_is_held_against_the_far_end_of_its_control(folder):
    followed = claims.read(folder).row(0, named=True)
    assert [followed[k] for k in ("gain", "low", "high")] == pytest.approx([0.3, 0.1, 0.5])


def test_the_papers_gains_are_shares_of_one(folder):
    table = claims.read(folder)
    assert of(table, "classification", "AUROC")["paper"] == pytest.approx((80.1 - 78.05) / 100)  # ED Table 6
    assert of(table, "severity", "MAE")["paper"] == pytest.approx((0.65 - 0.58) / 8)  # ED Table 9, scores to 8
    assert of(table, "sex balanced", "best-worst gap of F1")["paper"] == pytest.approx((2.5 - 1.6) / 100)  # Fig 5d
    assert of(table, "1-shot", "AUROC")["paper"] == pytest.approx((64.8 - 55.7) / 100)  # Fig 4a


def test_only_the_same_quantity_of_the_paper_stands_beside_a_claim(folder):
    table = claims.read(folder)
    for claim in ("other prompts' samples", "then 3 %"):  # the paper has other generators, and 1 %
        row = table.filter(pl.col("claim").str.contains(claim)).row(0, named=True)
        assert row["paper"] is None and row["paper_of"] is None
    assert of(table, "then 100 %", "AUROC")["paper"] is not None
    others = pl.read_csv(folder / "fig4.csv").with_columns(pl.col("arm").str.replace("5x", "2x"))
    others.write_csv(folder / "fig4.csv")
    assert of(claims.read(folder), "2x synthetic first, then 1-shot", "AUROC")["paper"] is None


def test_a_claim_that_could_not_be_measured_says_which_n_could(folder):
    ribs = of(claims.read(folder), "ribs", "Dice")
    assert ribs["needed"] == 5445  # 250 x (0.14 / 0.03)^2
    rows = claims.readable(claims.read(folder))
    assert rows.filter(measure="Dice", verdict=UNMEASURABLE)["n, at least"].to_list() == ["5,445"]
    assert set(rows.filter(pl.col("verdict") != UNMEASURABLE)["n, at least"]) == {""}


def test_controls_stand_beside_their_claims(folder):
    table = claims.read(folder)
    assert of(table, "classification", "AUROC")["control"] == pytest.approx(-0.05)
    assert of(table, "ribs", "Dice")["control"] is None


def test_what_was_not_measured_is_listed(folder):
    table = claims.read(folder)
    missing = table.filter(verdict=UNMEASURED)
    assert "real + 2x synthetic, pneumothorax" in missing["claim"].to_list() and missing["gain"].is_null().all()
    figure = report.draw(table)
    assert len(figure.axes) == len(report.PANELS)
    assert sum(len(ax.get_yticklabels()) for ax in figure.axes) == len(table)


@pytest.mark.parametrize("gain", [None, 0.0])
def test_a_panel_without_any_gain_is_drawn(gain):
    row = dict(item="Fig 2a", claim="a", measure="Pearson r", n=9) | dict.fromkeys(("gain", "low", "high"), gain)
    least, most = report.draw(claims.judged([row])).axes[0].get_xlim()
    assert -most == least < 0


def test_a_missing_table_names_its_stage(folder):
    (folder / "fig4.csv").unlink()
    with pytest.raises(FileNotFoundError, match="fig4.csv does not exist: run the stage 10_supervised_pretraining"):
        claims.read(folder)


def test_two_rows_of_one_claim_are_refused(folder):
    table = pl.read_csv(folder / "fig2.csv")
    pl.concat([table, table]).write_csv(folder / "fig2.csv")
    with pytest.raises(ValueError, match="2 rows of .*expected one"):
        claims.read(folder)


def test_the_readable_table_has_every_claim_with_its_interval(folder):
    table = claims.read(folder)
    rows = claims.readable(table)
    assert len(rows) == len(table) and sum(claims.verdicts(table).values()) == len(table)
    followed = rows.filter(item="Fig 2a").row(0, named=True)
    assert followed["this run"] == "0.300 [0.100, 0.500]" and followed["paper"] == ""
    unmeasured = rows.filter(verdict=UNMEASURED)
    assert len(unmeasured) and set(unmeasured["this run"]) == {""}
