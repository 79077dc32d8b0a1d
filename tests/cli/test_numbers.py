"""Numbers among the options are refused before anything begins, alike in every command."""

import pytest

from chexgen_lib.checks import check_count, check_weights
from chexgen_lib.cli import main as cli
from chexgen_lib.experiments.judge.reference import FEWEST

SAMPLE, EDIT, JUDGE = (["sample", "p.csv", "--out", "o"], ["edit", "f.csv", "--out", "o"], ["judge", "--out", "o"])
AUDIT = ["audit", "pool", "--training", "t", "--held-out", "h", "--out", "o"]
MAKE = ["readers", "make", "--cohort", "c", "--arm", "a=b", "--out", "o"]
SCORE, FILMS = ["readers", "score", "s"], ["counterfactuals", "score", "f"]
LEAST = [
    *((SAMPLE, f"--{name}", 1) for name in ("images-per-prompt", "steps", "batch-size")),
    *((JUDGE, f"--{name}", 1) for name in ("images-per-prompt", "steps", "batch-size", "classifier-steps")),
    *((JUDGE, f"--{name}", least) for name, least in (("prompts", FEWEST), ("resamples", 2), ("workers", 0))),
    *((command, "--seed", 0) for command in (JUDGE, AUDIT, MAKE, SCORE)),
    *((command, "--size", 1) for command in (AUDIT, MAKE)),
    (EDIT, "--steps", 1),
    (MAKE, "--cases", 1),
    (SCORE, "--resamples", 2),
    *((FILMS, option, least) for option, least in (("--probe-pairs", 2), ("--pairs", 2), ("--resamples", 2))),
    *((FILMS, option, least) for option, least in (("--size", 32), ("--workers", 0))),
]
OTHERS = [
    *((command, "--guidance", "nan", "a finite number") for command in (SAMPLE, JUDGE)),
    (EDIT, "--guidance", "nan", "a finite number above 0"),
    (SAMPLE, "--guidance", "inf", "a finite number"),
    (SAMPLE, "--control-scale", "much", "a finite number"),
    (SAMPLE, "--metadata-guidance", "age=nan", "a finite number"),
    *((MAKE, option, "nan", "a finite number") for option in ("--detect", "--power")),
    *((EDIT, "--strength", value, "above 0 and at most 1") for value in ("0", "nan", "1.5")),
    *((AUDIT, "--false-alarms", value, "a share above 0 and below 0.5") for value in ("0", "2", "few")),
]


@pytest.mark.parametrize(("command", "option", "least"), LEAST)
def test_a_whole_number_that_is_too_small_or_none_is_named_by_its_option(command, option, least, capsys):
    for value in (str(least - 1), "1.5", "many"):
        with pytest.raises(SystemExit, match="2"):
            cli.main([*command, option, value])
        words = f"argument {option}: must be a whole number of at least {least}, not {value!r}"
        assert capsys.readouterr().err.endswith(f"{words}\n")
    assert cli._parser().parse_args([*command, option, str(least)])


@pytest.mark.parametrize(("command", "option", "value", "wanted"), OTHERS)
def test_another_number_that_cannot_be_used_is_named_by_its_option(command, option, value, wanted, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main([*command, option, value])
    value = value.rpartition("=")[2]
    assert capsys.readouterr().err.endswith(f"argument {option}: must be {wanted}, not {value!r}\n")


def test_python_says_it_in_the_same_words():
    with pytest.raises(ValueError, match="steps must be a whole number of at least 1, not 0"):
        check_count("steps", 0)
    with pytest.raises(ValueError, match="guidance must be a finite number, not nan"):
        check_weights(guidance=float("nan"))
