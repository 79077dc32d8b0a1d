"""Metadata becomes the tokens that it says and no others; what cannot be is refused by name."""

import math
from pathlib import Path

import polars as pl
import pytest
import torch

from chexgen_lib.models.metadata import (
    ATTRIBUTES,
    CODES,
    MetadataEncoder,
    MetadataError,
    drop_attributes,
    encode_metadata,
    encode_records,
    keep_attributes,
)
from chexgen_lib.models.transformer import ChexGenTransformer
from chexgen_lib.records import FINDINGS, conform

SOURCES = ("nih", "openi")
IDS = ("image_id", "patient_id", "study_id")
PERSON = {"age": 54, "sex": "F", "view": "AP", "source": "openi", "Effusion": 1, "Edema": "absent", "Pneumonia": None}


def code(row, name, sources=SOURCES):
    return encode_metadata([row], sources)[0, ATTRIBUTES.index(name)].item()


def test_codes_say_what_is_given_and_nothing_else():
    codes = encode_metadata([PERSON, {}], SOURCES)
    assert codes.shape == (2, CODES) and codes[1].isnan().all()
    given = {name for name, x in zip(ATTRIBUTES, codes[0].tolist(), strict=False) if not math.isnan(x)}
    assert given == {"age", "sex", "view", "source", "Effusion", "Edema"}
    assert [code(PERSON, name) for name in ("age", "source", "Effusion", "Edema")] == [54, 1, 1, 0]
    assert code({"Effusion": True}, "Effusion") == code({"Effusion": "present"}, "Effusion") == 1
    assert math.isnan(code({"age": math.nan}, "age")) and code({"age": 0}, "age") == 0


def test_the_source_of_a_record_that_a_model_does_not_know_is_not_given():
    records = conform(pl.DataFrame([{**dict.fromkeys(IDS, name), "source": name, "sex": "F"} for name in SOURCES]))
    codes, place = encode_records(records, ["openi"]), ATTRIBUTES.index("source")
    assert codes[0, place].isnan() and codes[1, place] == 0
    assert (codes[:, ATTRIBUTES.index("sex")] == 0).all()


def test_a_record_is_read_as_it_is():
    record = conform(
        pl.DataFrame(
            {
                **{"image_id": ["openi:1"], "source": ["openi"], "patient_id": ["openi:1"], "study_id": ["openi:1"]},
                **{"age": [54.0], "sex": ["F"], "view": ["AP"], "Effusion": [1.0], "Edema": [0.0], "race": ["x"]},
                "details": [
                    [
                        {"finding": "Effusion", "side": "left", "site": None, "severity": "mild"},
                        {"finding": "Effusion", "side": "right", "site": None, "severity": "severe"},
                        {"finding": "Fracture", "side": "left", "site": None, "severity": None},  # uncertain
                        {"finding": "old clip", "side": None, "site": None, "severity": None},  # another label
                    ]
                ],
            }
        )
    ).row(0, named=True)
    details = [{"finding": "Effusion", "side": "bilateral", "severity": "severe"}]
    expected = encode_metadata([{**PERSON, "details": details}], SOURCES)
    torch.testing.assert_close(encode_metadata([record], SOURCES), expected, equal_nan=True)
    assert (~expected[0, len(ATTRIBUTES) :].isnan()).sum() == 2


@pytest.mark.parametrize(
    "row, message",
    [
        ({"age": "54"}, "age '54' is no number of years from 0 to 120"),
        ({"age": 121}, "age 121 is no number of years"),
        ({"age": -1}, "age -1 is no number of years"),
        ({"sex": "Female"}, "sex 'Female' is none of F, M"),
        ({"view": "front"}, "view 'front' is none of PA, AP"),
        ({"source": "mimic_cxr"}, "source 'mimic_cxr' is none of nih, openi"),
        ({"Efusion": 1}, "unknown 'Efusion': use age, sex"),
        ({"race": "White"}, "unknown 'race': use age, sex"),
        ({"Effusion": 0.5}, "Effusion 0.5 is neither 1 .present. nor 0"),
        ({"Effusion": [1]}, "Effusion .1. is neither 1"),
        ({"No Finding": 1, "Edema": 1}, "'No Finding' and 'Edema' are both present"),
        ({"image_id": "a", "No Finding": 1, "Edema": 1}, "row 1 .image_id 'a'.: 'No Finding' and 'Edema'"),
        ({"details": [{"finding": "Edema", "side": "left"}]}, "details of 'Edema', which is not present"),
        ({"Edema": 1, "details": [{"finding": "Edema", "side": "up"}]}, "side of Edema 'up' is none of left"),
        ({"details": [{"finding": "Cough"}]}, "details of an unknown finding 'Cough'"),
        ({"details": {"finding": "Edema"}}, "are no list: write"),
        ({"details": "left"}, "details 'left' are no list: write"),
        ({"details": ["left"]}, "are no list: write"),
    ],
)
def test_what_cannot_be_is_refused(row, message):
    with pytest.raises(MetadataError, match=message):
        encode_metadata([{}, row], SOURCES)
    encode_metadata([{"No Finding": 1, "Support Devices": 1, "Edema": 0}], SOURCES)  # can be


