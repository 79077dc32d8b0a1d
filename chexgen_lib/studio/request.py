"""What a person requests of the generator: findings, patient and view as a description, and how it is sampled."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import polars as pl

from chexgen_lib.descriptions import grammar
from chexgen_lib.records import FINDINGS, FRONTAL, SEVERITIES, SIDES, conform

PRESENT = FINDINGS[1:]  # all but "No Finding"
MIDLINE = ("Enlarged Cardiomediastinum", "Cardiomegaly", "Support Devices")  # have no side
VIEWS = tuple(view for view in FRONTAL if view != "FRONTAL")
# Values that a walk goes through; None: not stated.
WALKS: Mapping[str, tuple] = {
    "age": (20, 35, 50, 65, 80, 95),
    "sex": ("F", "M"),
    "view": VIEWS,
    "severity": (None, *SEVERITIES),
    "side": SIDES,
    "guidance": (1.0, 1.5, 2.0, 3.0, 4.0, 6.0),
    "steps": (5, 10, 20, 40),
    "seed": tuple(range(6)),
}


@dataclass(frozen=True)
class Finding:
    """A finding (of `PRESENT`) with what is stated of it; ValueError for a side where there is none."""

    name: str
    side: str | None = None
    severity: str | None = None

    def __post_init__(self):
        for value, allowed in ((self.name, PRESENT), (self.side, (None, *SIDES)), (self.severity, (None, *SEVERITIES))):
            if value not in allowed:
                raise ValueError(f"{value!r} is none of {', '.join(filter(None, allowed))}")
        if self.side and self.name in MIDLINE:
            raise ValueError(f"{self.name} has no side: leave it out")


@dataclass(frozen=True)
class Request:
    """One image to sample.

    Attributes:
        findings: none for a radiograph without findings.
        sex: "M" or "F".
        age: in years.
        view: of `VIEWS`.
        words: a prompt of one's own, in place of the description of all the above.
        seed: of the noise: two requests of one seed differ only in what they ask for.
        steps: of the sampler.
        guidance: weight of classifier-free guidance; 1 is none.
    """

    findings: tuple[Finding, ...] = ()
    sex: str | None = None
    age: int | None = None
    view: str | None = "PA"
    words: str | None = None
    seed: int = 0
    steps: int = 20
    guidance: float = 2.0

    @property
    def prompt(self) -> str:
        """What the generator reads: `words`, or the description in the style that it was trained on."""
        return self.words or _description(self)

    def recipe(self) -> dict[str, Any]:
        """All of it as JSON values; `controls` holds as a text what the prompt was written from."""
        sampling = {"seed": self.seed, "steps": self.steps, "guidance": self.guidance}
        controls = {name: value for name, value in asdict(self).items() if name not in sampling}
        return {"prompt": self.prompt, **sampling, "controls": json.dumps(controls)}


def _description(request: Request) -> str:
    """The grammar's description of a record of the request; its id, and so the wording, is always the same."""
    states = {finding.name: 1.0 for finding in request.findings} or {FINDINGS[0]: 1.0}
    details = [
        {"finding": finding.name, "side": finding.side, "site": None, "severity": finding.severity}
        for finding in request.findings
        if finding.side or finding.severity
    ]
    ids = {"image_id": "studio:0", "source": "studio", "patient_id": "studio:0", "study_id": "studio:0"}
    person = {"sex": request.sex, "age": request.age, "view": request.view}
    return grammar.prompt(conform(pl.DataFrame([ids | person | states | {"details": details}])))[0]


def walk(request: Request, attribute: str) -> list[Request]:
    """The request with each value of one attribute (of `WALKS`), all else equal.

    Side and severity are those of the first finding.

    Raises:
        ValueError: for an attribute that is none, a side or severity without a finding, or one of a description that
            one's own words replace.
    """
    if attribute not in WALKS:
        raise ValueError(f"{attribute!r} is none of {', '.join(WALKS)}")
    if request.words and attribute not in ("seed", "steps", "guidance"):
        raise ValueError(f"the prompt is in your own words, which {attribute} does not change: clear them")
    if attribute not in ("side", "severity"):
        return [replace(request, **{attribute: value}) for value in WALKS[attribute]]
    if not request.findings:
        raise ValueError(f"{attribute} is that of a finding: choose one")
    first, *others = request.findings
    return [replace(request, findings=(replace(first, **{attribute: value}), *others)) for value in WALKS[attribute]]
