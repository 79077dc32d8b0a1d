import numpy as np
import pytest

from chexgen_lib.phantom import render as phantom
from chexgen_lib.records import FINDINGS


@pytest.fixture
def quick_pictures(monkeypatch):
    """Discs in place of rendered patients: the layouts, not the pictures, are under test."""

    def drawn(rows, size, workers):
        y, x = np.mgrid[:size, :size]
        lung, box = (y - size / 2) ** 2 + (x - size / 3) ** 2 < (size / 5) ** 2, dict(x=0.4, y=0.3, w=0.2, h=0.3)
        for row in rows:
            shown = [f for f in FINDINGS if row[f] == 1]
            masks = dict.fromkeys(("lungs", "heart", "ribs", *shown), lung)
            truth, grades = {f: int(f in shown) for f in FINDINGS}, dict.fromkeys(shown, 0.5)
            boxes = [{"finding": f} | box for f in shown]
            yield phantom.Radiograph((0.2 + 0.6 * lung).astype(np.float32), masks, boxes, grades, truth)

    monkeypatch.setattr(phantom, "render_many", drawn)
