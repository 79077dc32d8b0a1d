"""One film's record with something changed: what is asked, and what must change with it so that the record stays true.

    changed(record, {"Effusion": {"side": "left", "severity": "severe"}})
    changed(record, {"age": 75})

What follows from a change of findings:

- a finding that is added ends "No Finding"; the last one that is removed begins it (support devices are no finding);
- consolidation, pneumonia, edema, atelectasis and a lesion are lung opacities: one that is added sets "Lung Opacity",
  and the last one that is removed takes it along;
- "No Finding" removes all findings, and leaves support devices;
- `details` and the source's `labels` of a finding go where it goes; texts, masks, boxes and scores of the film as it
  was (`STALE`) are emptied.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from chexgen_lib.descriptions import grammar
from chexgen_lib.descriptions.label_meaning import finding_of
from chexgen_lib.records import FINDINGS, MAX_AGE, OPACITIES, REQUIRED, SCHEMA, SEVERITIES, SIDES, VIEWS, conform

PATHOLOGIES = tuple(finding for finding in FINDINGS if finding not in ("No Finding", "Support Devices"))
CHOICES = {"sex": ("M", "F"), "view": VIEWS, "site": ("A", "B")}  # site: of acquisition, of the embedded cohort alone
ATTRIBUTES = ("age", *CHOICES, *FINDINGS)
PLACE = {"side": SIDES, "site": None, "severity": SEVERITIES}  # what a finding may be given; site: any text
STALE = {"report": None, "impression": None, "description": None, "description_origin": None, "qc": None} | {
    name: () for name in ("boxes", "severity")
}


class ChangeError(ValueError):
    """A change that a record cannot be given; the message names the record, the attribute and the remedy."""


def changed(record: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of `record` (a Record as a dict) in which `change` and what follows from it hold.

    Args:
        record: states every attribute that is changed, other than findings.
        change: attribute -> value: `age` in years, `sex`, `view`, `site` ("A", "B"), or a finding: 1, 0, or present
            with dict(side=, site=, severity=), each of which may be left out.

    Raises:
        ChangeError: for no change, an unknown attribute or value, one that the record does not state or already has,
            or changes that contradict each other.
    """
    name = f"record {record.get('image_id', '?')}"
    if not isinstance(change, Mapping) or not change:
        raise ChangeError(f"{name}: change {change!r} asks nothing: give a dict of attribute and value")
    for attribute, value in change.items():
        if attribute not in ATTRIBUTES:
            raise ChangeError(f"{name}: unknown attribute {attribute!r} to change: use one of {', '.join(ATTRIBUTES)}")
        if attribute in FINDINGS:
            _check_finding(name, record, attribute, value)
        else:
            _check_person(name, record, attribute, value)
    _check_together(name, record, change)
    new = dict(record) | {attribute: value for attribute, value in change.items() if attribute not in FINDINGS}
    if findings := {finding: value for finding, value in change.items() if finding in FINDINGS}:
        new |= _with_findings(record, findings)
    return new | {key: value if value is None else [] for key, value in STALE.items() if key in record}


def states(record: Mapping[str, Any]) -> dict[str, int]:
    """Each of the 14 findings as a film of the record shows it: 1, else 0; implied ones are added."""
    shown = {finding: int(record.get(finding) == 1) for finding in FINDINGS}
    shown["Lung Opacity"] = max(shown[finding] for finding in ("Lung Opacity", *OPACITIES))
    return shown | {"No Finding": int(not any(shown[finding] for finding in PATHOLOGIES))}


