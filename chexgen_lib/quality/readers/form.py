"""A study's folder: one self-contained HTML file for each reader, and the organiser's key.

    forms/READER.html   to send to the reader; works offline, from any folder
    key.json            what every item was: stays with the organiser
    answers/            for the files that the readers export (`answers.read`)

The page is assembled from `form_page`. It holds images by number in an order that is random for each reader, all of
one size, as 8-bit grey PNGs without any metadata and with base64 of one length; and items with opaque ids.
"""

import base64
import json
from importlib import resources
from io import BytesIO
from itertools import groupby
from pathlib import Path

import numpy as np
from PIL import Image

from chexgen_lib.quality.reader_study import ANCHORS
from chexgen_lib.quality.readers.design import Film, Item, Study
from chexgen_lib.quality.readers.material import Material
from chexgen_lib.records import FINDINGS
from chexgen_lib.storage import replacing, seed_of, write_json

PAGE = resources.files(__package__) / "form_page"
PAUSE = "You have seen these films before. Pause before you begin, by custom for two weeks; do not look back."
REALISM = {
    "title": "Real or synthetic?",
    "text": "You will see one radiograph at a time. Say whether it was taken of a patient or computed by a model.\n\n"
    "How many of either kind there are is not told.",
    "question": "Is this radiograph real or synthetic?",
    "options": [{"value": "real", "label": "Real"}, {"value": "synthetic", "label": "Synthetic"}],
    "films": ["Radiograph"],
}
PAIRS = {
    "title": "Which one is real?",
    "text": "You will see two radiographs, A and B. One was taken of a patient, the other computed by a model.",
    "question": "Which radiograph is real?",
    "options": [{"value": "A", "label": "A is real"}, {"value": "B", "label": "B is real"}],
    "films": ["A", "B"],
}
AGREEMENT = {
    "title": "Agreement with the report",
    "text": "You will see a radiograph and the impression of a report. Score how well the radiograph agrees with the "
    "report.\n\nThe same report comes back with other radiographs; score each by itself.",
    "question": "How well does the radiograph agree with the report?",
    "options": [{"value": str(k), "label": f"{f'{k:+d}' if k else '0'}: {text}"} for k, text in ANCHORS.items()],
    "films": ["Radiograph"],
}
ASSISTED = {
    "title": "Findings",
    "text": "You will see radiographs of patients. Tick every finding that is present, or No Finding.\n\nBeside some "
    "of them is a synthetic sample. It was requested to show what this patient has, and may or may not show it; "
    "answer for the patient's radiograph.",
    "question": "Which findings does the patient's radiograph show?",
    "options": [{"value": finding, "label": finding} for finding in FINDINGS],
    "films": ["Patient", "Synthetic sample"],
    "many": True,
}
BLOCKS = {"realism": REALISM, "pairs": PAIRS, "agreement": AGREEMENT, "assisted": ASSISTED}


def write(folder: Path, study: Study, material: Material, title: str, about: dict) -> None:
    """Write the forms and the key of a study into a new folder; it appears whole or not at all.

    Args:
        about: further settings for the key (folders of the arms, power).

    Raises:
        FileExistsError: if the folder exists: its forms may be with readers.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} exists, and its forms may be with readers: choose another folder")
    with replacing(folder) as partial:
        (partial / "forms").mkdir(parents=True)
        (partial / "answers").mkdir()
        films = _encoded(study, material)
        for reader in study.items:
            (partial / "forms" / f"{reader}.html").write_text(page(study, films, reader, title), encoding="utf-8")
        write_json(_key(study, title) | about, partial / "key.json")


def page(study: Study, films: dict[Film, str], reader: str, title: str) -> str:
    """The HTML of one reader's form; films: the images in base64."""
    items = study.items[reader]
    shown = sorted({film for item in items for film in item.images})
    order = np.random.default_rng(seed_of(f"{study.seed}:{reader}:films")).permutation(len(shown))
    shown = [shown[k] for k in order]
    place = {film: k for k, film in enumerate(shown)}
    texts = dict(study.cases.select("image_id", "prompt").iter_rows())
    blocks = []
    for (task, number), group in groupby(items, key=lambda item: (item.task, item.number)):
        block = dict(BLOCKS[task])
        if number > 1:
            block |= {"title": f"{block['title']} (again)", "text": f"{block['text']}\n\n{PAUSE}"}
        blocks.append(block | {"items": [_blinded(item, place, texts) for item in group]})
    data = {"study": study.study, "reader": reader, "title": title, "blocks": blocks}
    data["images"] = [films[film] for film in shown]
    parts = {"STYLE": "page.css", "VIEWER": "viewer.js", "FORM": "form.js"}
    html = (PAGE / "page.html").read_text(encoding="utf-8")
    for name, file in parts.items():
        html = html.replace(f"%{name}%", (PAGE / file).read_text(encoding="utf-8"))
    return html.replace("%STUDY%", json.dumps(data).replace("<", "\\u003c"))


def _blinded(item: Item, place: dict[Film, int], texts: dict[str, str]) -> dict:
    """What the page holds of an item."""
    shown = {"id": item.item, "images": [place[film] for film in item.images]}
    return shown | ({"text": texts[item.record]} if item.task == "agreement" else {})


def _encoded(study: Study, material: Material) -> dict[Film, str]:
    """(arm, record) -> base64 of its PNG, all of one length."""
    row = {record: k for k, record in enumerate(material.records["image_id"])}
    films = sorted({film for items in study.items.values() for item in items for film in item.images})
    encoded = {(arm, record): _base64_png(material.images[arm][row[record]]) for arm, record in films}
    longest = max(map(len, encoded.values()))
    return {film: text.ljust(longest) for film, text in encoded.items()}  # base64 ignores blanks at its end


def _base64_png(image: np.ndarray) -> str:
    """uint8 [H, W] -> base64 of a grey PNG that holds the pixels and nothing else."""
    file = BytesIO()
    Image.fromarray(image).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")


def _key(study: Study, title: str) -> dict:
    cases = study.cases.select("image_id", "patient_id", "group", "stratum", "prompt", *FINDINGS)
    items = {reader: [_unblinded(item) for item in items] for reader, items in study.items.items()}
    about = {"study": study.study, "title": title, "seed": study.seed}
    about |= {"tasks": list(study.tasks), "arms": list(study.arms)}
    return about | {"cases": cases.to_dicts(), "readers": items}


def _unblinded(item: Item) -> dict:
    about = {"item": item.item, "task": item.task, "pass": item.number, "case": item.record, "arm": item.arm}
    return about | ({"films": [arm for arm, _ in item.images]} if item.task == "pairs" else {})