def test_each_attribute_has_a_token_of_its_own():
    torch.manual_seed(0)
    encoder = MetadataEncoder(16, SOURCES, hidden_size=8)
    person = {**PERSON, "details": [{"finding": "Effusion", "side": "left", "severity": "mild"}]}
    changes = {
        "age": {"age": 55},
        "sex": {"sex": "M"},
        "view": {"view": "PA"},
        "source": {"source": "nih"},
        "Edema": {"Edema": 1},
        "Effusion": {"details": [{"finding": "Effusion", "side": "right", "severity": "mild"}]},
    }
    tokens, given = encoder(encode_metadata([person], SOURCES))
    assert tokens.shape == (1, 18, 16) and given.sum() == 6
    for name, change in changes.items():
        other, _ = encoder(encode_metadata([{**person, **change}], SOURCES))
        moved = (other - tokens).abs().amax(2)[0] > 1e-4
        assert [ATTRIBUTES[i] for i in moved.nonzero().flatten()] == [name]
    severe = {**person, "details": [{"finding": "Effusion", "side": "left", "severity": "severe"}]}
    assert not torch.allclose(encoder(encode_metadata([severe], SOURCES))[0], tokens)


def test_what_is_given_shifts_the_modulation_and_nothing_does_not():
    torch.manual_seed(0)
    encoder = MetadataEncoder(16, SOURCES, hidden_size=8)
    tables = encoder.tables(
        *encoder(encode_metadata([{}, {"sex": "F"}, {"age": 30}, {"sex": "F", "age": 30}], SOURCES))
    )
    assert tables.shape == (4, 6, 8) and not tables[0].any()
    torch.testing.assert_close(tables[1] + tables[2], tables[3])
    model = transformer(metadata_sources=SOURCES)
    for block in model.blocks:
        torch.nn.init.zeros_(block.cross_attn.proj.weight)  # so that attention reads nothing
    g = torch.Generator().manual_seed(1)
    batch = torch.randn(1, 4, 4, 4, generator=g), torch.tensor([500]), torch.randn(1, 8, 16, generator=g)

    def moved() -> float:
        said, unsaid = (model(*batch, metadata=encode_metadata([row], SOURCES)).sample for row in ({"sex": "F"}, {}))
        return float((said - unsaid).abs().max())

    with torch.no_grad():
        assert moved() == 0  # adaLN-zero: the table starts at zero
        torch.nn.init.normal_(model.metadata_embedder.table.weight)
        assert moved() > 1e-3


def test_age_is_continuous():
    torch.manual_seed(0)
    encoder = MetadataEncoder(64, (), hidden_size=8)
    tokens = encoder(encode_metadata([{"age": a} for a in (50, 50.1, 60, 0, 120)], ()))[0][:, 0]
    near, far = (tokens[1] - tokens[0]).norm(), (tokens[2] - tokens[0]).norm()
    assert 0 < near < 0.1 * far and (tokens[3] - tokens[4]).norm() > near


def test_dropping_meets_every_size_of_subset_alike():
    full = encode_metadata([{**PERSON, **dict.fromkeys(FINDINGS, 0)}] * 4000, SOURCES)
    codes = drop_attributes(full, torch.Generator().manual_seed(0))
    left = (~codes[:, : len(ATTRIBUTES)].isnan()).sum(1)
    assert torch.bincount(left, minlength=19).min() > 0.6 * 4000 / 19
    assert torch.bincount(left, minlength=19).max() < 1.5 * 4000 / 19
    per_attribute = (~codes[:, : len(ATTRIBUTES)].isnan()).float().mean(0)
    assert per_attribute.min() > 0.45 and per_attribute.max() < 0.55
    kept = keep_attributes(full[:1], torch.tensor([name == "sex" for name in ATTRIBUTES]))
    assert (~kept.isnan()).sum() == 1 and kept[0, 1] == full[0, 1]


def transformer(**config) -> ChexGenTransformer:
    torch.manual_seed(0)
    model = ChexGenTransformer.of_size("ci", sample_size=4, text_dim=16, text_tokens=8, **config).eval()
    torch.nn.init.normal_(model.final_layer.linear.weight)
    for block in model.blocks:
        torch.nn.init.normal_(block.cross_attn.proj.weight, std=0.3)
    return model


def test_the_transformer_reads_what_is_given_and_is_the_same_without():
    plain, model = transformer(), transformer(metadata_sources=SOURCES)
    model.load_state_dict(plain.state_dict(), strict=False)
    extra = set(model.state_dict()) - set(plain.state_dict())
    assert extra and all(name.startswith("metadata_embedder.") for name in extra)
    g = torch.Generator().manual_seed(1)
    batch = torch.randn(2, 4, 4, 4, generator=g), torch.tensor([500, 20]), torch.randn(2, 8, 16, generator=g)
    codes = encode_metadata([PERSON, {}], SOURCES)
    with torch.no_grad():
        base, said = plain(*batch).sample, model(*batch, metadata=codes).sample
        torch.testing.assert_close(model(*batch).sample, base)
        torch.testing.assert_close(said[1], base[1], atol=1e-5, rtol=1e-5)
        assert not torch.allclose(said[0], base[0], atol=1e-3)
        with pytest.raises(ValueError, match="has no metadata encoder"):
            plain(*batch, metadata=codes)


def test_the_documented_request_is_one():
    text = (Path(__file__).parents[2] / "docs/generating.md").read_text(encoding="utf-8")
    lines = text.partition("pipeline(metadata=request")[0].splitlines()
    names = {}
    exec("\n".join(line for line in lines if line.startswith("request")), names)
    codes = encode_metadata([names["request"]], [])
    assert (~codes.isnan()).sum() == 6  # age, sex, view, the finding, its side and its severity
