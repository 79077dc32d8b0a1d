"""A small cohort, samples of it, and readers who answer by a rule."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from chexgen_lib.images import from_uint8, write_png
from chexgen_lib.quality.readers import answers, design, form, material
from chexgen_lib.records import FINDINGS

CASES = ("Effusion", "Edema", "Cardiomegaly", "No Finding")


@pytest.fixture(scope="session")
def folders(tmp_path_factory) -> dict[str, Path]:
    """A cohort of 64 patients at 32 and 64 px, samples of a run, and a folder of another generator's, without one."""
    root, rng = tmp_path_factory.mktemp("run"), np.random.default_rng(0)
    ids = [f"src:{i:03d}" for i in range(64)]
    table = {"image_id": ids, "patient_id": [f"src:p{i}" for i in range(64)]}
    table |= {"prompt": [f"Report {i} </script> & more." for i in range(64)]}
    table |= {f: [float(CASES[i % 4] == f) if f in CASES else None for i in range(64)] for f in FINDINGS}
    images = rng.integers(0, 256, (3, 64, 64, 64), np.uint8)
    for name in ("cohort", "synthesis", "other"):
        (root / name).mkdir()
    cohort = pl.DataFrame(table, schema_overrides=dict.fromkeys(FINDINGS, pl.Float32))
    cohort.write_parquet(root / "cohort/cohort.parquet")
    np.save(root / "cohort/images_64.npy", images[0])
    np.save(root / "cohort/images_32.npy", images[0][:, ::2, ::2])
    np.save(root / "synthesis/samples.npy", np.stack([images[1], images[2]], 1))  # two of each record
    cohort.select("image_id", "prompt").write_parquet(root / "synthesis/manifest.parquet")
    labels = ["image,image_id", *(f"{i}.png,{name}" for i, name in enumerate(ids[:-1]))]
    (root / "other/labels.csv").write_text("\n".join(labels) + "\n")
    for i in range(63):
        write_png(root / f"other/{i}.png", from_uint8(images[2][i]))
    return {name: root / name for name in ("cohort", "synthesis", "other")}


@pytest.fixture(scope="session")
def shown(folders) -> material.Material:
    return material.load(folders["cohort"], {"ours": folders["synthesis"], "other": folders["other"]}, 32)


@pytest.fixture
def study(shown, tmp_path) -> Path:
    """The folder of a study with all tasks and two readers."""
    made = design.make(shown, design.TASKS, ["A", "B"], 8, seed=5)
    form.write(tmp_path / "study", made, shown, "Demo", {})
    return tmp_path / "study"


@pytest.fixture(scope="session")
def fill() -> Callable:
    """Write the file that a reader's form would export: `answer` gives the answer to an item of the key."""

    def write(study: Path, reader: str, answer: Callable[[dict], str]) -> Path:
        key = answers.read_key(study)
        rows = []
        for item in key["readers"][reader]:
            given = answer(item)
            check = answers.check(key["study"], reader, item["item"], given, 3)
            rows.append({"item": item["item"], "answer": given, "seconds": 3, "check": check})
        content = {"format": answers.FORMAT, "study": key["study"], "reader": reader, "answers": rows}
        path = study / "answers" / f"{reader}.json"
        path.write_text(json.dumps(content))
        return path

    return write


@pytest.fixture(scope="session")
def obvious() -> Callable[[dict], str]:
    """Answers of a reader who always says the same."""
    same = {"realism": "real", "pairs": "A", "agreement": "1", "assisted": "Edema;Effusion"}
    return lambda item: same[item["task"]]
