"""The studio's panel in a notebook: two requests side by side, a walk, and the tray of what is kept.

from chexgen_lib.studio.panel import Studio
Studio()
"""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter

import ipywidgets as widgets
import numpy as np
from PIL import Image

from chexgen_lib.export.images import SUFFIXES
from chexgen_lib.models.foundation import SHIPPED
from chexgen_lib.records import SEVERITIES, SIDES
from chexgen_lib.studio.request import MIDLINE, PRESENT, VIEWS, WALKS, Finding, Request, walk
from chexgen_lib.studio.session import Session

LARGE, SMALL = 320, 160  # pixels on the screen
WIDE = widgets.Layout(width="360px")
NOTE = "Synthetic: no image shows a patient."


class FindingRow(widgets.HBox):
    """A finding, its side and its severity; the side is locked where the finding has none."""

    def __init__(self):
        narrow = widgets.Layout(width="104px")
        self.name = widgets.Dropdown(options=_options("no finding", PRESENT), layout=_width(150))
        self.side = widgets.Dropdown(options=_options("any side", SIDES), layout=narrow)
        self.severity = widgets.Dropdown(options=_options("any severity", SEVERITIES), layout=narrow)
        self.name.observe(self._lock, "value")
        self._lock()
        super().__init__([self.name, self.side, self.severity])

    def _lock(self, _=None) -> None:
        self.side.disabled = self.name.value in (None, *MIDLINE)
        self.severity.disabled = self.name.value is None

    @property
    def finding(self) -> Finding | None:
        """The finding as it is set, None for none."""
        if self.name.value is None:
            return None
        return Finding(self.name.value, None if self.side.disabled else self.side.value, self.severity.value)


class Controls(widgets.VBox):
    """All settings of one request.

    Args:
        changed: called after each change by hand.
        start: what they show at first.
        fixed: whether steps and guidance are the model's, so that they stay.
        rows: how many findings can be requested at once.
    """

    def __init__(self, changed: Callable[[], None], start: Request, fixed: bool = False, rows: int = 3):
        self.rows = [FindingRow() for _ in range(rows)]
        self.sex = _choice("sex", [("any", None), ("woman", "F"), ("man", "M")])
        self.age = widgets.IntSlider(60, 18, 95, description="age", continuous_update=False, layout=WIDE)
        self.aged = widgets.Checkbox(False, description="state the age", indent=True, layout=WIDE)
        self.view = _choice("view", _options("any", VIEWS))
        self.view.value = start.view
        self.words = widgets.Textarea(description="own words", placeholder="in place of all the above", layout=WIDE)
        self.words.continuous_update = False
        self.seed = widgets.IntText(start.seed, description="seed", layout=WIDE)
        most = max(50, start.steps)
        self.steps = widgets.IntSlider(start.steps, 2, most, description="steps", continuous_update=False, layout=WIDE)
        self.guidance = widgets.FloatSlider(
            start.guidance, min=1, max=8, step=0.5, description="guidance", continuous_update=False, layout=WIDE
        )
        self.steps.disabled = self.guidance.disabled = fixed
        settings = [self.sex, self.age, self.aged, self.view, self.words, self.seed, self.steps, self.guidance]
        for control in (*settings, *(part for row in self.rows for part in row.children)):
            control.observe(lambda _: changed(), "value")
        super().__init__([*self.rows, *settings])

    @property
    def request(self) -> Request:
        """The request as it is set; a finding that is chosen twice counts once."""
        findings = {row.finding.name: row.finding for row in self.rows if row.finding}
        return Request(
            findings=tuple(findings.values()),
            sex=self.sex.value,
            age=self.age.value if self.aged.value else None,
            view=self.view.value,
            words=self.words.value.strip() or None,
            seed=self.seed.value,
            steps=self.steps.value,
            guidance=self.guidance.value,
        )


class Side(widgets.VBox):
    """Controls, the image that they request, and a button to keep it.

    A change samples at once; a prompt that the model cannot read is told below the image, which then stays.
    """

    def __init__(self, title: str, session: Session, kept: Callable[[], None]):
        self.session, self.shown = session, session.start
        self.controls = Controls(self.refresh, session.start, fixed=session.pipeline.distilled_steps is not None)
        self.picture = widgets.Image(format="png", width=LARGE, height=LARGE)
        self.text = widgets.HTML(layout=widgets.Layout(width=f"{LARGE + 40}px"))
        keep = widgets.Button(description=f"keep {title}", icon="plus")
        keep.on_click(lambda _: (session.keep(self.shown), kept()))
        heading = widgets.HTML(f"<b>{title}</b>")
        super().__init__([heading, self.controls, self.picture, self.text, keep])
        self.refresh()

    def refresh(self) -> None:
        """Show what the controls request."""
        start, request = perf_counter(), self.controls.request
        try:
            image = self.session.sample(request)
        except ValueError as error:
            self.text.value = f"<b>{_escaped(str(error))}</b>"
            return
        self.shown, self.picture.value = request, png(image, LARGE)
        self.text.value = f"<i>{_escaped(request.prompt)}</i><br>{perf_counter() - start:.1f} s"


