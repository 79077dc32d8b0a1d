"""Estimates read alike everywhere: intervals, p-values, verdicts, tables."""

import polars as pl
import pytest

from chexgen_lib.estimates import wording as w

ROW = {"difference": 0.02, "difference_low": 0.01, "difference_high": 0.03, "p": 0.04, "detectable": 0.015}


def test_an_interval_stands_in_brackets():
    assert w.format_interval(0.412, 0.384, 0.441) == "0.41 [0.38, 0.44]"
    assert w.format_interval(12.34, 1, 20, digits=1) == "12.3 [1.0, 20.0]"


@pytest.mark.parametrize(
    ("p", "text"), [(0.25, "p = 0.25"), (0.0341, "p = 0.034"), (1.0, "p = 1"), (1e-5, "p < 0.001")]
)
def test_a_p_value_keeps_two_digits(p, text):
    assert w.format_p(p) == text


def test_a_difference_says_whether_it_is_detectable_and_what_would_be():
    assert w.verdict(ROW) == "+0.020 [0.010, 0.030], p = 0.04"
    open_ = ROW | {"difference_low": -0.01}
    assert w.verdict(open_) == "+0.020 [-0.010, 0.030]: no detectable difference (minimum detectable: 0.015)"
    assert w.verdict(dict.fromkeys(ROW, 0.0)) == "+0.000: the same in every resample"
    negative = {"difference": -0.02, "difference_low": -0.03, "difference_high": -0.01}
    assert w.verdict(ROW | negative) == "-0.020 [-0.030, -0.010], p = 0.04"
    assert w.verdict({"difference": None}) == "" and w.is_detectable(ROW) and not w.is_detectable(open_)


def test_an_estimate_that_is_missing_gives_its_reason():
    row = {"value": 0.5, "low": 0.4, "high": 0.6, "note": ""}
    assert w.estimate(row) == "0.500 [0.400, 0.600]" and w.estimate(row | {"low": None}) == "0.500"
    assert w.estimate(row | {"value": None, "note": "withheld: fewer than 5"}) == "withheld"
    assert w.estimate({"f1": None}, "f1") == "no estimate"
    assert (w.against_bar(0.8, 0.75), w.against_bar(0.7, 0.75)) == ("reached", "missed by 0.05")


def test_a_table_is_readable():
    row = {"arm": "a", "value": 0.5, "low": 0.4, "high": 0.6, "sd": None, "n": 9} | ROW
    table = w.readable(pl.DataFrame([row, row | {"arm": "b", "difference": None}]))
    assert table.columns == ["arm", "value", "n", "difference"]
    assert table.row(0) == ("a", "0.500 [0.400, 0.600]", 9, "+0.020 [0.010, 0.030], p = 0.04")
    assert table.row(1)[-1] == ""


CLAIM = {"low": 0.01, "high": 0.03, "beyond_low": None, "detectable": 0.02, "paper": 0.02}
OPEN = CLAIM | {"low": -0.01}


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        (CLAIM, w.SUPPORTED),
        (CLAIM | {"beyond_low": 0.001}, w.SUPPORTED),
        (CLAIM | {"beyond_low": -0.001}, w.NOT_SPECIFIC),
        (CLAIM | {"detectable": 0.5}, w.SUPPORTED),  # found, although it could have been missed
        (CLAIM | {"low": -0.03, "high": -0.01}, w.OPPOSITE),
        (OPEN, w.NOT_DETECTABLE),
        (OPEN | {"detectable": 0.021}, w.UNMEASURABLE),
        (OPEN | {"detectable": 0.021, "paper": None}, w.NOT_DETECTABLE),
        (OPEN | {"detectable": None}, w.NOT_DETECTABLE),
        (OPEN | {"beyond_low": 0.01}, w.NOT_DETECTABLE),
        (CLAIM | {"low": None, "high": None}, w.UNMEASURED),
    ],
)
def test_the_verdict_on_a_claim_takes_its_control_and_what_could_be_seen_into_account(row, verdict):
    assert w.claim_verdict(row) == verdict and verdict in w.VERDICTS


def test_the_worth_of_synthetic_images_is_readable():
    row = {"arm": "a", "value": 0.5, "low": 0.4, "high": 0.6, **ROW, "oracle": "b", "control": "c", "worth": 0.5,
           "worth_low": 0.2, "worth_high": 0.9, "beyond": 0.1, "beyond_low": 0.05, "beyond_high": 0.15}  # fmt: skip
    none = dict.fromkeys(("worth", "worth_low", "worth_high", "beyond", "beyond_low", "beyond_high"))
    rows = [row, row | none, row | none | {"oracle": None, "control": None}]
    table = w.readable(pl.DataFrame(rows))
    assert table.columns == ["arm", "value", "difference", "worth", "beyond its control"]
    assert table["worth"].to_list() == ["0.50 [0.20, 0.90]", w.UNMEASURABLE, ""]
    assert table["beyond its control"].to_list() == ["0.100 [0.050, 0.150]", "", ""]
