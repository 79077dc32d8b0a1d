"""The page holds all that it needs and nothing that tells what an item is."""

import base64
import json
import re
import struct
from collections import Counter
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chexgen_lib.quality.readers import answers, form


def content(study, reader="A") -> dict:
    html = (study / f"forms/{reader}.html").read_text()
    return json.loads(re.search(r'id="study">(.*?)</script>', html, re.DOTALL)[1])


def chunks(png: bytes) -> list[bytes]:
    found, at = [], 8
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        found.append(png[at + 4 : at + 8])
        at += 12 + length
    return found


def test_nothing_names_an_arm_a_record_or_a_folder(study, folders):
    key = answers.read_key(study)
    html = (study / "forms/A.html").read_text()
    page = html.replace(json.dumps(content(study)["images"]), "")
    hidden = [
        "ours",
        *map(str, folders.values()),
        *(item["arm"] for item in key["readers"]["A"] if len(item["arm"]) > 5),
    ]
    hidden += [case[name] for case in key["cases"] for name in ("image_id", "patient_id")]
    assert [text for text in hidden if text in page] == []
    for block in content(study)["blocks"]:
        assert set(block) <= {"title", "text", "question", "options", "films", "many", "items"}
        assert all(set(item) <= {"id", "images", "text"} for item in block["items"])


def test_images_hold_pixels_alone_and_look_alike_from_outside(study, shown):
    images = content(study)["images"]
    assert len({len(text) for text in images}) == 1
    for text in images:
        png = base64.b64decode(text.strip())
        assert set(chunks(png)) == {b"IHDR", b"IDAT", b"IEND"}
        with Image.open(BytesIO(png)) as image:
            assert image.size == (32, 32) and image.mode == "L" and image.info == {}


def test_items_show_the_images_of_the_key(study, shown):
    key, page = answers.read_key(study), content(study)
    row = {record: k for k, record in enumerate(shown.records["image_id"])}
    items = {item["item"]: item for item in key["readers"]["A"]}
    texts = {case["image_id"]: case["prompt"] for case in key["cases"]}
    for block in page["blocks"]:
        for item in block["items"]:
            told = items.pop(item["id"])
            arms = {"pairs": told.get("films"), "assisted": ["real", told["arm"]]}.get(told["task"], [told["arm"]])
            arms = [arm for arm in arms if arm != "alone"]
            for arm, place in zip(arms, item["images"], strict=True):
                png = base64.b64decode(page["images"][place].strip())
                pixels = np.asarray(Image.open(BytesIO(png)))
                assert (pixels == shown.images[arm][row[told["case"]]]).all()
            assert item.get("text") == (texts[told["case"]] if told["task"] == "agreement" else None)
    assert items == {}


def test_the_place_of_an_image_says_nothing(study):
    """Neither its number nor how often it is used tells a real image from a sample."""
    key = answers.read_key(study)
    arm = {item["item"]: item["arm"] for item in key["readers"]["A"]}
    blocks = content(study)["blocks"][:1]  # realism
    places = {"real": [], "ours": [], "other": []}
    for item in (item for block in blocks for item in block["items"]):
        places[arm[item["id"]]] += item["images"]
    middle = {name: np.mean(at) / len(content(study)["images"]) for name, at in places.items()}
    assert all(0.25 < value < 0.75 for value in middle.values()), middle
    of_task = {item["item"]: item["task"] for item in key["readers"]["A"]}
    used = Counter(
        place
        for block in content(study)["blocks"]
        for item in block["items"]
        if of_task[item["id"]] in ("realism", "agreement")
        for place in item["images"]
    )
    assert set(used.values()) == {3}  # two passes and one score, whatever it is
    paired = Counter(
        p for b in content(study)["blocks"] for i in b["items"] if of_task[i["id"]] == "pairs" for p in i["images"]
    )
    assert set(paired.values()) == {2}


def test_the_page_loads_nothing_from_elsewhere(study):
    html = (study / "forms/A.html").read_text()
    assert (
        not re.search(r"(?:src|href)\s*=\s*[\"'](?!data:)", html)
        and not re.search("https?:", html)
        and "%STUDY%" not in html
    )
    assert "default-src 'none'" in html and html.count("</script>") == 3
    assert "Report" in html and "& more." in html


def test_readers_have_different_pages_and_a_study_is_not_overwritten(study, shown, tmp_path):
    assert content(study, "A")["images"] != content(study, "B")["images"]
    assert content(study, "A")["study"] == content(study, "B")["study"] == answers.read_key(study)["study"]
    with pytest.raises(FileExistsError, match="another folder"):
        form.write(study, None, shown, "Demo", {})


def test_the_page_is_part_of_the_package(root: Path):
    import tomllib

    patterns = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["*"]
    suffixes = {path.suffix for path in (root / "chexgen_lib/quality/readers/form_page").iterdir()}
    assert {f"*{suffix}" for suffix in suffixes} <= set(patterns)