class Studio(widgets.VBox):
    """Two requests side by side, a walk along one attribute of A, and the tray of kept images with its export.

    Args:
        weights: as `session.Session` takes them.
    """

    def __init__(self, weights: str | Path = SHIPPED):
        self.session = Session(weights)
        self.a, self.b = (Side(title, self.session, self.show_kept) for title in "AB")
        self.attribute = widgets.Dropdown(options=list(WALKS), description="walk A along")
        self.go = widgets.Button(description="walk", icon="play")
        self.go.on_click(lambda _: self.walk())
        self.strip, self.tray = (widgets.HBox(layout=widgets.Layout(flex_flow="row wrap")) for _ in range(2))
        self.folder = widgets.Text("kept", description="folder")
        self.kind = widgets.Dropdown(options=list(SUFFIXES), description="format")
        self.save = widgets.Button(description="export kept", icon="download")
        self.save.on_click(lambda _: self.export())
        self.message = widgets.HTML(NOTE)
        rows = (
            [self.a, self.b],
            [self.attribute, self.go],
            [self.strip],
            [self.folder, self.kind, self.save],
            [self.tray],
        )
        wrapped = widgets.Layout(flex_flow="row wrap", grid_gap="12px")
        super().__init__([*(widgets.HBox(row, layout=wrapped) for row in rows), self.message])

    def walk(self) -> None:
        """Show A with each value of the chosen attribute."""
        try:
            requests = walk(self.a.controls.request, self.attribute.value)
            values = WALKS[self.attribute.value]
            images = [self.session.sample(request) for request in requests]
        except ValueError as error:
            self.message.value = f"<b>{_escaped(str(error))}</b>"
            return
        self.message.value = NOTE
        labels = ["not stated" if value is None else str(value) for value in values]
        self.strip.children = self._tiles(requests, images, labels, "keep")

    def show_kept(self) -> None:
        """Show what is kept, with buttons to let go of it."""
        kept = self.session.kept
        self.tray.children = self._tiles(kept, map(self.session.sample, kept), [r.prompt for r in kept], "let go")

    def export(self) -> None:
        """Write the kept images to the folder, and say where they are or what is wrong."""
        try:
            folder = self.session.export(self.folder.value, self.kind.value)
            self.message.value = f"{len(self.session.kept)} images and manifest.csv in {_escaped(str(folder))}. {NOTE}"
        except (ValueError, OSError) as error:
            self.message.value = f"<b>{_escaped(str(error))}</b>"

    def _tiles(self, requests: Sequence[Request], images, labels: Sequence[str], action: str) -> list[widgets.VBox]:
        """A small image for each request, with its label and a button that keeps it or lets go of it."""
        tiles = []
        for request, image, label in zip(list(requests), images, labels, strict=True):
            button = widgets.Button(description=action, layout=_width(SMALL))
            button.on_click(lambda _, request=request: self._toggle(request, action))
            text = widgets.HTML(f"<small>{_escaped(label)}</small>", layout=_width(SMALL))
            picture = widgets.Image(value=png(image, SMALL), format="png", width=SMALL, height=SMALL)
            tiles.append(widgets.VBox([picture, text, button]))
        return tiles

    def _toggle(self, request: Request, action: str) -> None:
        if action == "keep":
            self.session.keep(request)
        else:
            self.session.kept.remove(request)
        self.show_kept()


def png(image: np.ndarray, size: int) -> bytes:
    """uint8 [H, W] as a PNG of `size` x `size` pixels; only what is shown is enlarged, not what is kept."""
    buffer = io.BytesIO()
    Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC).save(buffer, format="PNG")
    return buffer.getvalue()


def _options(none: str, values: Sequence[str]) -> list[tuple[str, str | None]]:
    """Labels and values of a choice that may be left open."""
    return [(none, None), *((value, value) for value in values)]


def _choice(name: str, options: list) -> widgets.ToggleButtons:
    buttons = widgets.ToggleButtons(options=options, description=name)
    buttons.style.button_width = "auto"
    return buttons


def _width(pixels: int) -> widgets.Layout:
    return widgets.Layout(width=f"{pixels}px")


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
