"""What a reader of a printed figure stumbles over: type too small, text cut off, text over text."""

from itertools import combinations
from unittest import mock

import numpy as np
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from chexgen_lib.figures import style

MARGIN = 2.0  # px at 200 dpi between text and the page's edge
GAP = 3.0  # px between texts side by side
TOUCH = 1.0  # px by which lines of text may overlap, which have room above and below


def faults(figure: Figure) -> list[str]:
    """Every fault of a figure at its printed size, in words; empty if it is legible."""
    texts = _drawn(figure)
    own = {id(text): legend for legend in _legends(figure) for text in legend.findobj(Text)}
    boxes = [text.get_window_extent() for text in texts]
    found = [f"{_short(t)}: {t.get_fontsize():.1f} pt" for t in texts if t.get_fontsize() < style.SMALL]
    found += [f"{_short(t)} is cut off" for t, box in zip(texts, boxes, strict=True) if not _inside(box, figure.bbox)]
    for (first, a), (second, b) in combinations(zip(texts, boxes, strict=True), 2):
        upright = first.get_rotation() == second.get_rotation() == 90
        if _overlap(a, b, upright) and not _parallel(first, second, figure.dpi):
            found.append(f"{_short(first)} overlaps {_short(second)}")
    legends = [(legend, legend.get_window_extent()) for legend in _legends(figure)]
    found += [f"the legend of {_short(legend.get_texts()[0])} is cut off"
              for legend, box in legends if not _inside(box, figure.bbox)]  # fmt: skip
    for legend, box in legends:
        within = [t for t, b in zip(texts, boxes, strict=True) if own.get(id(t)) is not legend and _overlap(box, b)]
        found += [f"{_short(text)} overlaps the legend of {_short(legend.get_texts()[0])}" for text in within]
    found += [f"legends of {_short(a.get_texts()[0])} and {_short(b.get_texts()[0])} overlap"
              for (a, x), (b, y) in combinations(legends, 2) if _overlap(x, y)]  # fmt: skip
    return found


def _drawn(figure: Figure) -> list[Text]:
    """The texts that are drawn: not the ticks outside a view, say."""
    drawn, draw = [], Text.draw

    def recorded(text, renderer, *args, **kwargs):
        if text.get_visible() and text.get_text().strip():
            drawn.append(text)
        return draw(text, renderer, *args, **kwargs)

    figure.set_dpi(200)
    with mock.patch.object(Text, "draw", recorded):
        figure.draw_without_rendering()
    return list({id(text): text for text in drawn}.values())


def _legends(figure: Figure) -> list[Legend]:
    return [legend for legend in figure.findobj(Legend) if legend.get_visible() and legend.get_texts()]


def _inside(box: Bbox, page: Bbox) -> bool:
    return bool(np.all(box.min >= page.min + MARGIN) and np.all(box.max <= page.max - MARGIN))


def _overlap(a: Bbox, b: Bbox, upright: bool = False) -> bool:
    along, across = (min(a.max[k], b.max[k]) - max(a.min[k], b.min[k]) for k in ((1, 0) if upright else (0, 1)))
    return along > -GAP and across > TOUCH


def _parallel(first: Text, second: Text, dpi: float) -> bool:
    """Whether two slanted texts lie beside each other, a line's height apart, though their upright boxes overlap."""
    angle = first.get_rotation()
    if angle % 90 == 0 or angle != second.get_rotation():
        return False
    ends = [text.get_transform().transform(text.get_unitless_position()) for text in (first, second)]
    across = np.array([-np.sin(np.radians(angle)), np.cos(np.radians(angle))])
    return abs((ends[0] - ends[1]) @ across) > first.get_fontsize() * dpi / 72


def _short(text: Text) -> str:
    return repr(text.get_text()[:40])
