"""A name says what an arm was trained on, in this run's tables and in the paper's."""

import pytest

from chexgen_lib.estimates.worth import Against
from chexgen_lib.experiments import arms
from chexgen_lib.experiments.arms import Arm, Role
from chexgen_lib.paper import published


def test_names_are_those_in_the_tables():
    names = arms.augmented(1), arms.augmented(2, "baseline"), arms.synthetic_alone(2), arms.shuffled(2)
    assert names == ("real + 1x", "real + 2x baseline", "2x alone", "real + 2x, shuffled")
    assert arms.pretrained(5) == "5x synthetic"


def test_a_name_is_read_back():
    assert arms.arm(arms.REAL) == Arm("real", Role.REAL)
    assert arms.arm(arms.augmented(1)) == Arm("real + 1x", Role.AUGMENTED, 1, arms.CHEXGEN)
    rival = arms.arm(arms.augmented(2, "baseline"))
    assert rival == Arm("real + 2x baseline", Role.AUGMENTED, 2, "baseline") and rival.other_generator
    assert arms.arm(arms.synthetic_alone(2)).role == Role.SYNTHETIC
    assert arms.arm(arms.shuffled(2)).control_of == arms.augmented(2)
    with pytest.raises(ValueError, match="'matched' is no arm"):
        arms.arm("matched")


def test_an_arm_is_held_against_new_real_images_and_its_control():
    names = [arms.REAL, arms.augmented(1), arms.augmented(2, "baseline"), arms.synthetic_alone(2), arms.oracle(2)]
    assert arms.arm(arms.oracle(2)) == Arm("real + 2x new real", Role.ORACLE, 2)
    held = arms.against(names)
    assert held == {
        "real + 1x": Against("real + 1x new real", "real + 1x, shuffled"),
        "real + 2x baseline": Against("real + 2x new real", "real + 2x"),
    }
    starts = arms.against_initialisations([arms.DEFAULT, "5x synthetic", "2x baseline", "5x new real"])
    assert list(starts) == ["5x synthetic", "2x baseline", "5x new real"]
    assert starts["5x synthetic"] == Against("5x new real", arms.LONGER, base=arms.LONGER)
    assert starts["2x baseline"] == Against("2x new real", "2x synthetic", base=arms.LONGER)
    assert starts["5x new real"] == Against(control=arms.LONGER) and arms.pretraining_copies("5x new real") == 0
    assert arms.pretraining_copies("2x baseline") == 0


@pytest.mark.parametrize("table", ["table6", "table7", "table8", "table9"])
def test_the_papers_arms_are_read_too(table):
    found = {name: arms.arm(name) for name in published.load(table)["arm"].unique()}
    assert found["real"].role == Role.REAL and found["real+2x ChexGen"].copies == 2
    assert not found["real+2x ChexGen"].other_generator
    assert all(arm.other_generator == ("RoentGen" in name) for name, arm in found.items())


def test_initialisations_say_how_many_images_they_were_pretrained_on():
    found = {name: arms.pretraining_copies(name) for name in published.load("fig4a")["arm"].unique()}
    assert found == {arms.IMAGENET: 0, "1x synthetic": 1, "5x synthetic": 5}
    assert arms.pretraining_copies(arms.DEFAULT) == arms.pretraining_copies(arms.LONGER) == 0
