"""Each finding at three severities and on both sides, beside the same patient without it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from chexgen_lib.phantom import render as phantom
from chexgen_lib.records import FINDINGS, SEVERITIES
from chexgen_lib.storage import read_arrays

BOTH_SIDES = ("Enlarged Cardiomediastinum", "Cardiomegaly", "Edema", "Support Devices")  # a second view, no sides
SHOWN = tuple(finding for finding in FINDINGS if finding != "No Finding")


def render_sheet(folder: Path, size: int = 128, seed: int = 0) -> None:
    """Render the sheet's pictures and fill `folder` (for `kept.kept`).

    Sided findings are shown on the patient's right (the image's left) and then left; those of both sides from the
    front and then from the side.

    Writes `pictures.npz` (`without` [13, S, S] and `images` [13, 6, S, S] in 0 to 1, `masks` [13, 6, S, S]) and
    `table.csv`: finding, view, side, severity, mask_area (share of the image) and mean_difference (grey level with
    minus without the finding, inside the mask).

    Args:
        size: pixels of a side.
        seed: of the patients.

    Raises:
        PhantomError: if the size cannot be rendered.
    """
    without, images, masks, rows = [], [], [], []
    for number, finding in enumerate(SHOWN):
        cells = list(_variants(finding))
        plain = {view: phantom.render(_record(finding, number, seed, view), size) for view in {c[0] for c in cells}}
        without.append(plain[cells[0][0]].image)
        for view, side, severity in cells:
            radiograph = phantom.render(_record(finding, number, seed, view, side, severity), size)
            mask = radiograph.masks[finding]
            images.append(radiograph.image)
            masks.append(mask)
            difference = (radiograph.image - plain[view].image)[mask].mean() if mask.any() else np.nan
            rows.append((finding, view, side, severity, float(mask.mean()), float(difference)))
    shape = (len(SHOWN), -1, size, size)
    pictures = {"images": np.stack(images).reshape(shape), "masks": np.stack(masks).reshape(shape)}
    np.savez_compressed(folder / "pictures.npz", without=np.stack(without), **pictures)
    columns = ("finding", "view", "side", "severity", "mask_area", "mean_difference")
    pl.DataFrame(rows, schema=columns, orient="row").write_csv(folder / "table.csv")


def load_sheet(folder: Path) -> tuple[dict[str, np.ndarray], pl.DataFrame]:
    """The pictures and the table of a folder that `render_sheet` filled."""
    return read_arrays(folder / "pictures.npz"), pl.read_csv(folder / "table.csv", glob=False)


def _variants(finding: str) -> Iterator[tuple[str, str, str]]:
    """View, side and severity of a finding's six pictures."""
    both = finding in BOTH_SIDES
    for view, side in (("PA", "bilateral"), ("LATERAL", "bilateral")) if both else (("PA", "right"), ("PA", "left")):
        for severity in SEVERITIES:
            yield view, side, severity


def _record(
    finding: str, number: int, seed: int, view: str, side: str | None = None, severity: str | None = None
) -> dict:
    """One patient a finding; without `side`, the same radiograph without the finding."""
    detail = dict(finding=finding, side=side, site=None, severity=severity)
    return dict(
        image_id=f"contact sheet {seed} {finding}",
        patient_id=f"contact sheet {seed} {finding}",
        source="contact sheet",
        site="AB"[number % 2],
        view=view,
        age=40.0 + 3 * number,
        sex="MF"[number // 2 % 2],
        details=[] if side is None else [detail],
        **({} if side is None else {finding: 1}),
    )
