"""Invented patients for the stand-ins: what each shows, a radiologist's sentence about it, and the rendered picture."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import numpy as np

from chexgen_lib.phantom import render as phantom
from chexgen_lib.records import FINDINGS
from chexgen_lib.storage import seed_of

SIZE = 96  # px of a rendered picture; files are enlarged from it
RACES = ("White", "Black", "Asian")
WORDS = {  # of a finding in an impression
    "Enlarged Cardiomediastinum": "widened mediastinum",
    "Lung Lesion": "pulmonary nodule",
    "Effusion": "pleural effusion",
    "Edema": "pulmonary edema",
    "Pleural Other": "pleural thickening",
    "Fracture": "rib fracture",
    "Support Devices": "chest tube in place",
}


@dataclass(frozen=True)
class Case:
    """A patient with one radiograph.

    Attributes:
        number: 0, 1, ... within the stand-in.
        record: what `phantom.render` takes: ids, view, age, sex, findings, details.
        race: one of RACES.
        picture: the rendered radiograph, with masks, boxes and severity.
    """

    number: int
    record: dict[str, Any]
    race: str
    picture: phantom.Radiograph

    def has(self, finding: str) -> bool:
        """Whether the picture shows a finding."""
        return self.picture.truth[finding] == 1

    @property
    def findings(self) -> list[str]:
        """The findings that the picture shows, in order; "No Finding" where it shows none."""
        return [finding for finding in FINDINGS if self.has(finding)]

    @property
    def impression(self) -> str:
        """A sentence for each finding, with its severity and side; no two cases of a stand-in say the same."""
        said = [
            " ".join([d["severity"] or "", d["side"] or "", WORDS.get(d["finding"], d["finding"].lower())]).strip()
            for d in self.record["details"]
        ]
        text = ". ".join(sentence.capitalize() for sentence in said) or "No acute cardiopulmonary process"
        return f"{text}. Follow-up in {self.number + 2} weeks."


def cases(
    source: str, n: int, findings: Sequence[str], views: Sequence[str] = ("PA",), age: tuple[int, int] = (20, 89)
) -> list[Case]:
    """`n` cases of a stand-in: of every five, one shows nothing and one two findings; the findings take turns.

    The second is an effusion, where the dataset knows it, so that one finding is frequent.

    Args:
        source: name of the dataset; the cases are a function of it.
        findings: those that the dataset knows, without "No Finding".
        views: that take turns.
        age: youngest and oldest, years.
    """
    random = np.random.default_rng(seed_of(f"rehearsal:{source}"))
    turns = cycle(findings)
    second = "Effusion" if "Effusion" in findings else findings[0]
    rows = list(islice(_records(source, turns, second, views, age, random), n))
    pictures = phantom.render_many(rows, SIZE, workers=2)
    return [Case(i, row, RACES[i % 3], picture) for i, (row, picture) in enumerate(zip(rows, pictures, strict=True))]


def _records(
    source: str,
    turns: Iterator[str],
    second: str,
    views: Sequence[str],
    age: tuple[int, int],
    random: np.random.Generator,
) -> Iterator[dict[str, Any]]:
    for number, view in enumerate(cycle(views)):
        shown = [] if number % 5 == 0 else list(dict.fromkeys([next(turns), *[second] * (number % 5 == 4)]))
        details = [
            {
                "finding": finding,
                "side": str(random.choice(["left", "right"])) if finding in SIDED else None,
                "site": None,
                "severity": str(random.choice(["mild", "moderate", "severe"])) if finding in GRADED else None,
            }
            for finding in shown
        ]
        ids = dict.fromkeys(("image_id", "patient_id", "study_id"), f"{source}:{number}")
        about = {"source": source, "view": view, "age": int(random.integers(*age)), "sex": "FM"[number % 2]}
        states = {finding: float(finding in shown) for finding in FINDINGS}
        yield ids | about | states | {"No Finding": float(not shown), "details": details}


SIDED = ("Lung Opacity", "Lung Lesion", "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Effusion",
         "Pleural Other", "Fracture")  # fmt: skip
GRADED = (*SIDED[:7], "Cardiomegaly", "Edema")
