"""The embedded cohort's contact sheet: each finding at three severities beside the patient without it."""

from collections.abc import Iterator

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from chexgen_lib.figures import style
from chexgen_lib.phantom import render as phantom
from chexgen_lib.records import FINDINGS, SEVERITIES

BOTH_SIDES = (
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Edema",
    "Support Devices",
)  # a second view, no sides
SHOWN = tuple(finding for finding in FINDINGS if finding != "No Finding")
COLUMNS = ("without", *(f"{severity} {n}" for n in (1, 2) for severity in SEVERITIES))


def make(size: int = 128, seed: int = 0) -> tuple[Figure, pl.DataFrame]:
    """Render and draw the sheet: a row per finding, the finding's mask outlined.

    Sided findings are shown on the patient's right (the image's left) and then left; those of both sides from the
    front and then from the side.

    Args:
        size: Pixels of a side.
        seed: Of the patients.

    Returns:
        The figure, and its table with the columns finding, view, side, severity, mask_area (share of the image) and
        mean_difference (grey level with minus without the finding, inside the mask).

    Raises:
        PhantomError: If the size cannot be rendered.
    """
    style.use()
    fig = Figure(figsize=(style.PAGE, 1.02 * len(SHOWN) + 0.3), layout="constrained")
    axes = fig.subplots(len(SHOWN), len(COLUMNS))
    rows = []
    for number, finding in enumerate(SHOWN):
        cells = list(_variants(finding))
        plain = {view: phantom.render(_record(finding, number, seed, view), size) for view in {c[0] for c in cells}}
        _show(axes[number, 0], plain[cells[0][0]].image)
        axes[number, 0].set_ylabel(finding.replace(" ", "\n", 1), fontsize=7)
        for ax, (view, side, severity) in zip(axes[number, 1:], cells, strict=True):
            radiograph = phantom.render(_record(finding, number, seed, view, side, severity), size)
            mask = radiograph.masks[finding]
            _show(ax, radiograph.image, mask)
            difference = (radiograph.image - plain[view].image)[mask].mean() if mask.any() else np.nan
            rows.append((finding, view, side, severity, float(mask.mean()), float(difference)))
            place = {"PA": "front", "LATERAL": "lateral"}[view] if finding in BOTH_SIDES else side
            ax.set_title(f"{place}, {severity}", fontsize=7, pad=2)
    axes[0, 0].set_title("without", fontsize=7, pad=2)
    columns = ("finding", "view", "side", "severity", "mask_area", "mean_difference")
    return fig, pl.DataFrame(rows, schema=columns, orient="row")


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


def _show(ax, image: np.ndarray, mask: np.ndarray | None = None) -> None:
    ax.imshow(image, cmap="gray", vmin=0, vmax=1)
    if mask is not None and mask.any() and not mask.all():
        ax.contour(mask, levels=[0.5], colors=style.ORANGE, linewidths=0.5)
    ax.set(xticks=[], yticks=[], frame_on=False)