def prompts(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """The grammar's text of each record, as generators read it; ids may be left out, and set the wording alone."""
    rows = [dict.fromkeys(REQUIRED, "film") | {k: v for k, v in row.items() if k in SCHEMA} for row in records]
    return grammar.prompt(conform(pl.DataFrame(rows, schema_overrides=SCHEMA))).to_list()


def _check_person(name: str, record: Mapping, attribute: str, value: Any) -> None:
    known = CHOICES.get(attribute)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if known is None and not (number and 0 <= value <= MAX_AGE):
        raise ChangeError(f"{name}: age {value!r} is no number of years from 0 to {MAX_AGE}")
    if known is not None and value not in known:
        raise ChangeError(f"{name}: {attribute} {value!r} is none of {', '.join(known)}")
    if record.get(attribute) is None:
        raise ChangeError(f"{name}: its {attribute} is not known, so it cannot be changed: state it in the record")
    if record[attribute] == value:
        raise ChangeError(f"{name}: its {attribute} is {value!r} already: ask for another")


def _check_finding(name: str, record: Mapping, finding: str, value: Any) -> None:
    if finding in (record.get("uncertain") or ()):
        raise ChangeError(f"{name}: its {finding} is uncertain: state it as 1 or 0, and take it out of `uncertain`")
    if isinstance(value, Mapping):
        if unknown := [key for key in value if key not in PLACE]:
            raise ChangeError(f"{name}: {finding} has no {unknown[0]!r}: give some of {', '.join(PLACE)}")
        for key in ("side", "severity"):
            if value.get(key) not in (None, *PLACE[key]):
                raise ChangeError(f"{name}: {finding} {key} {value[key]!r} is none of {', '.join(PLACE[key])}")
        if finding in ("No Finding", "Cardiomegaly", "Enlarged Cardiomediastinum") and value.get("side"):
            raise ChangeError(f"{name}: {finding} has no side")
        if states(record)[finding] and [_detail(finding, value)] == _details(record, finding):
            raise ChangeError(f"{name}: its {finding} is {dict(value)} already: ask for another")
    elif value not in (0, 1):
        raise ChangeError(f"{name}: {finding} {value!r} is none of 1, 0 and dict(side=, site=, severity=)")
    elif states(record)[finding] == value:
        said = "present" if value else "not present"
        raise ChangeError(f"{name}: {finding} is {said} already: ask for another change")


def _check_together(name: str, record: Mapping, change: Mapping) -> None:
    asked = {finding: bool(value != 0) for finding, value in change.items() if finding in FINDINGS}
    after = states(record) | asked
    if asked.get("No Finding") is False and not any(asked.get(finding) for finding in PATHOLOGIES):
        raise ChangeError(f"{name}: No Finding can only end by a finding: name the one that is to be added")
    added = [finding for finding in PATHOLOGIES if asked.get(finding)]
    if asked.get("No Finding") and added:
        raise ChangeError(f"{name}: No Finding contradicts {added[0]}: ask for one of them")
    named = [finding for finding in OPACITIES if after[finding]]
    if asked.get("Lung Opacity") is False and named:
        raise ChangeError(f"{name}: no Lung Opacity contradicts {named[0]}, which is one: change that")


def _with_findings(record: Mapping, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The findings, details and labels of a record after a change of its findings."""
    before = states(record)
    after = before | {finding: int(value != 0) for finding, value in asked.items()}
    if asked.get("No Finding"):
        after |= dict.fromkeys(PATHOLOGIES, 0)
    named = [finding for finding in OPACITIES if after[finding]]
    removed = [finding for finding in OPACITIES if before[finding] and not after[finding]]
    if named:
        after["Lung Opacity"] = 1
    elif removed and not asked.get("Lung Opacity"):
        after["Lung Opacity"] = 0
    after["No Finding"] = int(not any(after[finding] for finding in PATHOLOGIES))
    # What stays as it was stays unknown where it was unknown.
    new = {f: float(after[f]) for f in FINDINGS if f in asked or after[f] != before[f]}
    gone = {finding for finding in FINDINGS if finding in asked or (before[finding] and not after[finding])}
    details = [detail for detail in record.get("details") or () if detail.get("finding") not in gone]
    details += [_detail(finding, value) for finding, value in asked.items() if isinstance(value, Mapping)]
    labels = [label for label in record.get("labels") or () if _means(label) not in {*gone, *new}]
    return new | {"details": details, "labels": labels}


def _means(label: str) -> str | None:
    return label if label in FINDINGS else finding_of(label)


def _detail(finding: str, value: Mapping) -> dict[str, str | None]:
    return {"finding": finding} | {key: value.get(key) for key in PLACE}


def _details(record: Mapping, finding: str) -> list[dict]:
    own = [detail for detail in record.get("details") or () if detail.get("finding") == finding]
    return [{key: detail.get(key) for key in ("finding", *PLACE)} for detail in own]
