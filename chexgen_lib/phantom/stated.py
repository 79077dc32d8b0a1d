"""Records that state what their radiographs show.

Where a record leaves a finding's side or severity open, the renderer draws them from the image's seed
(`findings.plan`): so they are known, without rendering, and a generator can be told.
"""

from collections.abc import Mapping
from typing import Any

import polars as pl

from chexgen_lib.phantom.findings import EXTENT, MIDLINE, RENDER, plan
from chexgen_lib.records import FINDINGS, OPACITIES

SIDELESS = (*MIDLINE, "Edema")  # of these the severity alone; devices have neither
READ = ["image_id", *FINDINGS, "uncertain", "details"]


def stated(records: pl.DataFrame) -> pl.DataFrame:
    """Records whose `details` have the side and the severity of each finding that is rendered.

    What a record gives stays as it is, and so does a finding with several places.
    """
    details = [_details(record) for record in records.select(READ).iter_rows(named=True)]
    return records.with_columns(pl.Series("details", details, records.schema["details"]))


def _details(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    given = record["details"] or []
    of = {finding: [detail for detail in given if detail["finding"] == finding] for finding in RENDER}
    for finding, own in of.items():
        if record[finding] == 1 and len(own) < 2 and finding != "Support Devices" and not _renamed(record, finding):
            of[finding] = [_completed(dict(record), finding, own[0] if own else {"finding": finding, "site": None})]
    return [detail for own in of.values() for detail in own] + [d for d in given if d["finding"] not in RENDER]


def _completed(record: dict[str, Any], finding: str, detail: Mapping[str, Any]) -> dict[str, Any]:
    places = plan(record, finding)
    drawn = min(EXTENT, key=lambda severity: abs(EXTENT[severity] - places[0]["extent"]))
    side = None if finding in SIDELESS else places[0]["side"] if len(places) == 1 else "bilateral"
    return {**detail, "side": detail.get("side") or side, "severity": detail.get("severity") or drawn}


def _renamed(record: Mapping[str, Any], finding: str) -> bool:
    """Whether a lung opacity may be rendered as another finding, which has the place."""
    return finding == "Lung Opacity" and any(
        record[other] == 1 or other in (record["uncertain"] or ()) for other in OPACITIES
    )
