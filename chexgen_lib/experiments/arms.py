"""Names of the arms of Figure 3 and of the initialisations of Figure 4: written and parsed in this module alone.

A name is the key of an arm in results, tables and CSV files; `arm` and `pretraining_copies` say what it means. The
paper's names ("real+2x ChexGen") are parsed likewise. `against` and `against_initialisations` say which arms are held
against which.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from chexgen_lib.estimates.worth import Against

# Arms of this run's generator do not name it ("real + 2x"), those of others do; the paper names both of its generators.
CHEXGEN, ROENTGEN = "ChexGen", "RoentGen"

REAL = "real"  # the real images alone: the reference of every difference


class Role(StrEnum):
    """What an arm of Figure 3 is trained on."""

    REAL = "real images"
    AUGMENTED = "real and synthetic images"
    SYNTHETIC = "synthetic images"
    ORACLE = "real images, and new real ones of other patients instead of synthetic ones"
    SHUFFLED = "real images, and synthetic ones with labels shuffled among them"


@dataclass(frozen=True)
class Arm:
    """An arm of Figure 3.

    Attributes:
        name: its key in results, tables and CSV files.
        role: what it is trained on.
        copies: synthetic images of each training record, or as many times as many new real images.
        generator: of the synthetic images; None where there are none.
        control_of: name of the arm that it is a control of, if any.
    """

    name: str
    role: Role
    copies: int = 0
    generator: str | None = None
    control_of: str | None = None

    @property
    def other_generator(self) -> bool:
        """Whether the synthetic images come from a generator other than ChexGen."""
        return self.generator not in (None, CHEXGEN)


def augmented(copies: int, generator: str = CHEXGEN) -> str:
    """Real images with `copies` synthetic ones of each: "real + 2x", "real + 2x RoentGen"."""
    return f"real + {copies}x" + ("" if generator == CHEXGEN else f" {generator}")


def synthetic_alone(copies: int) -> str:
    """`copies` synthetic images of each training record and no real one: "2x alone"."""
    return f"{copies}x alone"


def shuffled(copies: int) -> str:
    """As `augmented`, with labels shuffled among the synthetic images: "real + 2x, shuffled"."""
    return f"{augmented(copies)}, shuffled"


def oracle(copies: int) -> str:
    """As `augmented`, with new real images of other training patients: "real + 2x new real"."""
    return f"{REAL} + {copies}x new real"


def arm(name: str) -> Arm:
    """The arm of Figure 3 with this name, which may be one of the paper's.

    Raises:
        ValueError: if no arm is named so.
    """
    if name == REAL:
        return Arm(name, Role.REAL)
    if found := re.fullmatch(r"(\d+)x alone", name):
        return Arm(name, Role.SYNTHETIC, int(found[1]), CHEXGEN)
    if found := re.fullmatch(r"real \+ (\d+)x new real", name):
        return Arm(name, Role.ORACLE, int(found[1]))
    if found := re.fullmatch(r"real \+ (\d+)x, shuffled", name):
        return Arm(name, Role.SHUFFLED, int(found[1]), CHEXGEN, control_of=augmented(int(found[1])))
    if found := re.fullmatch(r"real ?\+ ?(\d+)x(?: ([\w.-]+))?", name):
        return Arm(name, Role.AUGMENTED, int(found[1]), found[2] or CHEXGEN)
    examples = (REAL, augmented(2), augmented(2, ROENTGEN), synthetic_alone(2), shuffled(2), oracle(2))
    raise ValueError(f"{name!r} is no arm: names are formed as {', '.join(map(repr, examples))}")


def against(names: Iterable[str]) -> dict[str, Against]:
    """What each arm with real and synthetic images is held against: new real images, and a control.

    The control has the same images with shuffled labels; that of another generator has as many images of ours.
    """
    found = {name: arm(name) for name in names}
    return {
        name: Against(oracle(a.copies), (augmented if a.other_generator else shuffled)(a.copies))
        for name, a in found.items()
        if a.role == Role.AUGMENTED
    }


# Initialisations of Figure 4

DEFAULT = "default initialisation"  # random weights: the reference of every difference
LONGER = "default, as many steps"  # random weights, fine-tuned for as many steps as the others take with pretraining
IMAGENET = "ImageNet"  # the paper's reference
RAD_DINO = "RAD-DINO"  # a network of its own
STARTS = {"random": DEFAULT, "imagenet": IMAGENET, "rad-dino": RAD_DINO}  # of `learners.starts` -> without pretraining
AS_MANY_STEPS = {DEFAULT: LONGER, IMAGENET: f"{IMAGENET}, as many steps"}  # reference -> `LONGER` from its weights


def reference_among(names: Iterable[str]) -> str:
    """The reference of all differences among some initialisations: default or ImageNet's weights."""
    return next(name for name in names if name in AS_MANY_STEPS)


def pretrained_from(start: str, copies: int) -> str:
    """As `pretrained`, from other weights than the reference's: "RAD-DINO + 5x synthetic"."""
    return f"{start} + {copies}x synthetic"


def pretrained(copies: int, generator: str = CHEXGEN) -> str:
    """Pretrained on `copies` synthetic images of each training record: "5x synthetic", "5x RoentGen"."""
    return f"{copies}x " + ("synthetic" if generator == CHEXGEN else generator)


def pretrained_on_real(copies: int) -> str:
    """As `pretrained`, on new real images of other training patients: "5x new real"."""
    return f"{copies}x new real"


def against_initialisations(names: Iterable[str], longer: str = LONGER) -> dict[str, Against]:
    """What each pretraining is held against: new real images, and as many steps on the real ones.

    Gains are taken from the latter: what pretraining owes to its steps is nothing that an image is worth. The control
    of another generator has as many images of ours.
    """
    held = {}
    for name in names:
        if not (found := re.fullmatch(r"(\d+)x ([\w.-]+|new real)", name)):
            continue
        k = int(found[1])
        if name == pretrained_on_real(k):
            held[name] = Against(control=longer)
        else:
            held[name] = Against(pretrained_on_real(k), longer if name == pretrained(k) else pretrained(k), base=longer)
    return held


def pretraining_copies(name: str) -> int:
    """ChexGen's images of each record that a reference start was pretrained on; 0 for all other initialisations."""
    found = re.fullmatch(r"(\d+)x synthetic", name)
    return int(found[1]) if found else 0
