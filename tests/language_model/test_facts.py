"""What leaves the machine: the facts of a record, and no identifier."""

import json

from chexgen_lib.language_model.facts import MASK, Facts, project
from tests.language_model.models import cohort, model


def test_identifiers_never_leave(server, tmp_path):
    """No part of an id, path or date is in any request, wherever the record holds it."""
    secret = ["0000001", "IMG", "PAT", "STU", "folder", "2019-03-04", "4/3/19", "clinic", "02aa804e"]
    words = "Seen 2019-03-04 and 4/3/19 as PAT0000001, film 02aa804e-bde0afdd."
    df = cohort(3, report=words, impression="Edema.", race="White 0000001", labels=["hernia IMG0000001", "kyphosis"])
    llm = model(server.url, tmp_path, with_report=True)
    llm.describe(df)
    assert len(server.bodies) >= 6
    for body in server.bodies:
        assert not [s for s in secret if s in body]
        assert "kyphosis" in body and MASK in body and "Seen" in body


def test_only_the_declared_fields_are_sent(server, tmp_path):
    model(server.url, tmp_path).describe(cohort(2, report="A secret.", split="train"))
    for body in server.bodies:
        data = json.loads(body.removeprefix("<data>\n").removesuffix("\n</data>"))
        facts = Facts.model_validate(data["facts"])  # closed to other fields
        assert facts.report is None and "secret" not in body
        assert set(data) <= {"nonce", "facts", "description", "faults"}


def test_facts_are_the_records():
    details = [{"finding": "Effusion", "side": "left", "site": "base", "severity": "mild"}]
    labels = ["Pleural Effusion", "kyphosis"]
    df = cohort(1, labels=labels, details=details, Effusion=1.0, Pneumonia=None, uncertain=["Pneumonia"], age=0.4)
    facts = Facts.model_validate_json(project(df)[0])
    effusion = next(item for item in facts.present if item.name == "pleural effusion")
    assert effusion.places[0].model_dump() == {"side": "left", "site": "base", "severity": "mild"}
    assert [item.name for item in facts.other] == ["kyphosis"]
    assert (facts.age, facts.sex, facts.absent, facts.normal) == (0, "female", ("fracture",), False)
    assert "pneumonia" not in facts.model_dump_json().lower()
