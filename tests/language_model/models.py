"""Models against a server on this machine, and records with facts that are easy to recognise."""

from pathlib import Path

import polars as pl

from chexgen_lib import records
from chexgen_lib.language_model.protocol import Endpoint
from chexgen_lib.language_model.writer import LanguageModel

FAULTLESS: dict[str, float] = {}

PRESENT = ["Edema", "Cardiomegaly", "Effusion", "Atelectasis", "Pneumothorax"]


def cohort(n: int, **columns: object) -> pl.DataFrame:
    """`n` records with distinct facts, identifiers that are easy to recognise, and the columns given."""
    rows = [
        {
            "image_id": f"clinic:IMG{i:07d}",
            "source": "clinic",
            "patient_id": f"clinic:PAT{i:07d}",
            "study_id": f"clinic:STU{i:07d}",
            "image": f"folder/IMG{i:07d}.png",
            "view": ("PA", "AP", "LATERAL")[i % 3],
            "age": float(20 + i % 70),
            "sex": "FM"[i // 70 % 2],
            PRESENT[i // 140 % 5]: 1.0,
            "Fracture": 0.0,
            **columns,
        }
        for i in range(n)
    ]
    return records.validate(pl.DataFrame(rows, infer_schema_length=None))


def endpoint(url: str, name: str = "writer", **settings: object) -> Endpoint:
    return Endpoint(name, base_url=url, **{"concurrency": 8, "timeout": 5.0} | settings)


def model(url: str, folder: Path, budget: float | None = None, with_report: bool = False, **settings) -> LanguageModel:
    """A model that reviews its own texts; settings are the endpoint's."""
    cache = folder / "answers.sqlite"
    return LanguageModel(endpoint(url, **settings), cache=cache, budget=budget, with_report=with_report)


def two_models(url: str, folder: Path, **settings: object) -> LanguageModel:
    return LanguageModel(endpoint(url, **settings), endpoint(url, "reviewer"), cache=folder / "answers.sqlite")
